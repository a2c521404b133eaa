"""The verb replay: what it refuses, what it leaves alone, and that a failure leaves nothing marked as told."""

import fcntl
import json
import os
import re
import shutil

import pytest
from test_wandb_readback import found

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.stages.launch import run_job
from colbert_lab.tracking.tracker import RunIdentity, Tracker


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    import wandb

    wandb.teardown()
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    yield
    wandb.teardown()


@pytest.fixture
def replay(lab, tmp_path, capsys):
    def run(*overrides):
        cfg, given, choices = lab.compose("replay", f"root={tmp_path}", *overrides, "!all")
        run_job("replay", cfg, given, choices)
        return capsys.readouterr().out

    return run


@pytest.fixture
def log(tmp_path):
    """The log of one finished run."""
    place = tmp_path / "models" / "m" / "log"
    with Tracker.start(place, RunIdentity(name="m"), {"seed": 0}, []) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    return place


def test_what_is_refused(replay, tmp_path):
    with pytest.raises(ConfigError, match="try: runs="):
        replay()
    with pytest.raises(ConfigError, match="tracking=none tells nobody"):
        replay(f"runs={tmp_path}", "tracking=none")
    with pytest.raises(DataError, match="holds no log"):
        replay(f"runs={tmp_path}")


def test_without_an_account_nothing_is_marked_as_told(replay, log):
    with pytest.raises(ConfigError, match=r"no API key[\s\S]*tracking=offline"):
        replay(f"runs={log.parent}")
    assert not (log / "replayed.json").exists()
    assert "1 replayed\nto upload them: wandb sync" in replay(f"runs={log.parent}", "tracking=offline")
    assert json.loads((log / "replayed.json").read_text())["id"] == (log / "wandb_id").read_text()
    # Into files is not to W&B: what is asked for is still to do, and again refused without an account.
    with pytest.raises(ConfigError, match=r"no API key[\s\S]*tracking=offline"):
        replay(f"runs={log.parent}")
    said = replay(f"runs={log.parent}", "tracking=offline")
    assert said.startswith("1 replayed before\n1 of them into files alone: wandb sync uploads")


def test_a_run_that_still_goes_on_is_left_alone(replay, log):
    state = json.loads((log / "state.json").read_text())
    state["state"] = "running"
    state["exit_code"] = None
    (log / "state.json").write_text(json.dumps(state))
    lock = log.parent.with_name(".m.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "1 still running" in replay(f"runs={log.parent}", "tracking=offline")
    # Nobody holds the lock that a kill left: it is told as killed, though this process has the id of its process.
    assert state["segments"][-1]["pid"] == os.getpid()
    assert "1 replayed" in replay(f"runs={log.parent}", "tracking=offline")


def test_one_run_given_twice_is_told_once(replay, log, tmp_path):
    said = replay(f"runs=[{log.parent},{log},{tmp_path}]", "tracking=offline")
    assert said.startswith("1 replayed\n")
    assert len(list((tmp_path / "replayed" / "wandb").glob("offline-run-*"))) == 1


def test_what_nobody_hears_is_not_marked_as_told(replay, log, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(ConfigError, match="WANDB_MODE=disabled tells nobody"):
        replay(f"runs={log.parent}", "tracking=offline")
    assert not (log / "replayed.json").exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "to upload them: wandb sync" in replay(f"runs={log.parent}", "tracking=wandb")


def test_a_log_that_is_broken_stops_no_other(replay, log, tmp_path):
    for name, file in (("a", "metrics.jsonl"), ("b", "state.json")):
        broken = tmp_path / "models" / name / "log"
        shutil.copytree(log, broken)
        (broken / file).write_text("{broken\n{}\n")
    with pytest.raises(ConfigError, match=r"2 problems in replay[\s\S]*/[ab]/log could not be replayed"):
        replay(f"runs={tmp_path}", "tracking=offline")
    assert (log / "replayed.json").exists()


def begun(place):
    """The log of a run that was killed at its first step."""
    tracker = Tracker.start(place, RunIdentity(name="m"), {"seed": 0}, [])
    tracker.log({"train/loss": 1.0}, 1)
    return tracker


def finished(place, tracker):
    """The run in a second start, which is another process."""
    with Tracker.start(place, RunIdentity(name="m"), {"seed": 0}, []) as tracker:
        tracker.resumed(1)
        tracker.log({"train/loss": 0.5}, 2)


def finished_elsewhere(place, tracker):
    """The run in its first start, which was not killed: it went on where its lock could not be seen."""
    with tracker:
        tracker.log({"train/loss": 0.5}, 2)


@pytest.mark.parametrize("goes_on", [finished, finished_elsewhere])
def test_a_run_that_went_on_after_its_replay_is_told_whole_and_once(replay, tmp_path, goes_on):
    artifact = tmp_path / "models" / "m"
    place = artifact.with_name("m.partial") / "log"
    tracker = begun(place)
    assert replay(f"runs={tmp_path}", "tracking=offline").startswith("1 replayed\n")
    (record,) = (tmp_path / "replayed" / "wandb").glob("offline-run-*")
    assert found(record)["exit_code"] == 137
    assert replay(f"runs={tmp_path}", "tracking=offline").startswith("1 replayed before\n")
    goes_on(place, tracker)
    place.parent.rename(artifact)
    told = replay(f"runs={tmp_path}", "tracking=offline")
    assert told.startswith("1 replayed\n1 offline records of earlier replays were replaced by these\n")
    (record,) = (tmp_path / "replayed" / "wandb").glob("offline-run-*")
    run = found(record)
    assert (run["exit_code"], run["run_id"]) == (0, (artifact / "log" / "wandb_id").read_text())
    assert [line["train/loss"] for line in run["history"]] == [1.0, 0.5]
    assert replay(f"runs={tmp_path}", "tracking=offline").startswith("1 replayed before\n")


def test_a_project_that_is_named_is_where_runs_go(replay, log, tmp_path):
    (log / "online.json").write_text('{"segments": 1}')
    assert replay(f"runs={log}", "tracking=offline").startswith("1 told online")
    # Online it was told to its own project, and another has nothing of it.
    named = ("tracking=offline", "tracking.project=mine", "tracking.sink.entity=team")
    assert replay(f"runs={log}", *named).startswith("1 replayed\n")
    (record,) = (tmp_path / "replayed" / "wandb").glob("offline-run-*")
    header = found(record)
    assert (header["project"], header["run"]["entity"]) == ("mine", "team")
    assert replay(f"runs={log}", *named).startswith("1 replayed before\n")
    assert replay(f"runs={log}", "tracking=offline").startswith("1 told online")
    (log / "online.json").unlink()
    assert replay(f"runs={log}", "tracking=offline").startswith("1 replayed\n"), "its own project has no replay of it"
    assert "were replaced" not in replay(f"runs={log}", *named)


@pytest.mark.parametrize("key", ["group=g", "tags=[a]", "notes=n"])
def test_what_a_replay_cannot_obey_is_refused(replay, log, key):
    with pytest.raises(ConfigError, match=rf"tracking\.{re.escape(key)} would change nothing[\s\S]*try: without"):
        replay(f"runs={log}", "tracking=offline", f"tracking.{key}")
    assert not (log / "replayed.json").exists()
