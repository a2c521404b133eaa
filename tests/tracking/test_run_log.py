"""The local log: what is written is read back, also after a process was killed while it wrote."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from colbert_lab.errors import DataError
from colbert_lab.tracking.log import RunLog, plain
from colbert_lab.tracking.names import check_names
from colbert_lab.tracking.read import history, read_metrics, read_table, seconds, state, summary


def begun(directory):
    log = RunLog(directory)
    log.begin({"seed": 0, "loss": {"temperature": 1e-5}}, ["seed=0"])
    return log


def append(directory, text):
    with (directory / "metrics.jsonl").open("a") as handle:
        handle.write(text)


@pytest.mark.parametrize("name", ["loss", "val/ndcg_10", "val/sci-fact.v2/ndcg_10", "_x", "a/b/c"])
def test_good_names(name):
    check_names([name])


@pytest.mark.parametrize(
    "name", ["", "ndcg@10", "val/p@1", "val/10", "val/", "/x", "a//b", "a b/c", "val/a-b", "val/a.b", "step", "time"]
)
def test_bad_names(name):
    with pytest.raises(ValueError, match="metric name"):
        check_names(["train/loss", name])


def test_a_bad_name_is_told_with_a_good_one():
    with pytest.raises(ValueError, match="try 'val/ndcg_10'"):
        check_names(["val/ndcg@10"])


def test_what_the_run_was_given_is_kept(tmp_path):
    import yaml

    log = begun(tmp_path)
    log.end("finished", 0)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"seed": 0, "loss": {"temperature": 1e-5}}
    assert json.loads((tmp_path / "overrides.json").read_text()) == ["seed=0"]
    machine = json.loads((tmp_path / "environment.json").read_text())["machine"]
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 2**20
    assert machine["cpu"]


def test_numbers_come_back_as_they_were(tmp_path):
    log = begun(tmp_path)
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1 + 0.2, "e": 5e-324, "f": 3, "g": -0.0}
    log.metrics(values, step=4)
    log.metrics({"h": np.float32(0.1)}, step=np.int64(5))
    log.summary({"objective": math.nan})
    log.log_table("eval/per_query", [{"id": "q\u2028é", "ndcg_10": math.nan}, {"id": "r", "ndcg_10": 1.0}])
    log.end("finished", 0)
    first, second = read_metrics(tmp_path)
    assert repr({name: first[name] for name in values}) == repr(values)
    assert second["h"] == float(np.float32(0.1))
    assert second["step"] == 5
    assert math.isnan(summary(tmp_path)["objective"])
    rows = read_table(tmp_path, "eval/per_query")
    assert rows[0]["id"] == "q\u2028é"
    assert math.isnan(rows[0]["ndcg_10"])
    assert history(tmp_path)["f"] == [(4, 3)]


def test_a_value_that_is_no_number_is_refused(tmp_path):
    log = begun(tmp_path)
    for value in ("0.5", None, [1.0], np.ones(2)):
        with pytest.raises(TypeError, match="train/loss"):
            log.metrics({"train/loss": value}, step=0)
    with pytest.raises(ValueError, match="axis"):
        log.metrics({"trainer/step": 1}, step=1)
    with pytest.raises(ValueError, match="taken by the log"):
        log.log_table("metrics", [])
    assert read_metrics(tmp_path) == []


def test_a_config_that_is_not_plain_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"loss\.module"):
        RunLog(tmp_path).begin({"loss": {"module": object()}}, [])
    assert plain({"a": (tmp_path, np.float64(0.5))}) == {"a": [str(tmp_path), 0.5]}


def test_summary_merges(tmp_path):
    log = begun(tmp_path)
    log.summary({"a": 1, "b": 2})
    log.summary({"b": 3, "best": "hinge"})
    assert summary(tmp_path) == {"a": 1, "b": 3, "best": "hinge"}


def test_what_lies_beyond_the_resumed_step_counts_no_more(tmp_path):
    log = begun(tmp_path)
    for step in range(6):
        log.metrics({"train/loss": step / 10}, step)
    log.metrics({"round/ndcg_10": 0.5}, 9, axis="round")
    again = begun(tmp_path)
    again.resumed(3)
    again.metrics({"train/loss": 44.0}, 4)
    assert history(tmp_path) == {
        "train/loss": [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 44.0)],
        "round/ndcg_10": [(9, 0.5)],
    }
    again.resumed(-1)
    assert list(history(tmp_path)) == ["round/ndcg_10"]


def test_a_second_start_leaves_the_first_one_legible(tmp_path):
    first = begun(tmp_path)
    identity = first.id
    second = RunLog(tmp_path)
    second.begin({"seed": 1}, [])
    second.end("finished", 0)
    found = state(tmp_path)
    assert [segment["state"] for segment in found["segments"]] == ["killed", "finished"]
    assert found["state"] == "finished"
    assert found["started"] == found["segments"][0]["started"]
    assert second.id == identity
    assert "temperature" in (tmp_path / "config.1.yaml").read_text()
    assert not (tmp_path / "environment.1.json").exists()


def test_a_line_cut_short_is_tolerated_only_where_a_process_was_killed(tmp_path):
    log = begun(tmp_path)
    log.metrics({"train/loss": 1.0}, 0)
    append(tmp_path, '{"time": 1, "axis": "trainer/step", "step": 1, "train/lo')
    assert len(read_metrics(tmp_path)) == 1
    again = begun(tmp_path)
    again.resumed(0)
    again.metrics({"train/loss": 0.5}, 1)
    assert history(tmp_path) == {"train/loss": [(0, 1.0), (1, 0.5)]}
    append(tmp_path, "{broken\n")
    again.metrics({"train/loss": 0.4}, 2)
    with pytest.raises(DataError, match=r"metrics\.jsonl:6: not a line of JSON"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("line", ["[1, 2]\n{}", '{"train/loss": 1}\n', "\xff\n{}\n"])
def test_lines_that_are_no_metrics(tmp_path, line):
    begun(tmp_path)
    append(tmp_path, line)
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: "):
        read_metrics(tmp_path)


def test_a_directory_without_a_log(tmp_path):
    for reader in (read_metrics, history, state):
        with pytest.raises(DataError, match="holds no log"):
            reader(tmp_path)
    with pytest.raises(DataError, match="no table 'x'"):
        read_table(tmp_path, "x")


WRITER = """
import sys
from pathlib import Path
from colbert_lab.tracking.log import RunLog
log = RunLog(Path(sys.argv[1]))
log.begin({}, [])
for step in range(10**9):
    log.metrics({"train/loss": step / 7, "train/lr": 1e-5}, step)
"""


def test_killed_while_writing_then_resumed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], env={**os.environ, "PYTHONPATH": "."})
    deadline = time.time() + 30
    file = tmp_path / "metrics.jsonl"
    while not (file.exists() and file.stat().st_size > 20000) and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What a power cut or a full disk would leave: the last line cut in the middle.
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b"\n", 0, -1) + 30])
    before = read_metrics(tmp_path)
    assert [line["step"] for line in before] == list(range(len(before)))
    assert len(before) > 50
    log = begun(tmp_path)
    log.resumed(40)
    log.metrics({"train/loss": -1.0}, 41)
    after = history(tmp_path)["train/loss"]
    assert after == [(step, step / 7) for step in range(41)] + [(41, -1.0)]
    assert state(tmp_path)["segments"][0]["state"] == "killed"


def test_a_killed_start_counts_up_to_its_own_last_line(tmp_path):
    def start(began, ended):
        return {"state": "killed" if ended is None else "finished", "started": began, "ended": ended, "pid": 1}

    # 100 to 130, killed; then after a night 1000 to 1050.
    segments = [start(100.0, None), start(1000.0, 1050.0)]
    (tmp_path / "state.json").write_text(json.dumps({"state": "finished", "segments": segments}))
    lines = [{"time": time, "axis": "trainer/step", "step": n, "x": 1} for n, time in enumerate((110.0, 130.0, 1040.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert seconds(tmp_path) == 30.0 + 50.0
