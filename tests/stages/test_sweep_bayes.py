"""Bayesian search: the space, the same trials for the same seed however often it was killed, pruning, resuming."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from colbert_lab.errors import ConfigError
from colbert_lab.stages.sweeps import bayes
from colbert_lab.stages.sweeps.bayes import STUDY, _curve
from colbert_lab.stages.sweeps.kinds import Bayes
from colbert_lab.stages.sweeps.plan import Job, Plan, plan_of
from colbert_lab.stages.sweeps.summary import conclude
from colbert_lab.stages.sweeps.trials import Trials, importance, space_of
from colbert_lab.stages.table import read_jobs
from colbert_lab.tracking.log import RunLog

REPOSITORY = Path(__file__).resolve().parents[2]
SPACE = {"lr": FloatDistribution(1e-6, 1e-2, log=True), "loss": CategoricalDistribution(("hinge", "softmax"))}
DEFAULT = {"lr": 1e-4, "loss": "softmax"}


def space(*texts):
    parsed = OverridesParser.create().parse_overrides(list(texts))
    return space_of({one.key_or_group: one for one in parsed})


def test_ranges_of_the_command_line_are_the_space():
    assert space("a=tag(log,interval(1e-6,1e-3))", "b=interval(0,1)", "c=int(interval(1,9))", "d=range(8,33,8)") == {
        "a": FloatDistribution(1e-6, 1e-3, log=True),
        "b": FloatDistribution(0.0, 1.0),
        "c": IntDistribution(1, 9),
        "d": IntDistribution(8, 32, step=8),
    }
    assert space("l=hinge,softmax", "m=1,2", "n=[1,2],[3]") == {
        "l": CategoricalDistribution(("hinge", "softmax")),
        "m": CategoricalDistribution(("1", "2")),
        "n": CategoricalDistribution(("[1,2]", "[3]")),
    }
    with pytest.raises(ConfigError, match="a=tag"):
        space("a=tag(log,interval(0,1))")


def score(values):
    """Best at lr 1e-3 with hinge."""
    import math

    return (values["loss"] == "hinge") - abs(math.log10(float(values["lr"])) + 3)


def search(file, kind, kill_at=(), fail_at=()):
    """Run to the end; in `kill_at` the process dies and leaves its trial running, and another takes the search up."""
    trials, tried, kills, fails = Trials(file, kind, SPACE, DEFAULT), [], list(kill_at), list(fail_at)
    while trials.left > 0:
        asked = trials.ask()
        if asked.place in kills:
            kills.remove(asked.place)
            trials = Trials(file, kind, SPACE, DEFAULT)
            continue
        tried.append((asked.place, dict(asked.values)))
        if asked.place in fails:
            fails.remove(asked.place)
            trials.tell(asked, None)
            continue
        stop = any(trials.report(asked, step, score(asked.values) - 0.1 * (3 - step)) for step in (0, 1, 2, 3))
        if stop:
            trials.prune(asked)
        else:
            trials.tell(asked, score(asked.values))
    return tried


def test_the_same_seed_tries_the_same_also_after_kills(tmp_path):
    kind = Bayes(trials=14, seed=1, startup=4, after=3)
    once = search(tmp_path / "a", kind)
    assert [place for place, _ in once] == list(range(14))
    assert once[0][1] == {"lr": "0.0001", "loss": "softmax"}, "the configuration's own values come first"
    assert search(tmp_path / "b", kind, kill_at=(0, 5, 5, 9)) == once
    other = search(tmp_path / "c", Bayes(trials=14, seed=2, startup=4, after=3))
    assert other[1:] != once[1:]
    # No two of the random ones are the same, which a sampler that is seeded anew at each start would give.
    assert len({values["lr"] for _, values in once}) == 14
    states = [trial.state.name for trial in study(tmp_path / "a").trials]
    assert states.count("PRUNED") >= 2
    assert states.count("PRUNED") + states.count("COMPLETE") == 14
    states = [trial.state.name for trial in study(tmp_path / "b").trials]
    assert states.count("FAIL") == 4
    assert states.count("PRUNED") + states.count("COMPLETE") == 14
    # It learns: the later half is nearer to what is best.
    scores = [score(values) for _, values in once]
    assert sum(scores[7:]) > sum(scores[:7])


def study(file):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return optuna.load_study(study_name="sweep", storage=JournalStorage(JournalFileBackend(str(file))))


def test_what_failed_counts_until_the_next_call_which_tries_it_again(tmp_path):
    kind = Bayes(trials=4, startup=4)
    first = search(tmp_path / "a", kind, fail_at=(2,))
    assert [place for place, _ in first] == [0, 1, 2, 3]
    again = search(tmp_path / "a", kind)
    assert again == [first[2]]
    assert search(tmp_path / "a", kind) == []
    more = search(tmp_path / "a", Bayes(trials=6, startup=4))
    assert [place for place, _ in more] == [4, 5]


def test_values_outside_the_space_are_no_first_trial(tmp_path):
    trials = Trials(tmp_path / "a", Bayes(), SPACE, {"lr": 1.0, "loss": "softmax"})
    assert trials.ask().values != {"lr": "1.0", "loss": "softmax"}
    rounded = Trials(tmp_path / "b", Bayes(), {"x": FloatDistribution(0.123456, 0.123459)}, {}).ask()
    assert 0.123456 <= float(rounded.values["x"]) <= 0.123459, "rounding leaves the range"


def test_rounding_leaves_narrow_ranges_steps_and_the_configurations_own_values(tmp_path):
    narrow = FloatDistribution(1.0, 1.0005)
    trials = Trials(tmp_path / "a", Bayes(trials=8, startup=8), {"x": narrow}, {})
    assert len({trials.ask().values["x"] for _ in range(8)}) == 8
    own = Trials(tmp_path / "b", Bayes(), {"x": FloatDistribution(0.0, 1.0)}, {"x": 0.123456789})
    assert own.ask().values == {"x": "0.123456789"}
    # Killed while it ran: tried again as it was.
    again = Trials(tmp_path / "b", Bayes(), {"x": FloatDistribution(0.0, 1.0)}, {"x": 0.123456789})
    assert again.ask().values == {"x": "0.123456789"}
    stepped = space("x=range(1.00001,1.00004,0.00001)")["x"]
    tried = {Trials(tmp_path / f"c{n}", Bayes(seed=n), {"x": stepped}, {}).ask().values["x"] for n in range(6)}
    assert len(tried) > 1


def test_no_trial_is_stopped_by_the_pruner_that_was_left_out_or_in_its_warm_up(tmp_path):
    for name, kind, stopped in (
        ("none", Bayes(trials=12, startup=4, pruner="none"), False),
        ("warm", Bayes(trials=12, startup=4, after=2, warmup=10), False),
        ("all", Bayes(trials=12, startup=4, after=2, pruner="percentile", percentile=1.0), True),
    ):
        search(tmp_path / name, kind)
        assert any(trial.state.name == "PRUNED" for trial in study(tmp_path / name).trials) == stopped, name


def test_importance_finds_what_matters(tmp_path):
    search(tmp_path / "a", Bayes(trials=20, startup=20, pruner="none"))
    shares, how = importance(tmp_path / "a")
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["lr"] > shares["loss"]
    assert "PED-ANOVA over the 20 trials" in how
    search(tmp_path / "b", Bayes(trials=1))
    assert importance(tmp_path / "b")[0] == {}


def test_a_curve_is_found_where_the_artifact_was_renamed_to(tmp_path):
    log = tmp_path / "model.partial" / "log"
    run = RunLog(log)
    run.begin({}, [])
    run.metrics({"val/ndcg_10": 0.25}, 0)
    run.metrics({"train/loss": 1.0}, 1)
    run.metrics({"val/ndcg_10": 0.5}, 2)
    assert _curve(log, "val/ndcg_10") == [(0, 0.25), (2, 0.5)]
    with (log / "metrics.jsonl").open("a") as lines:
        lines.write('{"time": 1, "axis": "trainer/s')
    assert _curve(log, "val/ndcg_10") == [(0, 0.25), (2, 0.5)], "a line that is being written"
    (tmp_path / "model.partial").rename(tmp_path / "model")
    assert len(_curve(log, "val/ndcg_10")) == 2
    assert _curve(tmp_path / "none" / "log", "val/ndcg_10") == []


def test_points_that_a_restart_may_take_back_stop_nothing(tmp_path):
    for _ in range(2):
        run = RunLog(tmp_path / "log")
        run.begin({}, [])
        if _:
            assert _curve(run.directory, "val/ndcg_10", settled=True) == []
            run.resumed(2)
        run.metrics({"val/ndcg_10": 0.25 + _}, 2 + 2 * _)
        if not _:
            run.metrics({"val/ndcg_10": 0.125}, 4)
        assert _curve(run.directory, "val/ndcg_10", settled=True)
    assert _curve(run.directory, "val/ndcg_10", settled=True) == [(2, 0.25), (4, 1.25)]


def test_what_cannot_be_searched_is_said(tmp_path):
    with pytest.raises(ConfigError, match="nothing to search"):
        plan_of("train", ["sweep=bayes", "optim.lr=1e-4", "loss=hinge"])
    with pytest.raises(ConfigError, match="run_dir is one place"):
        plan_of("train", ["sweep=bayes", "run_dir=x"])
    with pytest.raises(ConfigError, match="trials=0 must be at least 1"):
        plan_of("train", ["sweep=bayes", "sweep.trials=0"])


def test_values_that_do_not_go_together_are_a_failed_trial_and_no_end(tmp_path, monkeypatch):
    plan = plan_of(
        "train", ["sweep=bayes", "optim.lr=interval(1e-5,1e-3)", "sweep.trials=3", "seed=0", f"root={tmp_path}"]
    )
    started = []

    def job(number, overrides):
        if number == 1:
            raise ConfigError("these two exclude each other")
        return Job(number, "train", overrides, {}, "c")

    class Pool(contextlib.nullcontext):
        free, running = True, {}

        def wait(self, seconds):
            ended = [SimpleNamespace(key=one, code=0, pid=1, seconds=0.1) for one in started]
            started.clear()
            return ended

    plan.folder.mkdir(parents=True)
    monkeypatch.setattr(bayes, "_check_corners", lambda *_: None)
    monkeypatch.setattr(bayes, "pool_of", lambda _: (pool := Pool(), setattr(pool, "enter_result", pool))[0])
    monkeypatch.setattr(bayes, "start", lambda pool, job, folder, told: started.append(job))
    monkeypatch.setattr(Plan, "job", lambda self, number, overrides: job(number, overrides))
    bayes.run_bayes(plan)
    records = {record["number"]: record for record in read_jobs(plan.folder)}
    assert sorted(records) == [0, 1, 2]
    assert "these two exclude each other" in records[1]["error"]
    plan.write()
    text, failed = conclude(plan.folder)
    assert failed
    # It had no process, which could have left a log.
    assert "001.log" not in text


@pytest.mark.slow
def test_a_search_with_pruning_ends_with_as_many_trials_as_asked_for_and_goes_on(fresh_lab):
    search = ("sweep=bayes", "optim.lr=tag(log,interval(1e-6,1e-1))", "sweep.startup=3", "sweep.after=2")
    command = [sys.executable, "experiments/train.py", *fresh_lab.arguments("train", *search, "train.max_steps=6")]
    given = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    for trials in (3, 5):
        asked = [*command, f"sweep.trials={trials}"]
        done = subprocess.run(asked, cwd=REPOSITORY, env=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder,) = (fresh_lab.root / "sweeps").iterdir()
        assert [job["number"] for job in read_jobs(folder)] == list(range(trials))
    assert "5 trials, 3 of them done before" in done.stderr
    states = [trial.state.name for trial in study(folder / STUDY).trials]
    assert len(states) == 5
    assert set(states) <= {"COMPLETE", "PRUNED"}
    for trial, job in zip(study(folder / STUDY).trials, read_jobs(folder)):
        assert job["state"] == {"COMPLETE": "finished", "PRUNED": "pruned"}[trial.state.name]
        assert trial.intermediate_values, "the dev metric was followed"
        assert job["objective"] == pytest.approx(trial.value)
    assert json.loads((folder / "sweep.json").read_text())["importance_method"]
