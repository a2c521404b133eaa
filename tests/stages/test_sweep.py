"""Sweeps: one table, best first; runs that do not leak into each other; a failure that stops none; and kills."""

import gzip
import json
from pathlib import Path

import pytest
from stages_toy import lines

from colbert_lab.artifact import Artifact
from colbert_lab.errors import DataError
from colbert_lab.stages.launch import launch, run_name
from colbert_lab.stages.table import JOBS, add_job, read_jobs, sweep_table


@pytest.fixture
def sweep(fresh_lab, capsys, monkeypatch):
    """sweep("loss=hinge,softmax") -> (exit code, standard output, standard error)."""
    monkeypatch.chdir(fresh_lab.root.parent)

    def run(*overrides: str, verb: str = "train", multirun: bool = True) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            launch(verb, [*(["-m"] if multirun else []), *overrides])
        except SystemExit as left:
            code = left.code
        told = capsys.readouterr()
        return code, told.out, told.err

    run.lab = fresh_lab
    return run


def jobs_of(lab) -> list[dict]:
    (folder,) = (lab.root / "sweeps").iterdir()
    return read_jobs(folder)


def table_of(out: str) -> str:
    return out[out.index(" jobs in ") - 1 :].strip()


def test_a_sweep_makes_what_its_runs_make_alone_and_shows_the_best_first(sweep, lab):
    arguments = sweep.lab.arguments("train", "loss=hinge,softmax", "seed=0,1", "dev.documents=35")
    code, out, _ = sweep(*arguments)
    assert code == 0
    jobs = jobs_of(sweep.lab)
    assert [{*job["overrides"]} & {"loss=hinge", "loss=softmax", "seed=0", "seed=1"} for job in jobs] == [
        {f"loss={loss}", f"seed={seed}"} for loss in ("hinge", "softmax") for seed in (0, 1)
    ]
    for job in jobs:
        alone = lab("train", *[o for o in job["overrides"] if o.startswith(("loss=", "seed=", "dev.documents="))])
        assert Artifact.open(job["artifact"]).digest == alone.artifact.digest
        assert job["objective"] == alone.objective
    table = table_of(out).splitlines()
    shown = [float(line.split()[-1]) for line in table if line.startswith("loss=")]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 4
    best = max(jobs, key=lambda job: job["objective"])
    assert Artifact.open(table[-1].removeprefix("best: ")).manifest["counts"]["dev"]["ndcg_10"] == best["objective"]
    (folder,) = (sweep.lab.root / "sweeps").iterdir()
    assert sweep(f"sweep={folder}", verb="table", multirun=False)[1].strip() == table_of(out)


def test_a_failure_stops_no_other_and_only_it_is_run_again(sweep, chain, lab):
    missing = sweep.lab.root.parent / "later.trec"
    arguments = sweep.lab.arguments("train", f"examples.negatives={missing},random", "train.max_steps=2")
    code, out, err = sweep(*arguments)
    assert code == 1
    assert "this job failed" in err
    assert [job["state"] for job in jobs_of(sweep.lab)] == ["failed", "finished"]
    assert "2 jobs in" in out
    assert "1 failed" in out
    assert f"{missing} does not exist" in table_of(out)
    run = lab("search", f"index_dir={chain['index'].path}", "split=train").artifact
    missing.with_suffix(".gz").write_bytes((run.path / "run.trec.gz").read_bytes())
    missing.write_bytes(gzip.decompress(missing.with_suffix(".gz").read_bytes()))
    code, out, err = sweep(*arguments)
    assert code == 0
    assert "failed" not in table_of(out)
    assert err.count("train: done before") == 1
    assert err.count("train: " + str(sweep.lab.root)) == 1


def test_an_error_of_ours_in_one_run_is_told_without_a_traceback(sweep):
    code, out, err = sweep(*sweep.lab.arguments("train", "train.batch_queries=99"), multirun=False)
    assert code == 1
    assert "DataError: there are 20 training examples, but a batch needs 99" in err
    assert "Traceback" not in err
    code, _, err = sweep("loss=hing,hinge", "optim.lrr=1", multirun=True)
    assert code == 1
    assert "2 problems in train" in err
    assert not sweep.lab.root.joinpath("sweeps").exists() or out


def test_each_run_of_a_sweep_is_its_own_in_wandb(sweep):
    small = ("train.max_steps=1", "dev.queries=0", "examples.negatives=random")
    code, _, _ = sweep(*sweep.lab.arguments("train", "tracking=offline", "tracking.group=study", "seed=0,1", *small))
    assert code == 0
    ids = set()
    for job in jobs_of(sweep.lab):
        log = Path(job["artifact"]) / "log"
        (record,) = log.glob("wandb/offline-run-*/*.wandb")
        id = (log / "wandb_id").read_text()
        assert record.name == f"run-{id}.wandb"
        content = record.read_bytes()
        assert b"study" in content
        ids.add(id)
        assert json.loads((log / "state.json").read_text())["state"] == "finished"
    assert len(ids) == 2
    model = Artifact.open(job["artifact"])
    assert "wandb" not in "".join(model.manifest["files"])


def test_without_a_sink_the_local_log_is_all(lab, chain):
    log = chain["model"].path / "log"
    assert not (log / "wandb").exists()
    assert [line["step"] for line in lines(log / "metrics.jsonl") if "train/loss" in line] == [1, 2, 3]


def record(loss: str, objective: float | None = 0.5, state: str = "finished") -> dict:
    job = {"overrides": ["seed=0", f"loss={loss}"], "state": state}
    if state == "failed":
        return job | {"error": "it broke"}
    return job | {"objective": objective, "objective_name": "dev_ndcg_10", "figures": {}, "artifact": f"models/{loss}"}


def test_what_a_killed_sweep_wrote_can_be_read_and_gone_on_with(tmp_path):
    with pytest.raises(DataError, match="is no sweep"):
        read_jobs(tmp_path)
    add_job(tmp_path, record("a"))
    add_job(tmp_path, record("b", state="failed"))
    whole = (tmp_path / JOBS).read_bytes()
    add_job(tmp_path, record("ü"))
    last = (tmp_path / JOBS).read_bytes()[len(whole) :]
    for cut in range(len(last)):
        (tmp_path / JOBS).write_bytes(whole + last[:cut])
        assert [job["overrides"][1] for job in read_jobs(tmp_path)][:2] == ["loss=a", "loss=b"]
    for cut in (0, 1, len(last) // 2):
        (tmp_path / JOBS).write_bytes(whole + last[:cut])
        add_job(tmp_path, record("b", 0.75))
        assert [(job["overrides"][1], job["state"]) for job in read_jobs(tmp_path)] == [
            ("loss=a", "finished"),
            ("loss=b", "finished"),
        ]
        assert "best: models/b" in sweep_table(tmp_path)
    (tmp_path / JOBS).write_bytes(last[:9])
    with pytest.raises(DataError, match="no job of the sweep"):
        sweep_table(tmp_path)


def test_the_table_orders_by_objective_with_zero_before_none(tmp_path):
    for loss, objective in (("none", None), ("zero", 0.0), ("most", 0.9), ("less", 0.1)):
        add_job(tmp_path, record(loss, objective))
    add_job(tmp_path, record("bad", state="failed"))
    rows = [line for line in sweep_table(tmp_path).splitlines() if line.startswith("loss=")]
    assert [row.split()[0] for row in rows[:5]] == ["loss=most", "loss=less", "loss=zero", "loss=none", "loss=bad"]
    assert rows[3].split()[1:] == ["-"]
    assert "all with seed=0" in sweep_table(tmp_path)


def test_a_runs_name_says_what_was_changed():
    assert run_name("pairwise", ["loss=hinge", "optim.lr=1e-5", "seed=3", "root=/tmp/x"]) == "pairwise-hinge-lr1e-5"
    assert (
        run_name("x", [f"data.root=/some/{'y' * 99}", "backbone.name=/home/me/bert", "~lexical"]) == "x-namebert-"[:-1]
    )
    assert len(run_name("x", [f"loss={'y' * 99}"])) == 60
