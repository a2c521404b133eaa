"""Comparisons of systems that were trained several times, and which tests are corrected together."""

import numpy as np
import pytest

from colbert_lab.errors import DataError
from colbert_lab.evaluation.comparison import chain, compare, estimates
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.evaluation.significance import holm, paired


def evaluation(**metrics):
    (queries,) = {len(values) for values in metrics.values()}
    return Evaluation(tuple(f"q{i}" for i in range(queries)), metrics, {"judged": queries}, 1)


@pytest.fixture
def values():
    """Three systems of three seeds over 30 queries, and one of one seed, in two metrics."""
    rng = np.random.default_rng(0)
    hard = rng.random(30) * 0.5

    def system(shift, seeds=3):
        return [np.clip(hard + shift + rng.normal(0, 0.1, 30), 0, 1) for _ in range(seeds)]

    return {
        name: [system(s, n), system(s / 2, n)]
        for name, (s, n) in {"bm25": (0, 1), "a": (0.05, 3), "b": (0.2, 3), "c": (0.0, 2)}.items()
    }


@pytest.fixture
def systems(values):
    return {name: [evaluation(ndcg_10=n, mrr_10=m) for n, m in zip(*metrics)] for name, metrics in values.items()} | {
        "bm25": evaluation(ndcg_10=values["bm25"][0][0], mrr_10=values["bm25"][1][0])
    }


def test_seeds_are_tested_together_and_a_family_is_a_metric(systems, values):
    compared = compare(systems, "bm25", resamples=999)
    assert [(c.system, c.metric) for c in compared] == [(s, m) for s in "abc" for m in ("ndcg_10", "mrr_10")]
    for number, metric in enumerate(("ndcg_10", "mrr_10")):
        alone = [paired(np.stack(values[s][number]), values["bm25"][number][0], resamples=999) for s in "abc"]
        found = [c for c in compared if c.metric == metric]
        assert [c.test for c in found] == alone
        # Corrected for the three systems of this metric, and not for the other metric's.
        assert [c.p for c in found] == holm([test.p for test in alone]).tolist()
    assert {c.system: c.mark() for c in compared if c.metric == "ndcg_10"}["b"] == "+"


def test_one_seed_in_a_list_is_one_seed(systems):
    single = {name: system if isinstance(system, Evaluation) else system[0] for name, system in systems.items()}
    listed = {name: [system] for name, system in single.items()}
    assert compare(single, "bm25", resamples=99) == compare(listed, "bm25", resamples=99)
    assert chain(single, resamples=99) == chain(listed, resamples=99)


def test_estimates_of_seeds(systems, values):
    found = estimates(systems["b"])
    means = [seed.mean() for seed in values["b"][0]]
    assert found["ndcg_10"].mean == pytest.approx(np.mean(means))
    assert found["ndcg_10"].deviation == pytest.approx(np.std(means, ddof=1))
    assert found["ndcg_10"].seeds == 3
    assert found["ndcg_10"].low < found["ndcg_10"].mean < found["ndcg_10"].high
    one = estimates(systems["bm25"])["mrr_10"]
    assert (one.seeds, one.deviation) == (1, None)


def test_refuses_seeds_of_other_queries(systems):
    other = [*systems["a"], evaluation(ndcg_10=np.ones(29), mrr_10=np.ones(29))]
    with pytest.raises(DataError, match="a and bm25 were judged on different queries"):
        compare(systems | {"a": other}, "bm25", resamples=9)
    with pytest.raises(DataError, match="different queries"):
        estimates(other)
    with pytest.raises(DataError, match="a has no evaluation"):
        compare(systems | {"a": []}, "bm25", resamples=9)


def test_a_metric_that_one_seed_lacks_is_not_compared(systems):
    shallow = [*systems["a"][:2], evaluation(ndcg_10=np.ones(30))]
    compared = compare({"bm25": systems["bm25"], "a": shallow}, "bm25", resamples=9)
    assert [c.metric for c in compared] == ["ndcg_10"]
    assert list(estimates(shallow)) == ["ndcg_10"]
