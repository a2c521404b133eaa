"""The verb replay: what it refuses, what it leaves alone, and that a failure leaves nothing marked as told."""

import fcntl
import json
import os
import shutil

import pytest

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
