"""Paired tests: by hand, against scipy, repeatable, and right about how often chance alone looks like a gain."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation import significance
from colbert_lab.evaluation.significance import holm, paired


def by_enumeration(difference):
    sums = [abs(np.dot(signs, difference)) for signs in product([1, -1], repeat=len(difference))]
    return float(np.mean([s >= abs(difference.sum()) - 1e-12 for s in sums]))


def test_tiny_case_by_hand():
    # Of the 8 ways to sign 1, 2, 3 only +++ and --- reach a sum of 6.
    result = paired(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    assert result.p == 2 / 8
    assert (result.wins, result.ties, result.losses, result.mean_difference) == (3, 0, 0, 2.0)
    assert result.low <= 2.0 <= result.high


def test_enumeration_and_sampling_agree():
    rng = np.random.default_rng(0)
    for n in (1, 5, 10):
        difference = rng.normal(0.3, 1, n).round(1)
        exact = paired(difference, np.zeros(n)).p
        assert exact == by_enumeration(difference)
        sampled = paired(difference, np.zeros(n), resamples=2**n - 1 if n < 10 else 1000).p
        assert sampled == pytest.approx(exact, abs=0.05 if n == 10 else 0.6)


def test_ties_change_nothing_but_their_count():
    rng = np.random.default_rng(1)
    difference = rng.normal(0.5, 1, 8)
    padded = np.concatenate([difference, np.zeros(40)])
    assert paired(padded, np.zeros(48)).p == paired(difference, np.zeros(8)).p
    assert paired(padded, np.zeros(48)).ties == 40


def test_no_difference():
    for test in ("randomisation", "t"):
        result = paired(np.ones(5), np.ones(5), test)
        assert (result.p, result.mean_difference, result.low, result.high, result.ties) == (1.0, 0.0, 0.0, 0.0, 5)


def test_t_agrees_with_scipy():
    rng = np.random.default_rng(2)
    for n in (2, 7, 300):
        a, b = rng.random(n), rng.random(n)
        theirs = stats.ttest_rel(a, b)
        ours = paired(a, b, "t")
        assert ours.p == pytest.approx(theirs.pvalue, rel=1e-12)
        interval = theirs.confidence_interval(0.95)
        assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert paired(np.ones(4), np.zeros(4), "t").p == 0.0


def test_randomisation_and_bootstrap_are_near_t_where_t_holds():
    rng = np.random.default_rng(3)
    a = rng.normal(0.1, 1, 300)
    b = rng.normal(0, 1, 300)
    ours, t = paired(a, b, resamples=20_000), paired(a, b, "t")
    assert ours.p == pytest.approx(t.p, abs=0.02)
    assert (ours.low, ours.high) == pytest.approx((t.low, t.high), abs=0.02)


def test_repeatable_and_seeded():
    rng = np.random.default_rng(4)
    a, b = rng.random(50), rng.random(50)
    assert paired(a, b, resamples=5000) == paired(a, b, resamples=5000)
    assert paired(a, b, resamples=5000, seed=1) != paired(a, b, resamples=5000)
    assert paired(b, a, resamples=5000).p == paired(a, b, resamples=5000).p


def test_bounded_memory_does_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(5)
    a, b = rng.random(12), rng.random(12)
    whole = paired(a, b)
    monkeypatch.setattr(significance, "_CHUNK", 100)
    assert paired(a, b).p == whole.p


def test_uniform_under_the_null():
    rng = np.random.default_rng(6)
    values = [paired(rng.random(25), rng.random(25), seed=i, resamples=400).p for i in range(400)]
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(values) < 0.05) < 0.09


def test_sampled_p_is_never_0():
    assert paired(np.full(60, 5.0), np.zeros(60), resamples=99).p == 0.01


def test_holm():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    with pytest.raises(DataError, match="between 0 and 1"):
        holm([0.5, float("nan")])


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [([1.0], [1.0, 2.0], "same queries"), ([], [], "same queries"), ([np.nan, 1], [1, 1], "number 0 are not finite")],
)
def test_refuses_what_does_not_pair(a, b, said):
    with pytest.raises(DataError, match=said):
        paired(np.array(a), np.array(b))


def test_refuses_unknown_settings():
    with pytest.raises(ConfigError, match="randomisation or t"):
        paired(np.ones(2), np.ones(2), "wilcoxon")
    with pytest.raises(ConfigError, match="resamples"):
        paired(np.ones(2), np.ones(2), resamples=0)
    with pytest.raises(DataError, match="two queries"):
        paired(np.ones(1), np.zeros(1), "t")
