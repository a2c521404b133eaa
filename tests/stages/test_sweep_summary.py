"""What a sweep came to: shares of variance against hand-worked tables, tests over queries and seeds, the best again."""

import json
import shlex

import numpy as np
import pytest

from colbert_lab.artifact import build
from colbert_lab.errors import DataError
from colbert_lab.evaluation.significance import holm, paired
from colbert_lab.stages.launch import conf_dir
from colbert_lab.stages.overrides import explain
from colbert_lab.stages.sweeps.importance import is_full_factorial, main_effects
from colbert_lab.stages.sweeps.plan import PLAN
from colbert_lab.stages.sweeps.queries import PerQuery, against, per_query
from colbert_lab.stages.sweeps.summary import command_of, conclude, summarise
from colbert_lab.stages.sweeps.text import text_of
from colbert_lab.stages.table import add_job


def grid(**levels):
    names = list(levels)
    return [
        dict(zip(names, row))
        for row in np.array(np.meshgrid(*levels.values(), indexing="ij")).reshape(len(names), -1).T
    ]


def test_shares_of_a_table_worked_by_hand():
    # a: 1 2 3 | 5 6 13, with b across. Mean 5; squares 16+9+4+0+1+64 = 94.
    # a's means 2 and 8: 3 * (9 + 9) = 54. b's means 3, 4, 8: 2 * (4 + 1 + 9) = 28. The rest: 94 - 54 - 28 = 12.
    params = grid(a=["x", "y"], b=[0, 1, 2])
    shares, rest = main_effects(params, [1, 2, 3, 5, 6, 13])
    assert list(shares) == ["a", "b"]
    assert shares == pytest.approx({"a": 54 / 94, "b": 28 / 94})
    assert rest == pytest.approx(12 / 94)
    assert is_full_factorial(params)
    # The same twice, a third factor (seed) that changes nothing.
    twice, rest_too = main_effects([p | {"seed": s} for p in params for s in (0, 1)], np.repeat([1, 2, 3, 5, 6, 13], 2))
    assert twice == pytest.approx(shares | {"seed": 0})
    assert rest_too == pytest.approx(rest)


def test_shares_where_a_combination_is_missing():
    # Without the last: 1 2 3 | 5 6. Additive but for nothing: y = 1 + 4 a + b fits, so nothing is left over.
    params = grid(a=["x", "y"], b=[0, 1, 2])[:5]
    shares, rest = main_effects(params, [1, 2, 3, 5, 6])
    # Mean 3.4; squares 5.76 + 1.96 + 0.16 + 2.56 + 6.76 = 17.2. What is left without a, by b: 1 5 | 2 6 | 3 is 8 + 8;
    # without b, by a: 1 2 3 | 5 6 is 2 + 0.5.
    assert shares == pytest.approx({"a": 16 / 17.2, "b": 2.5 / 17.2})
    assert rest == pytest.approx(0, abs=1e-12)
    assert not is_full_factorial(params)
    with pytest.raises(ValueError, match="all results are the same"):
        main_effects(params, [0.1 + 0.2, 0.3, 0.3, 0.3, 0.3])
    # A parameter with one value left takes part in nothing.
    assert set(main_effects(params[:3], [1, 2, 3])[0]) == {"b"}


def values(*numbers, name="dev_ndcg_10"):
    return PerQuery(name, {f"q{i}": number for i, number in enumerate(numbers)})


def test_seeds_with_the_same_queries_are_a_source_of_chance():
    rng = np.random.default_rng(0)
    base, better, noisy = (
        {s: values(*(rng.random(30) * 0.1 + level + s * spread)) for s in range(3)}
        for level, spread in ((0.2, 0.0), (0.6, 0.0), (0.6, 0.4))
    )
    found, how = against([better, base, noisy], baseline=1)
    assert found[1] is None
    a, b = (np.array([list(one.values.values()) for one in group.values()]) for group in (better, base))
    assert found[0]["p_alone"] == paired(a, b, resamples=20_000).p
    assert found[0]["p"] < 0.01 < 0.05 < found[2]["p"], "seeds that differ so much leave it open"
    alone = [found[0]["p_alone"], found[2]["p_alone"]]
    assert [found[0]["p"], found[2]["p"]] == holm(alone).tolist()
    assert "30 queries and their seeds, by dev_ndcg_10" in how


def test_samples_that_a_seed_drew_pair_where_both_have_the_query():
    a = {0: PerQuery("m", {"x": 1.0, "y": 0.5}), 1: PerQuery("m", {"y": 1.0, "z": 0.25}), 2: PerQuery("m", {"w": 1.0})}
    b = {0: PerQuery("m", {"x": 0.0, "y": 0.25}), 1: PerQuery("m", {"y": 0.25, "z": 0.25})}
    found, how = against([b, a], baseline=0)
    # x 1; y (0.25 + 0.75) / 2; z 0; w has no partner.
    assert found[1]["difference"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert (found[1]["wins"], found[1]["ties"], found[1]["losses"], found[1]["queries"]) == (2, 1, 0, 3)
    assert "each has its own" in how or "each seed has its own" in how
    found, how = against([{0: values(1, 2)}, {}], baseline=0)
    assert found == [None, None]
    assert how.startswith("not tested")


def metrics(path, split, systems):
    with build(path, "metrics", "k" + path.name) as work:
        means = {name: {"means": {}} for name in systems}
        (work.path / "metrics.json").write_text(json.dumps({"split": split, "systems": means}))
        rows = [
            {"system": n, "query": q, "ndcg_10": v, "mrr_10": 0} for n, one in systems.items() for q, v in one.items()
        ]
        (work.path / "per_query.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_per_query_values_of_each_kind_of_artifact(tmp_path):
    test = metrics(tmp_path / "m", "test", {"untrained": {"a": 0.1}, "trained": {"a": 0.5}})
    assert per_query(test, "dev_ndcg_10") == PerQuery("test_ndcg_10", {"a": 0.5})
    assert per_query(test, "mrr_10") == PerQuery("test_mrr_10", {"a": 0})
    last = metrics(tmp_path / "l", "test", {"trained": {"a": 0.5}, "bm25": {"a": 0.3}})
    assert per_query(last, "ndcg_10") == PerQuery("test_ndcg_10", {"a": 0.5})
    alone = metrics(tmp_path / "b", "test", {"bm25": {"a": 0.3}})
    assert per_query(alone, "ndcg_10") == PerQuery("test_ndcg_10", {"a": 0.3})
    dev = metrics(tmp_path / "d", "dev", {"round 0": {"a": 0.2}, "round 1": {"a": 0.3}})
    with build(tmp_path / "r", "rounds", "k", {"metrics_dev": {"path": str(dev)}}) as work:
        (work.path / "rounds.json").write_text('{"best": "round 0"}')
    assert per_query(tmp_path / "r", "dev_ndcg_10") == PerQuery("dev_ndcg_10", {"a": 0.2})
    with build(tmp_path / "x", "model", "k") as work:
        (work.log / "val").mkdir()
        (work.log / "val" / "per_query.jsonl").write_text('{"query": "a", "ndcg_10": 0.75, "mrr_10": 1.0}\n')
    assert per_query(tmp_path / "x", "dev_ndcg_10") == PerQuery("dev_ndcg_10", {"a": 0.75})
    assert per_query(tmp_path / "gone", "dev_ndcg_10") is None


@pytest.fixture
def folder(tmp_path):
    plan = {
        "verb": "train",
        "program": "python experiments/train.py",
        "kind": "grid",
        "options": {},
        "fixed": ["data=beir"],
        "swept": {"loss": "hinge,softmax,none", "seed": "0,1"},
        "default": {"loss": "softmax", "seed": 0},
        "jobs": 6,
    }
    (tmp_path / PLAN).write_text(json.dumps(plan))
    scores = {("hinge", 0): 0.5, ("hinge", 1): 0.75, ("softmax", 0): 0.875, ("softmax", 1): 0.25, ("none", 0): None}
    for number, ((loss, seed), score) in reversed(list(enumerate(scores.items()))):
        job = {"number": number, "overrides": [f"loss={loss}", f"seed={seed}", "data.root=a b"]}
        job |= {"params": {"loss": loss, "seed": seed}, "config": "c", "seconds": 1.0}
        end = {"state": "finished", "objective": score, "objective_name": "dev_ndcg_10" if score else None}
        add_job(tmp_path, job | end | {"figures": {"dev_ndcg_10": score} if score else {}, "artifact": f"/a/{number}"})
    job = {"number": 5, "overrides": ["loss=none", "seed=1"], "params": {"loss": "none", "seed": 1}, "config": "c"}
    add_job(tmp_path, job | {"state": "failed", "error": "Traceback\n  it broke"})
    return tmp_path


def test_the_summary_of_a_sweep(folder):
    told = summarise(folder)
    assert [(row["params"], row["mean"], row["n"]) for row in told["rows"]] == [
        ({"loss": "hinge"}, 0.625, 2),
        ({"loss": "softmax"}, 0.5625, 2),
        ({"loss": "none"}, None, 0),
    ]
    # (0.5, 0.75): each an eighth from the mean; sd = sqrt(2 / 64) with n - 1 = 1.
    assert told["rows"][0]["deviation"] == pytest.approx((2 / 64) ** 0.5)
    assert [row["baseline"] for row in told["rows"]] == [False, True, False]
    # The best configuration is not that of the best run.
    assert told["best"]["params"] == {"loss": "hinge", "seed": 1}
    assert shlex.split(told["command"])[2:] == ["loss=hinge", "seed=1", "data.root=a b"]
    assert told["counts"] == {"finished": 5, "failed": 1, "pruned": 0, "asked": 6}
    assert told["tested"].startswith("not tested")
    text = text_of(told)
    assert text.index("loss=hinge") < text.index("loss=softmax  (default)") < text.index("loss=none")
    assert "5 finished, 1 failed" in text
    assert "  Traceback\n    it broke" in text
    assert json.loads(json.dumps(told)) == told


def test_jobs_of_another_configuration_are_left_out_and_told(folder):
    plan = json.loads((folder / PLAN).read_text())
    assert summarise(folder)["left_out"] == []
    # conf/ was changed: all jobs are others now, of which the two of hinge have run so far, and one failed.
    (folder / PLAN).write_text(json.dumps(plan | {"configs": ["new"] * 6}))
    with pytest.raises(DataError, match="has ended yet, but 6 under another configuration"):
        summarise(folder)
    for seed, score in ((0, 0.125), (1, 0.375)):
        job = {"number": seed, "overrides": [f"loss=hinge seed={seed}"], "params": {"loss": "hinge", "seed": seed}}
        end = {"state": "finished", "objective": score, "objective_name": "dev_ndcg_10", "figures": {}, "artifact": ""}
        add_job(folder, job | end | {"config": "new", "seconds": 1.0})
    told = summarise(folder)
    assert [(row["params"], row["mean"], row["n"]) for row in told["rows"]] == [({"loss": "hinge"}, 0.25, 2)]
    assert told["counts"] == {"finished": 2, "failed": 0, "pruned": 0, "asked": 6}
    assert sorted(job["number"] for job in told["left_out"]) == [2, 3, 4, 5]
    assert told["failed"] == []
    text = text_of(told)
    assert "2 finished, 4 still to do" in text
    assert "4 that ended under another configuration left out" in text


def test_a_report_that_cannot_be_made_does_not_take_the_table_with_it(folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("no page")

    monkeypatch.setattr("colbert_lab.stages.report.report_of", broken)
    text, failed = conclude(folder)
    assert failed
    assert text.startswith(text_of(summarise(folder)))
    assert "no report: RuntimeError: no page" in text


def test_no_default_among_the_jobs_and_no_end_yet(folder, tmp_path):
    plan = json.loads((folder / PLAN).read_text())
    (folder / PLAN).write_text(json.dumps(plan | {"default": {"loss": "kl", "seed": 0}}))
    told = summarise(folder)
    assert not told["baseline_is_default"]
    assert [row["params"]["loss"] for row in told["rows"] if row["baseline"]] == ["hinge"]
    (folder / "jobs.jsonl").write_text('{"cut')
    with pytest.raises(DataError, match="no job of the sweep"):
        summarise(folder)


def test_a_command_can_be_pasted():
    overrides = ["examples.ranks=[1,20]", "data.root=/a b/c", "x='$y'"]
    assert shlex.split(command_of("python experiments/train.py", overrides))[2:] == overrides


def test_a_table_has_no_key_that_nothing_reads():
    """The sweep's directory says all: a root beside it would change nothing."""
    (problem,) = explain(conf_dir(), "table", ["root=elsewhere"])
    assert "there is no key 'root'" in problem
