"""Sweeps: all mistakes before a start, one table, best first; a failure that stops none; going on; kills.

Most run their jobs in this process, as a child would: a process costs seconds of imports. The pool of processes has
tests of its own, and the slow ones at the end have both.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stages_toy import lines

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.stages.launch import launch, run_name, run_sweep_job
from colbert_lab.stages.sweeps import plan
from colbert_lab.stages.sweeps.grid import finished_jobs
from colbert_lab.stages.sweeps.kinds import check_launcher
from colbert_lab.stages.sweeps.plan import Job, plan_of
from colbert_lab.stages.sweeps.summary import summarise
from colbert_lab.stages.table import JOBS, add_job, base_record, read_jobs

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def sweep(fresh_lab, capsys, monkeypatch, jobs_here):
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


def folder_of(lab) -> Path:
    (folder,) = (lab.root / "sweeps").iterdir()
    return folder


def test_a_sweep_makes_what_its_runs_make_alone_and_tells_what_came_of_it(sweep, lab):
    arguments = sweep.lab.arguments("train", "loss=hinge,softmax", "seed=0,1", "dev.documents=35")
    code, out, err = sweep(*arguments)
    assert code == 0
    jobs = jobs_of(sweep.lab)
    assert [job["params"] for job in jobs] == [{"loss": a, "seed": b} for a in ("hinge", "softmax") for b in (0, 1)]
    for job in jobs:
        alone = lab("train", *[o for o in job["overrides"] if o.startswith(("loss=", "seed=", "dev.documents="))])
        assert Artifact.open(job["artifact"]).digest == alone.artifact.digest
        assert job["objective"] == alone.objective
    folder = folder_of(sweep.lab)
    told = json.loads((folder / "sweep.json").read_text())
    means = {row["params"]["loss"]: row["mean"] for row in told["rows"]}
    for loss, mean in means.items():
        values = [job["objective"] for job in jobs if job["params"]["loss"] == loss]
        assert mean == pytest.approx(sum(values) / 2)
    assert [row["mean"] for row in told["rows"]] == sorted(means.values(), reverse=True)
    # softmax is what conf/train.yaml has; its 10 dev queries are those of every seed.
    (test,) = [row["test"] for row in told["rows"] if row["test"]]
    assert [row["baseline"] for row in told["rows"]] == [row["params"]["loss"] == "softmax" for row in told["rows"]]
    assert test["difference"] == pytest.approx(means["hinge"] - means["softmax"])
    assert (test["queries"], test["seeds"]) == (10, 2)
    assert set(told["importance"]) == {"loss", "seed"}
    assert sum(told["importance"].values()) + told["importance_rest"] == pytest.approx(1)
    best = max(jobs, key=lambda job: (means[job["params"]["loss"]], job["objective"]))
    assert told["best"]["artifact"] == best["artifact"]
    assert all(f"loss={loss}" in out for loss in means)
    assert (folder / "report.html").is_file()
    shown = out[out.index("4 jobs in") : out.index("report: ")]
    assert sweep(f"sweep={folder}", verb="table", multirun=False)[1].strip() == shown.strip()
    # The same command again has nothing to do.
    code, _, err = sweep(*arguments, "sweep.jobs=2")
    assert code == 0
    assert "4 jobs, 4 of them done before" in err
    assert "started" not in err


def test_a_failure_stops_no_other_and_only_it_is_run_again(sweep, chain, lab):
    missing = sweep.lab.root.parent / "later.trec"
    arguments = sweep.lab.arguments("train", f"examples.negatives={missing},random", "train.max_steps=2")
    code, out, err = sweep(*arguments)
    assert code == 1
    assert "FAILED" in err
    assert [job["state"] for job in jobs_of(sweep.lab)] == ["failed", "finished"]
    assert "1 finished, 1 failed" in out
    assert f"{missing} does not exist" in out[out.index("failed: ") :]
    run = lab("search", f"index_dir={chain['index'].path}", "split=train").artifact
    missing.with_suffix(".gz").write_bytes((run.path / "run.trec.gz").read_bytes())
    missing.write_bytes(gzip.decompress(missing.with_suffix(".gz").read_bytes()))
    code, out, err = sweep(*arguments)
    assert code == 0
    assert "failed" not in out
    assert err.count("started") == 1
    assert [job["state"] for job in jobs_of(sweep.lab)] == ["finished", "finished"]


def test_every_mistake_of_every_job_is_told_before_one_is_started(sweep):
    code, _, err = sweep(*sweep.lab.arguments("train", "train.clip=1,-1", "seed=0,x", "loss=hinge,softmax"))
    assert code == 1
    # Each once, though four and four jobs have them.
    assert "2 problems" in err
    assert err.count("clip=-1 must be at least 0") == 1
    assert err.count("seed=x must be") == 1
    code, _, err = sweep("loss=hing,hinge", "optim.lrr=1")
    assert code == 1
    assert "2 problems in train" in err
    code, _, err = sweep("optim.lr=interval(1,2)")
    assert "has no steps for a grid" in err
    code, _, err = sweep(*sweep.lab.arguments("train", "seed=0,1", f"run_dir={sweep.lab.root}/one"))
    assert "one place, but there are 2 runs" in err
    assert sweep("sweep=bayes", "hydra/launcher=basic", "loss=hinge", "optim.lr=1")[0] == 1
    assert not list(sweep.lab.root.glob("models/*"))


def test_a_grid_is_what_hydra_makes_of_it_and_the_command_line_wins_over_the_file():
    def jobs(*overrides):
        return [tuple(job.params.values()) for job in plan_of("train", overrides).jobs]

    assert len(jobs("sweep=losses")) == 12
    assert jobs("sweep=losses", "optim.lr=1e-4", "seed=range(3,5)") == [
        (loss, seed) for loss in ("hinge", "softmax") for seed in (3, 4)
    ]
    assert jobs("loss=glob(h*,exclude=x)", "dev.queries=choice(5,0)") == [(5, "hinge"), (0, "hinge")]
    assert jobs("examples.ranks=[1,5],[2,9]") == [([1, 5],), ([2, 9],)]
    assert jobs("loss=hinge") == [()]


def test_a_sweep_has_one_folder_however_it_is_run(monkeypatch):
    folder = plan_of("train", ["loss=hinge,softmax", "seed=0"]).folder
    assert plan_of("train", ["seed=0", "loss=hinge,softmax", "sweep.jobs=3"]).folder == folder
    assert plan_of("train", ["seed=0", "loss=hinge,softmax", "hydra/launcher=basic"]).folder == folder
    assert plan_of("train", ["seed=1", "loss=hinge,softmax"]).folder != folder
    bayes = plan_of("train", ["sweep=bayes"]).folder
    assert plan_of("train", ["sweep=bayes", "sweep.trials=99"]).folder == bayes
    assert plan_of("train", ["sweep=bayes", "sweep.seed=1"]).folder != bayes
    # Another configuration behind the same command line: its trials would mislead the search.
    monkeypatch.setattr(plan, "_ASIDE", (*plan._ASIDE, "train"))
    assert plan_of("train", ["sweep=bayes"]).folder != bayes
    assert plan_of("train", ["loss=hinge,softmax", "seed=0"]).folder == folder


def test_the_order_of_keys_makes_no_other_jobs():
    one, other = (
        plan_of("train", given) for given in (("seed=0,1", "loss=hinge,softmax"), ("loss=hinge,softmax", "seed=0,1"))
    )
    assert one.folder == other.folder
    assert [(job.number, job.params, job.config) for job in one.jobs] == [
        (job.number, job.params, job.config) for job in other.jobs
    ]


def test_a_job_has_one_record_by_its_number(tmp_path):
    for overrides in (["seed=0", "loss=hinge"], ["loss=hinge", "seed=0"]):
        add_job(tmp_path, {"number": 3, "overrides": overrides, "state": "finished"})
    assert [job["overrides"] for job in read_jobs(tmp_path)] == [["loss=hinge", "seed=0"]]


def test_a_sweep_over_what_has_no_default_lies_under_the_root_of_its_files(tmp_path, monkeypatch):
    """A group that must be chosen: without a value of it nothing of the command line composes."""
    real = plan.explain
    monkeypatch.setattr(
        plan,
        "explain",
        lambda conf, verb, given: (
            real(conf, verb, given) or not any(one.startswith(("loss=", "sweep=")) for one in given)
        ),
    )
    found = plan_of("train", ["loss=hinge,softmax", f"root={tmp_path}/mine"])
    assert found.root == tmp_path / "mine"
    assert found.default == {}


def test_a_command_line_is_noted_as_it_was_typed(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("colbert_lab.stages.launch.run_job", lambda *_: seen.append(list(sys.argv)))
    typed = ["/x/bin/colbert-lab", "train", "loss=hinge"]
    monkeypatch.setattr(sys, "argv", typed)
    monkeypatch.chdir(tmp_path)
    launch("train", typed[2:])
    (job,) = plan_of("train", ["loss=hinge", f"root={tmp_path}"]).jobs
    job.write(tmp_path)
    run_sweep_job(tmp_path, 0)
    assert seen == [typed, ["colbert-lab", "train", "loss=hinge", f"root={tmp_path}"]]
    assert sys.argv == typed


def test_a_change_of_the_configuration_behind_the_same_command_is_no_finished_job(tmp_path):
    (job,) = plan_of("train", ["loss=hinge", f"root={tmp_path}"]).jobs
    (tmp_path / "manifest.json").touch()
    record = {"number": 0, "overrides": job.overrides, "state": "finished", "artifact": str(tmp_path)}
    add_job(tmp_path, record | {"config": job.config})
    assert finished_jobs(tmp_path, [job]) == {0}
    add_job(tmp_path, record | {"config": "another"})
    assert finished_jobs(tmp_path, [job]) == set()
    assert plan_of("train", ["loss=hinge", "tracking=none", f"root={tmp_path}"]).jobs[0].config == job.config
    assert plan_of("train", ["loss=hinge", "seed=1", f"root={tmp_path}"]).jobs[0].config != job.config


def test_a_table_after_a_change_of_the_configuration_has_what_ran_since(tmp_path, monkeypatch):
    """The command line, and with it the folder, are the same: a table must not mix what conf/ had and has."""
    overrides = ["loss=hinge,softmax", f"root={tmp_path}"]

    def called(objective, *numbers):
        planned = plan_of("train", overrides)
        planned.folder.mkdir(parents=True, exist_ok=True)
        planned.write()
        for number in numbers:
            end = {"state": "finished", "objective": objective, "objective_name": "x", "figures": {}, "artifact": None}
            add_job(planned.folder, base_record(planned.jobs[number]) | end)
        return summarise(planned.folder)

    told = called(0.5, 0, 1)
    assert ([row["mean"] for row in told["rows"]], told["left_out"]) == ([0.5, 0.5], [])
    # What of a configuration counts is another now, as after an edit of conf/train.yaml.
    monkeypatch.setattr(plan, "_ASIDE", (*plan._ASIDE, "train"))
    told = called(0.25, 0)
    assert [(row["params"], row["mean"]) for row in told["rows"]] == [({"loss": "hinge"}, 0.25)]
    assert [job["number"] for job in told["left_out"]] == [1]


def test_a_launcher_that_is_not_installed_is_named_with_its_command(monkeypatch):
    check_launcher("submitit_slurm")
    check_launcher("basic")
    monkeypatch.setattr("colbert_lab.stages.sweeps.kinds._installed", lambda module: False)
    with pytest.raises(ConfigError, match=r'pip install "colbert-lab\[slurm\]"'):
        check_launcher("submitit_slurm")


def test_torchrun_and_a_sweep_do_not_go_together(sweep, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = sweep("loss=hinge,softmax")
    assert code == 1
    assert "without torchrun" in err


def test_an_error_of_ours_in_one_run_is_told_without_a_traceback(sweep):
    code, _, err = sweep(*sweep.lab.arguments("train", "train.batch_queries=99"), multirun=False)
    assert code == 1
    assert "DataError: there are 20 training examples, but a batch needs 99" in err
    assert "Traceback" not in err


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


def record(number: int, state: str = "finished") -> dict:
    return {"number": number, "overrides": ["seed=0", f"loss={number}"], "state": state}


def test_what_a_killed_sweep_wrote_can_be_read_and_gone_on_with(tmp_path):
    with pytest.raises(DataError, match="is no sweep"):
        read_jobs(tmp_path)
    add_job(tmp_path, record(0))
    add_job(tmp_path, record(1, state="failed"))
    whole = (tmp_path / JOBS).read_bytes()
    add_job(tmp_path, record(2) | {"artifact": "ü"})
    last = (tmp_path / JOBS).read_bytes()[len(whole) :]
    for cut in range(len(last)):
        (tmp_path / JOBS).write_bytes(whole + last[:cut])
        assert [job["number"] for job in read_jobs(tmp_path)][:2] == [0, 1]
    for cut in (0, 1, len(last) // 2):
        (tmp_path / JOBS).write_bytes(whole + last[:cut])
        add_job(tmp_path, record(1))
        assert [(job["number"], job["state"]) for job in read_jobs(tmp_path)] == [(0, "finished"), (1, "finished")]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_sweep_that_is_killed_leaves_no_orphan_and_goes_on(fresh_lab):
    grid = ("loss=hinge,softmax", "train.batch_queries=4,99", "sweep.jobs=2")
    command = [sys.executable, "experiments/train.py", "-m", *fresh_lab.arguments("train", *grid)]
    started = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stderr=subprocess.PIPE, text=True)
    told = ""
    while "batch_queries=99: FAILED" not in told:
        told += started.stderr.readline()
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    assert children
    started.send_signal(signal.SIGKILL)
    started.wait()
    deadline = time.monotonic() + 5
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "a job outlived its sweep"
        time.sleep(0.05)
    before = len(jobs_of(fresh_lab))
    assert before < 4
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    states = {(j["params"]["loss"], j["params"]["train.batch_queries"]): j["state"] for j in jobs_of(fresh_lab)}
    assert states == {
        (loss, size): "finished" if size == 4 else "failed" for loss in ("hinge", "softmax") for size in (4, 99)
    }
    assert "2 finished, 2 failed" in done.stdout
    assert "there are 20 training examples, but a batch needs 99" in done.stdout
    assert not list(fresh_lab.root.glob("models/*hinge-lr0.001-*4*.partial"))


def alive(pid: str) -> bool:
    """Whether the process runs; one that has ended and was not asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_job_that_a_cluster_killed_hides_no_other(sweep, monkeypatch, tmp_path):
    """A launcher that comes upon a killed job fails as a whole."""
    ran = []

    def killed(verb, arguments, folder):
        ran.append(arguments)
        job = Job.read(folder, 1)
        (tmp_path / "manifest.json").touch()
        end = {"state": "finished", "objective": 0.5, "objective_name": "x", "figures": {}, "artifact": str(tmp_path)}
        add_job(folder, base_record(job) | end | {"pid": len(ran)})
        sys.exit(1)

    monkeypatch.setattr("colbert_lab.stages.launch.multirun", killed)
    command = sweep.lab.arguments("train", "loss=hinge,softmax", "hydra/launcher=submitit_local")
    code, out, _ = sweep(*command)
    assert code == 1
    assert [(job["number"], job["state"]) for job in jobs_of(sweep.lab)] == [(1, "finished"), (0, "failed")]
    assert "1 finished, 1 failed" in out
    assert "submitit_local failed" in out
    (folder_of(sweep.lab) / JOBS).write_text("")
    for number in (0, 1):
        job = Job.read(folder_of(sweep.lab), number)
        add_job(
            folder_of(sweep.lab),
            base_record(job)
            | {"state": "finished", "objective": 0.5, "objective_name": "x", "figures": {}, "artifact": str(tmp_path)},
        )
    assert sweep(*command)[0] == 0
    assert len(ran) == 1, "nothing was left to do"


@pytest.mark.slow
def test_hydras_own_launchers_run_the_same_jobs(fresh_lab):
    """submitit_local stands for submitit_slurm: the same plugin, pickling and shared folder, without a cluster."""
    grid = ("loss=hinge,softmax", "train.max_steps=1", "hydra/launcher=submitit_local")
    command = [sys.executable, "experiments/train.py", "-m", *fresh_lab.arguments("train", *grid)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [job["state"] for job in jobs_of(fresh_lab)] == ["finished"] * 2
    assert sorted(job["params"]["loss"] for job in jobs_of(fresh_lab)) == ["hinge", "softmax"]
    assert "2 jobs in" in done.stdout


def test_a_runs_name_says_what_was_changed():
    assert run_name("pairwise", ["loss=hinge", "optim.lr=1e-5", "seed=3", "root=/tmp/x"]) == "pairwise-hinge-lr1e-5"
    assert (
        run_name("x", [f"data.root=/some/{'y' * 99}", "backbone.name=/home/me/bert", "~lexical"]) == "x-namebert-"[:-1]
    )
    assert len(run_name("x", [f"loss={'y' * 99}"])) == 60
