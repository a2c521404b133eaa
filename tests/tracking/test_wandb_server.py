"""The real W&B client against a stand-in server on this machine: what arrives, and what happens where nothing does."""

import json
import logging
import subprocess
import sys
import time

import pytest
from standin import Server

from colbert_lab.tracking.log import told_segments
from colbert_lab.tracking.read import history, state, summary
from colbert_lab.tracking.replay import logs_below, replay
from colbert_lab.tracking.tracker import RunIdentity, Tracker
from colbert_lab.tracking.wandb import WandbSink

KEYS = {"model": "a" * 64, "run": "b" * 64, "metrics": "c" * 64}


@pytest.fixture
def server(monkeypatch, tmp_path):
    import wandb

    # The client keeps the address it was first given.
    wandb.teardown()
    found = Server()
    for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    yield found
    wandb.teardown()
    found.die()


def told(server, log):
    """What the server holds of the run in `log`."""
    return server.runs[log_id(log)]


def log_id(log):
    """The name of the run in `log` to W&B."""
    return (log / "wandb_id").read_text()


def curve(run, name):
    """The values of a metric by the step of its axis, in the order in which they arrived."""
    steps = [(line.get("trainer/step", line.get("round")), line[name]) for line in run["history"] if name in line]
    assert all(step is not None for step, _ in steps)
    return steps


def value(config, key):
    return json.loads(config)[key]["value"]


def axes(run):
    """Metric or pattern -> its axis, as the client sends it: by number in the list of all definitions."""
    defined = value(run["config"], "_wandb")["m"]
    names = [one.get("1", one.get("2")) for one in defined]
    return {name: names[one["5"] - 1] for name, one in zip(names, defined) if "5" in one}


def test_what_arrives_of_a_run(tmp_path, server, capfd):
    identity = RunIdentity("proj", "study", "train", "hinge-s0", ("pilot",), "why")
    log, sink = tmp_path / "log", WandbSink("online", required=True)
    with Tracker.start(log, identity, {"loss": {"temperature": 0.5}}, [], sink) as tracker:
        tracker.artifact("start", "model", tmp_path / "start", "d" * 64, used=True)
        for step in (1, 2):
            tracker.log({"train/loss": 1 / step}, step)
        tracker.log({"val/ndcg_10": 0.5}, 2)
        tracker.log({"round/test_ndcg_10": 0.6}, 1, axis="round")
        tracker.histogram("train/positive_scores", [1.0, 2.0, 2.0], 2, edges=[0, 1.5, 3])
        tracker.table("eval/per_query", [{"id": "q", "ndcg_10": 0.5}])
        tracker.summary({"objective": 0.7})
        tracker.artifact("train", "model", tmp_path / "made", "e" * 64)
    run = told(server, log)
    assert (run["project"], run["groupName"], run["jobType"]) == ("proj", "study", "train")
    assert (run["displayName"], run["tags"], run["notes"], run["exit_code"]) == ("hinge-s0", ["pilot"], "why", 0)
    assert value(run["config"], "loss") == {"temperature": 0.5}
    assert value(run["config"], "derived")["code"]["python"]
    step = "trainer/step"
    assert axes(run) == {"train/*": step, "val/*": step, "val/ndcg_10": step, "round/*": "round"}
    assert curve(run, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert curve(run, "round/test_ndcg_10") == [(1, 0.6)]
    ((step, scores),) = curve(run, "train/positive_scores")
    assert (step, scores["values"], scores["bins"]) == (2, [1, 2], [0, 1.5, 3])
    assert run["summary"]["objective"] == 0.7
    assert run["summary"]["val/ndcg_10"] == {"max": 0.5}
    assert run["summary"]["eval/per_query"]["nrows"] == 1
    assert any("media/table/eval/per_query" in file for file in server.files)
    named = {one["artifactCollectionName"]: one for one in server.artifacts.values()}
    id = (log / "wandb_id").read_text()
    assert server.used == [(id, "start-dddddddddd")]
    assert named["made-eeeeeeeeee"]["makers"] == [id]
    assert json.loads(named["made-eeeeeeeeee"]["metadata"])["path"] == str(tmp_path / "made")
    assert told_segments(log) == 1
    out, err = capfd.readouterr()
    assert out + err == "", "the terminal is the run's own"

    failed = Tracker.start(tmp_path / "b", RunIdentity(name="bad"), {}, [], WandbSink("online"))
    with pytest.raises(ZeroDivisionError), failed:
        raise ZeroDivisionError
    (alert,) = server.alerts
    assert alert["title"] == "bad: run failed"
    assert "ZeroDivisionError" in alert["text"]
    assert told(server, tmp_path / "b")["exit_code"] == 1
    assert "loss" not in json.loads(told(server, tmp_path / "b")["config"]), "nothing leaks from the run before"


def test_a_server_that_dies_loses_nothing_here(tmp_path, server, caplog):
    log, sink = tmp_path / "log", WandbSink("online", finish_timeout=2)
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), Tracker.start(log, RunIdentity(), {}, [], sink) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        server.die()
        for step in range(2, 50):
            tracker.log({"train/loss": 1 / step}, step)
        tracker.summary({"objective": 0.7})
    assert time.monotonic() - start < 30
    assert len(caplog.records) == 1
    assert history(log)["train/loss"] == [(step, 1 / step) for step in range(1, 50)]
    assert summary(log) == {"objective": 0.7}
    assert state(log)["state"] == "finished"
    assert told_segments(log) == 0, "a replay is due"


def test_no_network_is_waited_for_only_so_long(tmp_path, server, caplog):
    server.die()
    start = time.monotonic()
    with Tracker.start(tmp_path, RunIdentity(), {}, [], WandbSink("online", init_timeout=2)) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    assert time.monotonic() - start < 30
    assert "alone from here on" in caplog.text
    assert history(tmp_path)["train/loss"] == [(1, 1.0)]


def experiment(root):
    """Three linked runs as they lie after a rounds experiment: a model, trained in two starts; its run; its metrics."""
    study = ("proj", "two")
    trained = root / "models" / "two-s0"
    config = {"loss": {"temperature": 0.5}, "seed": 0}
    first = Tracker.start(trained / "log", RunIdentity(*study, "train", "two-s0", ("train",)), config, [])
    for step in (1, 2, 3, 4):
        first.log({"train/loss": 1.0, "val/ndcg_10": 0.1}, step)
    first.finish("preempted", 143)
    with Tracker.start(trained / "log", RunIdentity(*study, "train", "two-s0", ("train",)), config, []) as tracker:
        tracker.resumed(2)
        for step in (3, 4, 5):
            tracker.log({"train/loss": 0.5, "val/ndcg_10": 0.2}, step)
        tracker.histogram("train/positive_scores", [1.0, 2.0], 5)
        tracker.derived({"parameters": 22})
        tracker.summary({"objective": 0.2})
        tracker.artifact("train", "model", trained, KEYS["model"])
    searched = root / "runs" / "two-dev"
    with Tracker.start(searched / "log", RunIdentity(*study, "search", "two-dev-s0"), {}, []) as tracker:
        tracker.artifact("model", "model", trained, KEYS["model"], used=True)
        tracker.summary({"search/search_ms": 2.0})
        tracker.artifact("search", "run", searched, KEYS["run"])
    judged = root / "metrics" / "two-dev.partial"
    tracker = Tracker.start(judged / "log", RunIdentity(*study, "evaluate", "two-s0"), {}, [])
    tracker.artifact("run_0", "run", searched, KEYS["run"], used=True)
    tracker.table("eval/per_query", [{"id": str(i), "ndcg_10": i / 2000} for i in range(2000)], by="ndcg_10")
    tracker.finish("failed", 1, "out of memory")
    return [place / "log" for place in (trained, searched, judged)]


def online():
    return WandbSink("online", required=True)


def test_a_replay_is_complete_and_told_once(tmp_path, server):
    logs = experiment(tmp_path / "outputs")
    assert logs_below(tmp_path / "outputs") == logs, "in the order of their making"
    assert [replay(log, online, tmp_path / "out").state for log in logs] == ["told"] * 3
    train, search, judge = (told(server, log) for log in logs)
    assert {(run["project"], run["groupName"]) for run in (train, search, judge)} == {("proj", "two")}
    assert [run["jobType"] for run in (train, search, judge)] == ["train", "search", "evaluate"]
    assert (train["displayName"], train["tags"]) == ("two-s0", ["train"])
    assert [run["exit_code"] for run in (train, search, judge)] == [0, 0, 1]
    # What the first start had logged beyond the step that the second went on from is not told.
    assert curve(train, "train/loss") == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5), (5, 0.5)]
    assert curve(train, "train/positive_scores")[0][0] == 5
    assert axes(train)["val/*"] == "trainer/step"
    assert train["summary"]["objective"] == 0.2
    assert value(train["config"], "loss") == {"temperature": 0.5}
    assert value(train["config"], "derived")["parameters"] == 22
    assert search["summary"]["search/search_ms"] == 2.0
    assert judge["summary"]["eval/per_query"]["nrows"] == 1000
    # The lineage: each artifact is one version, made by one run and used by the next.
    ids = [(log / "wandb_id").read_text() for log in logs]
    named = {one["artifactCollectionName"]: one for one in server.artifacts.values()}
    assert server.used == [(ids[1], "two-s0-aaaaaaaaaa"), (ids[2], "two-dev-bbbbbbbbbb")]
    assert (named["two-s0-aaaaaaaaaa"]["makers"], named["two-dev-bbbbbbbbbb"]["makers"]) == ([ids[0]], [ids[1]])
    assert sum(one["artifactTypeName"] in ("model", "run") for one in server.artifacts.values()) == 2
    assert server.alerts == [], "what failed long ago calls nobody"

    lines = [len(run["history"]) for run in (train, search, judge)]
    assert [replay(log, online, tmp_path / "out").state for log in logs] == ["done"] * 3
    assert [run["starts"] for run in server.runs.values()] == [1, 1, 1]
    assert replay(logs[0], online, tmp_path / "out", again=True).state == "told"
    assert len(server.runs) == 3, "under the same id, in place of the old one"
    assert [len(told(server, log)["history"]) for log in logs] == lines


def test_what_was_replayed_into_files_alone_goes_online_once(tmp_path, server, monkeypatch):
    log, out = experiment(tmp_path / "outputs")[1], tmp_path / "out"
    offline = WandbSink("offline", required=True)
    assert replay(log, lambda: offline, out)[1:] == ("told", log_id(log), False, 0)
    assert server.runs == {}
    assert replay(log, lambda: offline, out)[1:] == ("done", log_id(log), False, 0)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert replay(log, online, out).state == "done", "the environment holds it back"
    monkeypatch.delenv("WANDB_MODE")
    # Told online, and no record is left that a later `wandb sync` would put in its place.
    assert replay(log, online, out)[1:] == ("told", log_id(log), True, 1)
    assert list(out.glob("wandb/offline-run-*")) == []
    assert told(server, log)["starts"] == 1
    assert told(server, log)["summary"]["search/search_ms"] == 2.0
    for sink in (online, lambda: offline):
        assert replay(log, sink, out)[1:] == ("done", log_id(log), True, 0)
    assert list(server.runs) == [log_id(log)]


def test_what_was_uploaded_from_files_is_not_told_again(tmp_path, server):
    log, out = experiment(tmp_path / "outputs")[1], tmp_path / "out"
    replay(log, lambda: WandbSink("offline", required=True), out)
    (record,) = out.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(server, log)["summary"]["search/search_ms"] == 2.0
    assert replay(log, online, out)[1:] == ("done", log_id(log), True, 0)
    assert told(server, log)["starts"] == 1


def test_a_replay_that_did_not_arrive_is_due_again(tmp_path, server):
    log = experiment(tmp_path / "outputs")[1]
    server.die()
    with pytest.raises(Exception, match=r".+"):
        replay(log, lambda: WandbSink("online", init_timeout=2), tmp_path / "out")
    assert not (log / "replayed.json").exists()


def test_a_run_that_was_told_online_is_not_told_again(tmp_path, server):
    log = tmp_path / "log"
    with Tracker.start(log, RunIdentity(), {}, [], online()) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    assert replay(log, online, tmp_path / "out").state == "online"
    assert told(server, log)["starts"] == 1
