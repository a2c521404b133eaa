"""The processes of a sweep, with commands that cost no imports: bounded, logged, stopped in order, never orphaned."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colbert_lab.stages.sweeps.grid import Told, run_jobs
from colbert_lab.stages.sweeps.plan import Job
from colbert_lab.stages.sweeps.pool import Pool, slots
from colbert_lab.stages.table import read_jobs

REPOSITORY = Path(__file__).resolve().parents[2]


def script(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


def test_no_more_run_at_once_than_there_are_slots_and_each_has_its_own(tmp_path):
    text = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], time.time()); time.sleep(.3); print(time.time())"
    with Pool(slots(2, ["3", "5"], cores=8)) as pool:
        left, ended = list(range(5)), []
        while left or pool.running:
            while left and pool.free:
                pool.start(key := left.pop(0), script(text), tmp_path / f"{key}.log")
            assert len(pool.running) <= 2
            ended += pool.wait(10)
    assert sorted(one.key for one in ended) == list(range(5))
    assert {one.code for one in ended} == {0}
    spans = [[float(word) for word in (tmp_path / f"{n}.log").read_text().split()] for n in range(5)]
    for device, start, _ in spans:
        # On a device only one at a time.
        assert sum(other[0] == device and other[1] <= start < other[2] for other in spans) == 1
    assert {span[0] for span in spans} == {3.0, 5.0}


def test_how_many_at_once_and_what_each_gets():
    assert slots(None, ["0", "1", "2"], 4) == [
        {"CUDA_VISIBLE_DEVICES": str(n)} | ({} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"})
        for n in range(3)
    ]
    assert slots(None, [], 2) == [{}]
    assert len(slots(None, [], 64)) == 8
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(3, ["a", "b"], 4)] == ["a", "b", "a"]


def test_threads_are_shared_out_unless_they_are_given(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots(2, [], 8) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert slots(1, [], 8) == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots(2, [], 8) == [{}] * 2


def test_leaving_the_pool_asks_first_and_kills_after_the_grace(tmp_path):
    ready = "print('ready', flush=True); time.sleep(60)"
    polite = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('in order'), sys.exit(0)))\n" + ready
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); " + ready
    logs = [tmp_path / "polite", tmp_path / "stubborn"]
    pool = Pool([{}, {}], grace=1.0)
    pool.start("polite", script(polite), logs[0])
    pool.start("stubborn", script(stubborn), logs[1])
    pids = list(pool.running.values())
    while not all("ready" in log.read_text() for log in logs):
        time.sleep(0.02)
    with pytest.raises(KeyboardInterrupt), pool:
        raise KeyboardInterrupt
    assert "in order" in logs[0].read_text()
    assert pool.running == {}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_job_dies_with_its_parent_even_one_that_was_not_yet_ready_for_it(tmp_path):
    child = f"""
import os, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from colbert_lab.processes import die_with
time.sleep(float(sys.argv[2]))
die_with(int(sys.argv[1]))
open({str(tmp_path)!r} + "/alive" + sys.argv[2], "w").write(str(os.getpid()))
time.sleep(60)
"""
    parent = f"""
import os, subprocess, sys, time
for late in ("0", "1.5"):
    subprocess.Popen([sys.executable, "-S", "-c", {child!r}, str(os.getpid()), late], process_group=0)
time.sleep(60)
"""
    started = subprocess.Popen(script(parent))
    alive = tmp_path / "alive0"
    while not (alive.exists() and alive.read_text()):
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    deadline = time.monotonic() + 5
    while running(int(alive.read_text())):
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.02)
    time.sleep(2)
    assert not (tmp_path / "alive1.5").exists(), "its parent had ended before it asked to die with it"


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# What a job does at its end, by hand: its record, then its exit.
NOTES = """
import json, os, sys
folder, number = sys.argv[1], int(sys.argv[2])
job = json.load(open(f"{folder}/jobs/{number:03d}.json"))
print("working on", number)
if number == 1:
    raise ValueError("planted")
if number == 2:
    os.kill(os.getpid(), 9)
record = {"number": number, "overrides": job["overrides"], "params": job["params"], "config": job["config"]}
record |= {"pid": os.getpid(), "state": "finished", "objective": number / 10, "objective_name": "dev_ndcg_10"}
open(f"{folder}/jobs.jsonl", "a").write(json.dumps(record | {"figures": {}, "artifact": None}) + chr(10))
"""


def test_every_job_leaves_a_record_however_it_ended(tmp_path, capsys):
    jobs = [Job(n, "train", [f"seed={n}"], {"seed": n}, "c") for n in range(4)]
    told = Told(tmp_path, 4, 0, 4)
    with Pool([{}, {}]) as pool:
        run_jobs(jobs, pool, tmp_path, told, lambda folder, n, _: [*script(NOTES), str(folder), str(n)])
    records = {record["number"]: record for record in read_jobs(tmp_path)}
    states = [records[n]["state"] for n in range(4)]
    assert states == ["finished", "failed", "failed", "finished"]
    assert "ValueError: planted" in records[1]["error"]
    assert "working on 1" in records[1]["error"]
    assert "by signal 9, as when memory runs out" in records[2]["error"]
    assert all(record["seconds"] > 0 for record in records.values())
    assert json.loads((tmp_path / "jobs" / "003.json").read_text())["params"] == {"seed": 3}
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("[4/4] seed=3: dev_ndcg_10 0.3000")]
    assert sum("FAILED" in line for line in lines) == 2
