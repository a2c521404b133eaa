"""Killed again and again, and started again by the same command, a verb makes what an undisturbed one makes.

What is done can be read under the root: steps in the logs, artifacts that are whole. Each kill waits for one of these
events, and then for a part of the time that the undisturbed verb took from it to the next.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# The greatest checkpoint_every below: so many steps a kill may cost.
REPEATED = 20
LONGER = {
    "pipeline": ("train.max_steps=400", "train.judge_every=50", "train.checkpoint_every=20", "encode.chunk=4"),
    "rounds": (
        *("rounds.count=2", "encode.chunk=4"),
        *("train.max_steps=100", "train.judge_every=50", "train.checkpoint_every=10"),
        *("teacher_train.max_steps=60", "teacher_train.judge_every=30", "teacher_train.checkpoint_every=10"),
        *("distil_train.max_steps=60", "distil_train.judge_every=30", "distil_train.checkpoint_every=10"),
    ),
}


def logged(root: Path) -> list[tuple[str, dict]]:
    """(artifact, line) for every line of metrics in the logs under `root`, also those that a restart took back."""
    found = []
    for file in root.glob("*/*/log/metrics.jsonl"):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            continue  # the artifact was renamed into its place meanwhile
        for raw in content.splitlines():
            if raw.endswith(b"}") and b'"event"' not in raw:
                found.append((file.parts[-3].removesuffix(".partial"), json.loads(raw)))
    return found


def events(root: Path) -> dict[tuple, float]:
    """What was done under `root`, named alike under every root, and when it was done first."""
    found: dict[tuple, float] = {}
    for artifact, line in logged(root):
        found.setdefault((artifact, line["axis"], line["step"]), line["time"])
    for manifest in root.glob("*/*/manifest.json"):
        found[manifest.parent.name,] = manifest.stat().st_mtime
    return found


def moments(done: dict[tuple, float], count: int) -> list[tuple[tuple, float]]:
    """(event, seconds after it) at `count` random moments, in their order, before the last artifact is begun."""
    whole = sorted(when for event, when in done.items() if len(event) == 1)
    draw, order = random.Random(0), sorted(done, key=done.__getitem__)
    found = []
    for moment in sorted(draw.uniform(whole[0], whole[-2]) for _ in range(count)):
        last = max(i for i, event in enumerate(order) if done[event] <= moment)
        # At most half of the way to the next event, so that it comes before that also where the work goes faster.
        gap = done[order[last + 1]] - done[order[last]]
        found.append((order[last], min(moment - done[order[last]], gap / 2)))
    return found


def repeats(root: Path) -> tuple[int, int]:
    """Training steps and chunks of documents that were done under `root`, over all starts."""
    lines = [line for _, line in logged(root)]
    return sum("train/loss" in line for line in lines), sum(line["axis"] == "index/documents_done" for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "kills_wanted"), [("pipeline", 6), ("rounds", 10)])
def test_killed_at_any_moment_it_ends_the_same(fresh_lab, tmp_path, verb, kills_wanted):
    def start(lab, log) -> subprocess.Popen:
        command = [sys.executable, f"experiments/{verb}.py", *lab.arguments(verb, *LONGER[verb], "name=same")]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    undisturbed = fresh_lab.elsewhere(tmp_path / "undisturbed")
    with (tmp_path / "undisturbed.log").open("w") as log:
        assert start(undisturbed, log).wait() == 0, (tmp_path / "undisturbed.log").read_text()[-3000:]
    with (tmp_path / "killed.log").open("w") as log:
        for event, seconds in moments(events(undisturbed.root), kills_wanted):
            before = events(fresh_lab.root)
            process = start(fresh_lab, log)
            while process.poll() is None:
                now = events(fresh_lab.root)
                # Where an earlier kill came late: the first that this start does.
                if event in now.keys() - before.keys() or (event in before and now.keys() - before.keys()):
                    break
                time.sleep(0.02)
            time.sleep(seconds)
            assert process.poll() is None, f"it ended before it could be killed after {event}"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        code = start(fresh_lab, log).wait()
    told = (tmp_path / "killed.log").read_text()
    assert code == 0, told[-3000:]
    assert "going on in" in told
    assert fresh_lab.artifacts() == undisturbed.artifacts()
    assert not list(fresh_lab.root.glob("*/*.partial"))
    # A kill costs the steps since the last checkpoint, and one chunk of documents, at most.
    steps, chunks = repeats(undisturbed.root)
    steps_in_all, chunks_in_all = repeats(fresh_lab.root)
    assert 100 <= steps <= steps_in_all <= steps + kills_wanted * REPEATED
    assert 10 <= chunks <= chunks_in_all <= chunks + kills_wanted
