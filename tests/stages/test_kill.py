"""Killed again and again, and started again by the same command, a verb makes what an undisturbed one makes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LONGER = {
    "pipeline": ("train.max_steps=400", "train.judge_every=50", "train.checkpoint_every=20", "encode.chunk=4"),
    "rounds": (
        *("rounds.count=2", "encode.chunk=4"),
        *("train.max_steps=100", "train.judge_every=50", "train.checkpoint_every=10"),
        *("teacher_train.max_steps=60", "teacher_train.judge_every=30", "teacher_train.checkpoint_every=10"),
        *("distil_train.max_steps=60", "distil_train.judge_every=30", "distil_train.checkpoint_every=10"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "kills_wanted"), [("pipeline", 6), ("rounds", 10)])
def test_killed_at_any_moment_it_ends_the_same(fresh_lab, tmp_path, verb, kills_wanted):
    def start(lab, log) -> subprocess.Popen:
        command = [sys.executable, f"experiments/{verb}.py", *lab.arguments(verb, *LONGER[verb], "name=same")]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    undisturbed = fresh_lab.elsewhere(tmp_path / "undisturbed")
    with (tmp_path / "undisturbed.log").open("w") as log:
        assert start(undisturbed, log).wait() == 0, (tmp_path / "undisturbed.log").read_text()[-3000:]
    made = [path.stat().st_mtime for path in undisturbed.root.glob("*/*/manifest.json")]
    # The kills fall where work is done: after the imports, within the time that is left of it by equal shares.
    work = max(made) - min(made)
    moments = random.Random(0)
    kills = 0
    with (tmp_path / "killed.log").open("w") as log:
        for _ in range(kills_wanted):
            process = start(fresh_lab, log)
            while not fresh_lab.root.exists() and process.poll() is None:
                time.sleep(0.02)
            before = set(fresh_lab.root.rglob("*"))
            while set(fresh_lab.root.rglob("*")) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 2 * work / kills_wanted))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
        code = start(fresh_lab, log).wait()
    told = (tmp_path / "killed.log").read_text()
    assert code == 0, told[-3000:]
    assert kills >= kills_wanted // 2
    assert "going on in" in told
    assert fresh_lab.artifacts() == undisturbed.artifacts()
    assert not list(fresh_lab.root.glob("*/*.partial"))
