"""What W&B's own inspector reads of offline runs: of a sweep's jobs, of a whole rounds experiment, of its replay."""

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from colbert_lab.artifact import Artifact
from colbert_lab.stages.launch import run_job
from colbert_lab.tracking import read
from colbert_lab.tracking.replay import logs_below

# What W&B can sort and filter by.
NAME = re.compile(r"(?:[-_.a-zA-Z0-9]+/)*[_a-zA-Z][_a-zA-Z0-9]*")
TWO = ("rounds.count=2", "name=two")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def inspect(run: Path, *options: str) -> list[dict]:
    """`wandb leet inspect --json`: the binary itself, since the command in front of it costs seconds."""
    from wandb.util import get_core_path

    (file,) = run.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *options]
    answer = subprocess.run([*command, "--run-file", str(file), str(run.parent)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return [json.loads(text) for text in ([answer.stdout] if "--summary" in options else answer.stdout.splitlines())]


def found(run: Path) -> dict:
    """All that W&B has of one offline run."""
    lines = inspect(run)
    (header,) = (line["run"] for line in lines if line["type"] == "run")
    (told,) = inspect(run, "--summary")
    history = [line["history"]["item"] for line in lines if line["type"] == "history"]
    metrics = [line["metric"] for line in lines if line["type"] == "metric"]
    artifacts = [line["artifact"] for line in lines if line["type"] == "artifact"]
    return {**told, "run": header, "history": history, "metrics": metrics, "artifacts": artifacts}


def check(run: dict, log: Path) -> None:
    """W&B has what the local log has: identity, configuration, curves on their axes, summary, tables, references."""
    identity, artifact = read.identity(log), log.parent
    assert (run["project"], run["name"], run["tags"]) == (
        identity["project"],
        identity["name"],
        [tag[:64] for tag in identity["tags"]],
    )
    assert (run["run"]["run_group"], run["run"]["job_type"]) == (identity["group"], identity["job_type"])
    assert run["run_id"] == (log / "wandb_id").read_text()
    derived = run["config"]["derived"]
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert {role: given["digest"] for role, given in derived.get("inputs", {}).items()} == {
        role: given["digest"] for role, given in manifest["inputs"].items()
    }
    assert derived["artifact"]["path"] == str(artifact)
    assert derived["code"]["python"]
    axes = {one["glob_name"] if "glob_name" in one else one["name"]: one.get("step_metric") for one in run["metrics"]}
    for name, curve in read.history(log).items():
        axis = next(line["axis"] for line in read.read_metrics(log) if name in line)
        assert axes.get(name, axes.get(name.partition("/")[0] + "/*")) == axis, name
        assert [(line[axis], line[name]) for line in run["history"] if name in line] == curve
    for name, value in read.summary(log).items():
        assert run["summary"][name] == value, name
    for name in read.tables(log):
        assert run["summary"][name]["nrows"] == min(1000, len(read.read_table(log, name)))
    for name, course in read.histograms(log).items():
        told = [line[f"{name}.values"] for line in run["history"] if f"{name}.values" in line]
        assert told == [one.counts for one in course]
    (made,) = (one for one in run["artifacts"] if one["type"] != "run_table")
    assert (made["type"], manifest["key"][:10] in made["name"]) == (manifest["kind"], True)
    assert str(artifact) in json.dumps(made)


def offline_run(log: Path) -> Path:
    (run,) = log.glob("wandb/offline-run-*")
    return run


def test_two_jobs_of_a_sweep(lab, fresh_lab, tmp_path):
    logs = []
    for seed in (3, 4):
        overrides = (
            "tracking=offline",
            "experiment=pairwise",
            "name=hot-lr0.002",
            f"seed={seed}",
            "optim.lr=2e-3",
            "train.document_length=null",
        )
        cfg, given, choices = fresh_lab.compose("train", *overrides)
        made = run_job("train", cfg, given, choices, tmp_path / "sweeps" / "train-abc")
        logs.append(made.artifact.path / "log")
    runs = [found(offline_run(log)) for log in logs]
    for run, log, seed in zip(runs, logs, (3, 4)):
        check(run, log)
        assert run["run"]["run_group"] == "pairwise", "one group for all jobs, whatever they change"
        assert run["run"]["job_type"] == "train"
        assert run["name"] == f"hot-lr0.002-s{seed}"
        assert run["tags"] == ["sweep:train-abc", "train", "toy0"]
        assert run["config"]["seed"] == seed
        assert run["config"]["optim"]["lr"] == 2e-3
        assert run["summary"]["objective"] == run["summary"]["val/ndcg_10"]["max"]
    assert not {one["name"] for one in runs[0]["artifacts"]} & {one["name"] for one in runs[1]["artifacts"]}
    assert runs[0]["run_id"] != runs[1]["run_id"]


@pytest.mark.slow
def test_every_run_of_rounds(lab, fresh_lab):
    outcome = fresh_lab("rounds", "rounds.count=1", "name=two", "tracking=offline")
    logs = logs_below(fresh_lab.root)
    assert len(logs) > 25
    runs = {log: found(offline_run(log)) for log in logs}
    for log, run in runs.items():
        check(run, log)
        assert run["run"]["run_group"] == "two"
        assert run["name"].startswith("two-")
        assert run["name"].endswith("-s0")
    kinds = {run["run"]["job_type"] for run in runs.values()}
    assert kinds >= {"train", "teacher", "index", "search", "mine", "score", "tuples", "rerank", "evaluate", "rounds"}
    tagged = {run["run"]["job_type"] for run in runs.values() if "round:1" in run["tags"]}
    assert tagged >= {"train", "index", "search", "mine", "score", "tuples"}
    assert runs[outcome.artifact.path / "log"]["summary"]["objective"] == outcome.objective


def test_a_replay_of_rounds_tells_all_of_them_once(lab, tmp_path, capsys):
    """The runs were tracked by the local log alone; W&B's directory is made of it, and read back."""
    lab("rounds", *TWO)
    outputs = tmp_path / "outputs"
    logs = [log for log in logs_below(lab.root) if read.identity(log)["group"] == "two"]
    kinds = {"train", "mine", "evaluate", "rounds"}
    logs = [log for log in logs if read.identity(log)["job_type"] in kinds]
    for log in logs:
        where = outputs / log.parent.relative_to(lab.root)
        shutil.copytree(log, where / "log")
        # The making is replayed, and what was made is referred to, not read.
        (where / "manifest.json").write_bytes((log.parent / "manifest.json").read_bytes())
    out = tmp_path / "out"
    given = (f"runs={outputs}", f"out={out}", "tracking=offline", f"root={outputs}", "!all")

    def replay(*more):
        cfg, overrides, choices = lab.compose("replay", *given, *more)
        capsys.readouterr()
        run_job("replay", cfg, overrides, choices)
        return capsys.readouterr().out

    assert f"{len(logs)} replayed" in replay()
    runs = {run.name.rpartition("-")[2]: run for run in out.glob("wandb/offline-run-*")}
    assert len(runs) == len(logs)
    rounds = next(log for log in logs if read.identity(log)["job_type"] == "rounds")
    for log in logs:
        if log.parent.parent.name in ("rounds", "candidates") or "round1" in log.parent.name:
            run = found(runs[(log / "wandb_id").read_text()])
            assert run["run"]["run_group"] == "two"
            assert (run["state"], run["exit_code"]) == ("finished", 0)
            for name, curve in read.history(log).items():
                axis = next(line["axis"] for line in read.read_metrics(log) if name in line)
                assert [(line[axis], line[name]) for line in run["history"] if name in line] == curve
    told = found(runs[(rounds / "wandb_id").read_text()])
    assert [line["round"] for line in told["history"] if "round/test_ndcg_10" in line] == [0, 1, 2]
    assert told["summary"]["objective"] == read.summary(rounds)["objective"]

    said = replay()
    assert f"{len(logs)} replayed before" in said
    assert "again=true" in said
    assert len(list(out.glob("wandb/offline-run-*"))) == len(logs)


def test_every_name_that_is_logged_can_be_sorted_and_filtered_by(lab, monkeypatch):
    lab("rounds", *TWO)
    names: set[str] = set()
    for log in logs_below(lab.root):
        names |= {*read.history(log), *read.summary(log), *read.tables(log), *read.histograms(log)}
        names |= {line["axis"] for line in read.read_metrics(log)}
    assert len(names) > 80
    assert [name for name in sorted(names) if not NAME.fullmatch(name)] == []
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    dashboards = importlib.import_module("dashboards")
    shown = dashboards.named_metrics(dashboards.panels(["toy0"]))
    assert len(shown) > 30
    # A run logs the terms of its own loss; the others' are named like them.
    losses = (Path(__file__).resolve().parents[2] / "conf" / "loss").glob("*.yaml")
    terms = {f"train/loss_{term}" for file in losses for term in yaml.safe_load(file.read_text())["terms"]}
    assert {"train/loss_kl", "train/loss_softmax"} <= terms & names
    assert shown - names - terms == set(), "a dashboard shows only what is logged"
    # What the conventions name.
    assert names >= {
        "objective", "train/loss", "train/loss_kl", "train/lr", "train/grad_norm", "train/score_margin",
        "train/target_entropy", "train/tokens_per_s", "train/padding_share", "train/positive_scores",
        "train/negative_scores", "val/ndcg_10", "eval/toy0_ndcg_10", "eval/per_query", "index/bytes_per_token",
        "index/build_s", "search/search_ms", "search/qps", "mine/kept", "tuples/dropped_false_negative",
        "score/pairs_per_s", "round/test_ndcg_10", "round", "trainer/step", "seconds",
    }  # fmt: skip


def test_lineage_is_by_reference_and_by_key(lab):
    lab("rounds", *TWO)
    made = {one["key"] for log in logs_below(lab.root) for one in read.artifacts(log) if not one["used"]}
    for log in logs_below(lab.root):
        (own,) = (one for one in read.artifacts(log) if not one["used"])
        assert Artifact.open(own["path"]).manifest["key"] == own["key"]
        # Collections are opened, not made by a run; everything else that is used is what another run made.
        assert {one["key"] for one in read.artifacts(log) if one["used"] and one["kind"] != "collection"} <= made
