"""Samplers: shares by largest remainder, bands that are windows, refills, draws that vary and repeat."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.samplers import Hardest, RankBands, ScoreBands, Uniform, shares

RANKS = np.arange(1, 101)
# Distances below a positive of 10: 0, 0.1, ..., 9.9.
SCORES = 10 - np.arange(100) / 10
BANDS = [[1, 10, 1.0], [11, 50, 2.0], [51, 100, 1.0]]
ALL = [Uniform(), Hardest(), RankBands(BANDS), ScoreBands([[0, 1, 1], [1, 5, 2], [5, math.inf, 1]])]
by_name = pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)


def draw(sampler, count, seed=0, ranks=RANKS, scores=SCORES):
    return sampler.draw(np.random.default_rng(seed), ranks, scores, 10.0, count)


@pytest.mark.parametrize(
    ("count", "weights", "sizes", "expected"),
    [
        # 15.75, 31.5, 15.75: 61 whole ones, the two left to the largest remainders.
        (63, [1, 2, 1], [99, 99, 99], [16, 31, 16]),
        # Equal remainders: the earlier band.
        (1, [1, 1, 1], [9, 9, 9], [1, 0, 0]),
        (1, [1, 2, 1], [9, 9, 9], [0, 1, 0]),
        # Of 8 the first band asks for 2 and has 0; its 2 go to the others as 1.33, 0.67.
        (8, [1, 2, 1], [0, 9, 9], [0, 5, 3]),
        # The second lacks 3, which go as 1.5, 1.5 (the earlier gets the odd one); the first has but one more.
        (8, [1, 2, 1], [3, 1, 9], [3, 1, 4]),
        (0, [1, 2], [0, 0], [0, 0]),
        (4, [1, 1000], [3, 1], [3, 1]),
    ],
)
def test_shares_are_by_weight_and_what_a_band_lacks_comes_from_the_others(count, weights, sizes, expected):
    assert shares(count, weights, sizes) == expected


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(1e-3, 1e3)), min_size=1, max_size=6).flatmap(
        lambda bands: st.tuples(st.just(bands), st.integers(0, sum(size for size, _ in bands)))
    )
)
def test_shares_add_up_and_stay_near_the_weights(case):
    bands, count = case
    sizes, weights = [size for size, _ in bands], [weight for _, weight in bands]
    found = shares(count, weights, sizes)
    assert sum(found) == count
    assert all(0 <= number <= size for number, size in zip(found, sizes))
    unlimited = shares(count, weights, [count] * len(sizes))
    assert all(abs(n - count * w / sum(weights)) < 1 + 1e-9 for n, w in zip(unlimited, weights))
    # Nobody gives less than its share because another is short.
    assert all(number >= min(asked, size) for number, asked, size in zip(found, unlimited, sizes))


@by_name
def test_d4_draws_are_distinct_and_repeat_for_the_same_generator(sampler):
    for count in (0, 1, 7, 63, 100):
        drawn = draw(sampler, count)
        assert drawn.dtype == np.int64
        assert len(set(drawn.tolist())) == count
        assert drawn.tolist() == sorted(drawn.tolist())
        assert set(drawn.tolist()) <= set(range(100))
        assert drawn.tolist() == draw(sampler, count).tolist()
    assert sampler.available(RANKS, SCORES, 10.0) == 100
    with pytest.raises(DataError, match="101 negatives are wanted, but 100 can be drawn"):
        draw(sampler, 101)


@by_name
def test_d4_all_but_the_hardest_draw_others_in_another_epoch(sampler):
    draws = [tuple(draw(sampler, 8, seed)) for seed in range(60)]
    if isinstance(sampler, Hardest):
        assert set(draws) == {tuple(range(8))}
    else:
        assert len(set(draws)) == 60
        # 480 draws of 100: one that is never drawn has a probability below 0.1 (band 3: 2 of 50 in 60 draws).
        assert len({place for drawn in draws for place in drawn}) > 80


def test_uniform_is_uniform():
    counts = np.bincount(np.concatenate([draw(Uniform(), 10, seed) for seed in range(1000)]), minlength=100)
    # Binomial(1000, 0.1) for each: mean 100, deviation 9.5; five deviations to either side.
    assert counts.min() > 52
    assert counts.max() < 148


def test_rank_bands_are_inclusive_and_hold_their_shares():
    drawn = RANKS[draw(RankBands(BANDS), 16)]
    assert [((drawn >= first) & (drawn <= last)).sum() for first, last, _ in BANDS] == [4, 8, 4]
    edges = RankBands([[3, 4, 1], [6, 6, 1]])
    assert edges.available(RANKS, SCORES, 10.0) == 3
    assert RANKS[draw(edges, 3)].tolist() == [3, 4, 6]
    # Ranks in no band are no reserve, however short a band is.
    with pytest.raises(DataError, match="4 negatives are wanted, but 3 can be drawn"):
        draw(edges, 4)


def test_what_a_band_lacks_is_told():
    few = np.array([1, 2, 20, 21, 22, 23, 24, 25, 60])
    bands = RankBands(BANDS)
    # Of 8: 2, 4, 2 are asked for; the last band has 1.
    assert bands.refilled(few, few, 0.0, 8) == 1
    assert bands.refilled(few, few, 0.0, 4) == 0
    drawn = few[bands.draw(np.random.default_rng(0), few, few, 0.0, 8)]
    assert (drawn > 50).sum() == 1
    assert Uniform().refilled(few, few, 0.0, 9) == Hardest().refilled(few, few, 0.0, 9) == 0


def test_score_bands_are_distances_below_the_positive():
    scores = np.array([11.0, 10.0, 9.0, 8.0, 7.0])
    bands = ScoreBands([[0, 2, 1], [2, 3, 1]])
    # Below 10: -1 in no band; 0 and 1 in the first; 2 in the second, as near is included and far is not; 3 in none.
    assert bands.available(RANKS[:5], scores, 10.0) == 3
    assert bands.draw(np.random.default_rng(0), RANKS[:5], scores, 10.0, 3).tolist() == [1, 2, 3]
    # Another positive, other bands: below 11.
    assert bands.draw(np.random.default_rng(0), RANKS[:5], scores, 11.0, 3).tolist() == [0, 1, 2]
    assert bands.refilled(RANKS[:5], scores, 10.0, 3) == 0
    assert ScoreBands([[-math.inf, 0, 1], [0, math.inf, 1]]).available(RANKS[:5], scores, 10.0) == 5


def test_hardest_takes_the_best_ranks_in_whatever_order_they_come():
    ranks = np.array([5, 1, 9, 2])
    assert Hardest().draw(np.random.default_rng(0), ranks, ranks, 0.0, 2).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("sampler", "bands", "message"),
    [
        (RankBands, [], "there is no band"),
        (RankBands, [[1, 10]], r"three numbers, \[first, last, weight\]"),
        (RankBands, [[1, 10, "1"]], "three numbers"),
        (RankBands, [[1, 10, 0]], "weight above 0"),
        (RankBands, [[1, 10, -1.0]], "weight above 0"),
        (RankBands, [[0, 10, 1]], "counted from 1"),
        (RankBands, [[10, 9, 1]], "first <= last"),
        (RankBands, [[1.5, 9, 1]], "whole ranks"),
        (RankBands, [[11, 20, 1], [1, 11, 1]], r"\[1, 11, 1\] and \[11, 20, 1\] overlap"),
        (ScoreBands, [[2, 2, 1]], "near < far"),
        (ScoreBands, [[0, math.nan, 1]], "three numbers"),
        (ScoreBands, [[0, 3, 1], [2, 4, 1]], "overlap"),
        (ScoreBands, [[0, 3, math.inf]], "weight above 0"),
    ],
)
def test_bands_that_make_no_sense(sampler, bands, message):
    with pytest.raises(ConfigError, match=message):
        sampler(bands)


def test_the_defaults_are_valid_and_samplers_tell_themselves_apart():
    told = [type(sampler)().describe() for sampler in ALL]
    assert [facts["sampler"] for facts in told] == ["Uniform", "Hardest", "RankBands", "ScoreBands"]
    assert told[3]["bands"][0] == ["-inf", 3, 1.0]
    assert RankBands([[1, 9, 1]]).describe() != RankBands([[1, 8, 1]]).describe()
    assert list(inspect.signature(RankBands).parameters) == ["bands"]
