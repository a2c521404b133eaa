"""Paired tests: by hand, against scipy, repeatable, and right about how often chance alone looks like a gain."""

from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
from scipy import stats

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation import significance
from colbert_lab.evaluation.significance import estimate, holm, paired


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
    # Fewer resamples than the 2^n ways to sign n differences, so that they are drawn.
    for n, resamples in ((1, 1), (5, 31), (10, 1000), (12, 4000)):
        difference = rng.normal(0.3, 1, n).round(1)
        exact = paired(difference, np.zeros(n)).p
        assert exact == by_enumeration(difference)
        sampled = paired(difference, np.zeros(n), resamples=resamples).p
        # The observed signs count as one more draw, and the others hit with the exact p: their mean and deviation. Of
        # one difference both signs are as extreme as it is: p is 1, and no draw can say otherwise.
        mean, deviation = (1 + resamples * exact) / (1 + resamples), np.sqrt(exact * (1 - exact) / resamples)
        assert abs(sampled - mean) <= 4 * deviation + 1e-12, n
        assert exact == 1 or n > 1


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


def test_randomisation_agrees_with_scipys():
    rng = np.random.default_rng(7)
    for n in (3, 6, 11):
        a, b = rng.random(n).round(1), rng.random(n).round(1)
        theirs = stats.permutation_test(
            (a, b),
            lambda x, y, axis: (x - y).mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        )
        assert paired(a, b).p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_the_interval_agrees_with_scipys_bootstrap():
    rng = np.random.default_rng(8)
    values = rng.beta(1, 3, 80)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=rng).confidence_interval
    ours = estimate(values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert (ours.mean, ours.deviation, ours.seeds) == (values.mean(), None, 1)


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


LEVEL = 0.05
NULLS = 1000
# How many of 1,000 tests at level 0.05 reject, but once in a thousand times: 29 to 74.
FEWEST, MOST = stats.binom.ppf([0.0005, 0.9995], NULLS, LEVEL)


def same_recipe(rng, seeds, queries, seed_effect, recipes=2):
    """Values [seeds, queries] of systems that differ by chance alone.

    A query is hard for all (0.3) and suits each recipe more or less (0.1); a seed is good or bad on all queries
    (`seed_effect`) and on each (0.15).
    """
    hard = rng.normal(0, 0.3, queries)
    return [
        hard
        + rng.normal(0, 0.1, queries)
        + rng.normal(0, seed_effect, (seeds, 1))
        + rng.normal(0, 0.15, (seeds, queries))
        for _ in range(recipes)
    ]


def rejected(test, seeds, seed_effect, shift=0.0, nulls=NULLS):
    """How many comparisons come out below the level."""
    count = 0
    for i in range(nulls):
        a, b = same_recipe(np.random.default_rng([9, i]), seeds, 30, seed_effect)
        count += paired(a + shift, b, test, seed=i, resamples=199).p <= LEVEL
    return count


@pytest.mark.parametrize("test", ["randomisation", "t"])
def test_chance_alone_is_significant_at_the_level(test):
    assert FEWEST <= rejected(test, 1, 0.0) <= MOST


@pytest.mark.parametrize(
    ("test", "seeds", "seed_effect"),
    [("randomisation", 3, 0.0), ("randomisation", 3, 0.1), ("t", 3, 0.1), ("randomisation", 2, 0.03)],
)
def test_chance_alone_with_seeds_is_significant_no_more_often(test, seeds, seed_effect):
    # Over queries alone every second of these with 0.1 would be.
    assert 0 < rejected(test, seeds, seed_effect) <= MOST


@pytest.mark.parametrize("test", ["randomisation", "t"])
def test_what_is_better_is_found_with_seeds(test):
    assert rejected(test, 3, 0.02, shift=0.25, nulls=50) > 45


@pytest.mark.parametrize(("seeds", "seed_effect"), [(1, 0.0), (3, 0.05)])
def test_a_family_is_wrong_no_more_often_than_one_test(seeds, seed_effect):
    families, count = 0, 250
    for i in range(count):
        *systems, baseline = same_recipe(np.random.default_rng([10, i]), seeds, 30, seed_effect, recipes=5)
        p = holm([paired(system, baseline, seed=i, resamples=199).p for system in systems])
        families += p.min() <= LEVEL
    assert 0 < families <= stats.binom.ppf(0.9995, count, LEVEL)


def test_seeds_that_agree_change_nothing():
    rng = np.random.default_rng(11)
    a, b = rng.random(20), rng.random(20)

    def close(one, other):
        found, expected = asdict(one), asdict(other)
        assert found.pop("test") == expected.pop("test")
        assert found == pytest.approx(expected, abs=1e-12)

    for test in ("randomisation", "t"):
        close(paired(np.stack([a] * 3), np.stack([b] * 2), test), paired(a, b, test))
    assert paired(a[None], b, "t") == paired(a, b, "t")
    # What one seed gains on some queries it loses on others: no seed is better than another, and the average counts.
    swing = rng.normal(0, 0.2, 20)
    swing -= swing.mean()
    close(paired(np.stack([a + swing, a - swing]), b), paired(a, b))


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(12)
    a, b = rng.random(40) + 0.2, rng.random(40)
    shifts = np.array([[-0.2], [0.0], [0.2]])
    for test in ("randomisation", "t"):
        alone, several = paired(a, b, test), paired(a + shifts, b, test)
        assert several.mean_difference == pytest.approx(alone.mean_difference)
        assert (several.wins, several.losses) == (alone.wins, alone.losses)
        assert several.p > alone.p
        # Three seeds with means 0.2 apart: t of 2 degrees, 4.30 times 0.2 / √3 to each side.
        assert several.high - several.low > 2 * 4.3 * 0.2 / 3**0.5
        assert several == paired(a + shifts, b, test)
        assert several != paired(a + shifts, b, test, seed=1)
        assert paired(b, a + shifts, test).p == pytest.approx(several.p, abs=0.01)
    found = estimate(a + shifts)
    assert (found.seeds, found.deviation) == (3, pytest.approx(0.2))
    assert found.high - found.low > 2 * 4.3 * 0.2 / 3**0.5
    assert found.low < found.mean < found.high


def test_interval_of_seeds_holds_the_recipes_mean():
    held = 0
    for i in range(400):
        (values,) = same_recipe(np.random.default_rng([13, i]), 3, 30, 0.1, recipes=1)
        found = estimate(values, seed=i, resamples=199)
        held += found.low <= 0 <= found.high
    assert held >= stats.binom.ppf(0.0005, 400, 0.95)


def test_one_query_with_seeds():
    found = paired(np.array([[0.1], [0.3]]), np.array([0.5]), resamples=99)
    assert 0.5 < found.p <= 1
    assert estimate(np.array([[0.1], [0.3]])).mean == pytest.approx(0.2)
    with pytest.raises(DataError, match="not finite"):
        estimate(np.array([0.1, np.nan]))


def test_what_differs_in_its_last_bits_is_tied():
    seeds = np.array([[0.1, 0.7, 0.5], [0.2, 0.7, 0.5], [0.3, 0.7, 0.5]])
    found = paired(seeds, np.array([0.2, 0.7, 0.1]))
    assert seeds.mean(axis=0)[0] != 0.2
    assert (found.wins, found.ties, found.losses) == (1, 2, 0)
