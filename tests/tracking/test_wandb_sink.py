"""W&B: real offline runs read back by its own inspector; a stand-in where a network would be needed."""

import json
import logging
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from colbert_lab.tracking.tracker import RunIdentity, Tracker
from colbert_lab.tracking.wandb import WandbSink, worst_and_sample


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def inspect(directory: Path, *options: str) -> str:
    (run,) = directory.glob("wandb/offline-run-*")
    command = shutil.which("wandb", path=str(Path(sys.executable).parent)) or "wandb"
    answer = subprocess.run([command, "leet", "inspect", *options, "--json", str(run)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_two_offline_runs_in_one_process(tmp_path, capfd):
    import wandb

    payload = tmp_path / "a model"
    payload.mkdir()
    (payload / "weights.bin").write_bytes(b"0123456789abcdef" * 1000)
    identity = RunIdentity("proj", "study", "train", "hinge-s0", ("pilot", "t" * 80), "why", None)
    with Tracker.start(tmp_path / "one", identity, {"loss": {"temperature": 0.5}}, [], WandbSink()) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        for step, value in ((2, 0.7), (4, 0.6), (3, 0.5)):
            tracker.log({"val/ndcg_10": value, "train/loss": math.nan}, step)
        tracker.log({"round/ndcg_10": 0.9}, 1, axis="round")
        tracker.derived({"parameters": 22})
        tracker.summary({"objective": 0.7})
        tracker.table("eval/per_query", [{"id": str(i), "ndcg_10": i / 2000} for i in range(2000)])
        tracker.artifact("hinge s0", "model", payload, "f" * 64)
    assert wandb.run is None
    second = Tracker.start(tmp_path / "two", RunIdentity("proj", name="other"), {"x": 1}, [], WandbSink())
    second.log({"train/other": 5.0}, 0)
    with pytest.raises(ZeroDivisionError), second:
        raise ZeroDivisionError
    assert wandb.run is None
    out, err = capfd.readouterr()
    assert out + err == ""

    one = json.loads(inspect(tmp_path / "one", "--summary"))
    assert (one["project"], one["name"], one["notes"], one["state"]) == ("proj", "hinge-s0", "why", "finished")
    assert one["run_id"] == (tmp_path / "one" / "wandb_id").read_text()
    assert one["tags"] == ["pilot", "t" * 64]
    config = one["config"]
    assert config["loss"] == {"temperature": 0.5}
    assert config["derived"]["parameters"] == 22
    assert config["derived"]["code"]["python"]
    assert one["summary"]["val/ndcg_10"] == {"max": 0.7}
    assert one["summary"]["objective"] == 0.7
    assert one["summary"]["eval/per_query"]["nrows"] == 1000
    two = json.loads(inspect(tmp_path / "two", "--summary"))
    assert (two["name"], two["state"], two["exit_code"]) == ("other", "failed", 1)
    assert "train/loss" not in two["summary"]
    assert "loss" not in two["config"]

    records = inspect(tmp_path / "one")
    assert '"study"' in records
    assert '"job_type":"train"' in records
    lines = [json.loads(line) for line in records.splitlines()]
    items = [line["history"]["item"] for line in lines if line["type"] == "history"]
    steps = [item["trainer/step"] for item in items if "train/loss" in item]
    assert steps == [1, 2, 4, 3], "a step that goes back is kept"
    uploaded = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "weights" in path.name]
    assert not uploaded


class Fake:
    """As much of wandb as the sink uses."""

    def __init__(self, key=True, error=None):
        self.key, self.error, self.inits, self.defined, self.lines, self.ended = key, error, [], [], [], []
        self.Settings = lambda **given: SimpleNamespace(**given)
        self.setup = lambda settings: None
        self.Settings.model_fields = {"silent": None, "init_timeout": None}
        self.run = SimpleNamespace(
            url=None,
            define_metric=lambda name, **given: self.defined.append((name, given)),
            log=self.lines.append,
            finish=lambda exit_code: self.ended.append(exit_code),
        )

    def login(self, prompt, verify):
        assert not prompt
        assert not verify
        return self.key

    def init(self, **given):
        self.inits.append(given)
        if self.error:
            raise self.error
        return self.run


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def run(directory, **options):
    with Tracker.start(directory, RunIdentity(), {}, [], WandbSink(**options)) as tracker:
        tracker.log({"train/loss": 1.0, "objective": 2.0}, 3)
        tracker.log({"val/loss": 1.0}, 1, axis="round")


def test_online_with_a_key(tmp_path, fake):
    run(tmp_path, mode="online", entity="team")
    (given,) = fake.inits
    assert (given["mode"], given["entity"], given["project"]) == ("online", "team", "colbert_lab")
    assert (given["resume"], given["reinit"]) == ("allow", "finish_previous")
    assert vars(given["settings"]) == {"silent": True, "init_timeout": 20.0}
    assert fake.lines == [{"train/loss": 1.0, "objective": 2.0, "trainer/step": 3}, {"val/loss": 1.0, "round": 1}]
    defined = dict(fake.defined)
    assert defined["train/*"] == defined["val/*"] == {"step_metric": "trainer/step", "summary": None}
    assert defined["val/loss"] == {"step_metric": "round", "summary": "max"}
    assert defined["objective"]["step_metric"] == "trainer/step"
    assert len(fake.defined) == len(defined), "each is defined once"
    assert fake.ended == [0]


def test_online_without_a_key_goes_offline(tmp_path, fake, caplog):
    fake.key = False
    run(tmp_path, mode="online")
    assert fake.inits[0]["mode"] == "offline"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    with pytest.raises(Exception, match="no API key"):
        run(tmp_path / "required", mode="online", required=True)


def test_online_without_a_network_goes_on(tmp_path, fake, caplog):
    fake.error = TimeoutError("no network")
    run(tmp_path, mode="online")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "alone from here on" in caplog.text


@pytest.mark.parametrize(
    ("asked", "mode", "expected"),
    [("offline", "online", "offline"), ("disabled", "offline", "disabled"), ("online", "offline", "offline")],
)
def test_the_more_private_of_environment_and_configuration_wins(tmp_path, fake, monkeypatch, asked, mode, expected):
    monkeypatch.setenv("WANDB_MODE", asked)
    run(tmp_path, mode=mode)
    assert fake.inits[0]["mode"] == expected


def test_under_a_sweep_the_agent_names_the_run(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    run(tmp_path)
    assert [fake.inits[0][key] for key in ("id", "resume", "project", "entity")] == [None] * 4


def test_wandb_is_not_imported_before_it_is_needed():
    code = (
        "import sys, colbert_lab.tracking.tracker, colbert_lab.tracking.wandb, colbert_lab.tracking.read\n"
        "assert not {'wandb', 'torch', 'hydra'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_long_tables_show_the_worst_and_a_sample():
    rows = [{"id": str(i), "ndcg_10": (i * 37 % 2000) / 2000} for i in range(2000)]
    rows[7] = {"id": "7", "ndcg_10": math.nan}
    chosen = worst_and_sample(rows, "ndcg_10")
    assert len({row["id"] for row in chosen}) == 1000
    assert chosen[0]["id"] == "7"
    assert max(row["ndcg_10"] for row in chosen[1:500]) <= min(row["ndcg_10"] for row in chosen[500:])
    assert worst_and_sample(rows, "ndcg_10") == chosen
    assert worst_and_sample(rows, None) == chosen
    assert worst_and_sample(rows[:1000], None) == rows[:1000]
    assert len(worst_and_sample([{"id": str(i)} for i in range(3000)], None)) == 1000


def test_every_system_has_its_part_of_a_long_table():
    """Of each 700 queries, of one 60; more zeros in the first alone than are shown of all."""
    zeros = {"bm25": 700, "vector": 300, "exact": 100, "teacher": 0}
    rows = [
        {"system": name, "query": f"q{i}", "mrr_10": 0.0 if i < zero else 0.1 + i / 1000}
        for name, zero in zeros.items()
        for i in range(60 if name == "teacher" else 700)
    ]
    chosen = worst_and_sample(rows, "mrr_10")
    shown = {name: [row for row in chosen if row["system"] == name] for name in zeros}
    # 1,000 for four: all 60 of the teacher's, of the 940 others 313, 313 and 314; half of each are its worst.
    assert [len(some) for some in shown.values()] == [313, 313, 314, 60]
    assert len({(row["system"], row["query"]) for row in chosen}) == 1000
    worst = {f"q{i}" for i in range(157)}
    assert {row["query"] for row in shown["exact"][:157]} == worst, "100 zeros, and the 57 that are next"
    low = [row["mrr_10"] for row in chosen[: 156 + 156 + 157 + 30]]
    assert low == sorted(low)
    assert [row["system"] for row in chosen[:4]] == ["bm25", "vector", "exact", "bm25"]
