"""A pipeline killed again and again, and started again with the same command, makes what an undisturbed one makes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = 6


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(fresh_lab, tmp_path):
    steps = ("train.max_steps=400", "train.judge_every=50", "train.checkpoint_every=20", "encode.chunk=4", "name=same")

    def start(lab, log) -> subprocess.Popen:
        command = [sys.executable, "experiments/pipeline.py", *lab.arguments("pipeline", *steps)]
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
        for _ in range(KILLS):
            process = start(fresh_lab, log)
            while not fresh_lab.root.exists() and process.poll() is None:
                time.sleep(0.02)
            before = set(fresh_lab.root.rglob("*"))
            while set(fresh_lab.root.rglob("*")) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 2 * work / KILLS))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
        code = start(fresh_lab, log).wait()
    told = (tmp_path / "killed.log").read_text()
    assert code == 0, told[-3000:]
    assert kills >= 3
    assert "going on in" in told
    assert fresh_lab.artifacts() == undisturbed.artifacts()
    assert not list(fresh_lab.root.glob("*/*.partial"))
