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
        assert run["config"]["choices"]["loss"] == "softmax", "the node beside it does not say what was chosen"
        assert run["run"]["notes"].startswith("Does a short pairwise training")
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


@pytest.fixture(scope="module")
def others(lab, tmp_path_factory):
    """What rounds do not make: a suite of comparisons, an evaluation, a fidelity report, a description; all of them of
    a collection with a name that no metric may have."""
    folder = tmp_path_factory.mktemp("data") / "2wikimqa"
    shutil.copytree(lab.toy, folder)
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": "more", "text": "more"}) + "\n")
    model = lab("init").artifact.path
    there = lab.elsewhere(tmp_path_factory.mktemp("others"))
    there.toy = folder
    suite = (
        "benchmark=local",
        f"benchmark.folders=[{lab.toy},{folder}]",
        f"model={model}",
        "~systems.rerank_100",
        "search.k=70",
    )
    given = [one for one in there.arguments("compare", *suite) if not one.startswith("data")]
    made = there("compare", "!all", *given).artifact
    judged = json.loads((made.path / "suite.json").read_text())["entries"][1]
    told = json.loads((Path(judged["path"]) / "comparison.json").read_text())
    there("evaluate", f"run={told['systems']['bm25']['run']}")
    there("describe")
    small = ("~grid.residual", "~grid.ivfpq", "fidelity.depths=[5,20]", "fidelity.quality=mrr_10")
    there("fidelity", f"model={model}", *small)
    return there


def names_of(logs: list[Path]) -> set[str]:
    names: set[str] = set()
    for log in logs:
        names |= {*read.history(log), *read.summary(log), *read.tables(log), *read.histograms(log)}
        names |= {line["axis"] for line in read.read_metrics(log)}
    return names


def test_every_name_that_is_logged_can_be_sorted_and_filtered_by(lab, others, monkeypatch):
    lab("rounds", *TWO)
    names = names_of(logs_below(lab.root)) | names_of(logs_below(others.root))
    assert len(names) > 100
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
        "train/negative_scores", "val/ndcg_10", "val/toy0_ndcg_10", "val/recall_100", "eval/toy0_ndcg_10",
        "eval/_2wikimqa_ndcg_10", "eval/mean_ndcg_10", "eval/per_query", "index/bytes_per_token", "index/build_s",
        "index/recall_vs_exact", "search/search_ms", "search/p50_ms", "search/p95_ms", "search/qps", "mine/kept",
        "tuples/dropped_false_negative", "score/pairs_per_s", "round/test_ndcg_10", "round", "trainer/step", "seconds",
    }  # fmt: skip
    trained = next(log for log in logs_below(lab.root) if read.identity(log)["job_type"] == "train")
    curves = read.history(trained)
    assert curves["val/toy0_ndcg_10"] == curves["val/ndcg_10"]
    # A column of parallel coordinates is a key of the configuration that holds one value.
    config = yaml.safe_load((trained / "config.yaml").read_text())
    for key in dashboards.SWEPT:
        value = config
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, str | int | float), key


def test_what_fidelity_and_a_suite_tell_is_what_they_found(others):
    (suite,) = (read.summary(log) for log in logs_below(others.root) if read.identity(log)["job_type"] == "suite")
    assert suite["eval/mean_ndcg_10"] == suite["suite/exact"]
    (log,) = (log for log in logs_below(others.root) if read.identity(log)["job_type"] == "fidelity")
    told = json.loads((log.parent / "fidelity.json").read_text())
    (fp16,) = (row for row in told["settings"] if row["setting"]["chosen"] == {"dtype": "fp16"})
    summary = read.summary(log)
    assert summary["index/recall_vs_exact"] == fp16["figures"]["overlap_20"], "at the largest k"
    assert summary["objective"] == fp16["figures"]["mrr_10"], "what the table is sorted by"
    times = fp16["latency"]["search"]
    assert (summary["search/p50_ms"], summary["search/p95_ms"]) == (times["p50"], times["p95"])
    # The toy's 16 dimensions of 2 bytes, and what a file costs besides.
    assert 32 <= summary["index/bytes_per_token"] == fp16["index"]["bytes"] / fp16["index"]["vectors"]
    alone = [read.summary(log) for log in logs_below(others.root) if read.identity(log)["job_type"] == "measure"]
    assert summary["index/recall_vs_exact"] in [one["index/recall_vs_exact"] for one in alone]


def test_lineage_is_by_reference_and_by_key(fresh_lab):
    fresh_lab("rounds", *TWO)
    made = {one["key"] for log in logs_below(fresh_lab.root) for one in read.artifacts(log) if not one["used"]}
    for log in logs_below(fresh_lab.root):
        (own,) = (one for one in read.artifacts(log) if not one["used"])
        assert Artifact.open(own["path"]).manifest["key"] == own["key"]
        # Collections are opened, not made by a run; everything else that is used is what another run made.
        assert {one["key"] for one in read.artifacts(log) if one["used"] and one["kind"] != "collection"} <= made
