"""Examples from pools: epochs differ and repeat, every positive comes up, widths that are too large, unknown ids."""

import pickle

import numpy as np
import pytest

from colbert_lab.data.texts import hash_text
from colbert_lab.errors import DataError
from colbert_lab.mining.examples import PooledExamples
from colbert_lab.mining.pools import Pool, write_pools
from colbert_lab.mining.samplers import Hardest, RankBands, ScoreBands, Uniform

NEGATIVES = tuple(f"d{i}" for i in range(10, 40))
LARGE = Pool("q1", ("d0", "d1", "d2"), (9.0, 8.0, 7.0), NEGATIVES, tuple(np.arange(30) / 8), tuple(range(1, 31)))
SMALL = Pool("q2", ("d3",), (1.0,), ("d10", "d11", "d12"), (0.5, 0.25, -1.0), (4, 5, 6))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def made(make):
    return make({f"d{i}": f"text {i}" for i in range(50)}, {"q1": "one", "q2": "two"})


@pytest.fixture
def build(made, tmp_path):
    """build(sampler, negatives, pools=..., qrels=...) -> PooledExamples."""

    def built(sampler, negatives, pools=(LARGE, SMALL), qrels=None):
        write_pools(tmp_path / "pools.arrow", pools)
        return PooledExamples(made, tmp_path, sampler, negatives, qrels)

    return built


def test_an_example_is_a_positive_then_negatives_with_the_teachers_scores(build, made, tmp_path):
    examples = build(Hardest(), 3, qrels={"q2": {"d7": 1, "d8": 0}, "q1": {"d9": 2}})
    example = examples.sample(1, rng(), 3)
    assert (example.query, example.query_id) == ("two", "q2")
    assert example.document_ids == ("d3", "d10", "d11", "d12")
    assert example.documents == ("text 3", "text 10", "text 11", "text 12")
    assert example.scores == (1.0, 0.5, 0.25, -1.0)
    assert example.known_positives == {"d3", "d7"}
    assert example.known_texts == {hash_text("text 3"), hash_text("text 7")}
    assert examples.sample(0, rng(), 2).known_positives == {"d0", "d1", "d2", "d9"}
    assert examples.sample(1, rng(), 1).document_ids == ("d3", "d10")
    assert pickle.loads(pickle.dumps(examples)).sample(1, rng(), 3) == example
    assert PooledExamples(made, tmp_path / "pools.arrow", Hardest(), 3).sample(1, rng(), 3).documents[0] == "text 3"


def test_scores_stay_with_their_documents(build):
    examples = build(Uniform(), 8)
    score = dict(zip(LARGE.positives + LARGE.negatives, LARGE.positive_scores + LARGE.negative_scores))
    for seed in range(20):
        example = examples.sample(0, rng(seed), 8)
        assert example.scores == tuple(score[id] for id in example.document_ids)
        assert example.document_ids[0] in LARGE.positives
        assert len(set(example.document_ids)) == 9


def test_every_positive_comes_up(build):
    examples = build(Uniform(), 3)
    assert {examples.sample(0, rng(seed), 3).document_ids[0] for seed in range(40)} == {"d0", "d1", "d2"}


def test_d4_epochs_differ_and_the_same_epoch_is_equal(build):
    def epoch(seed, number):
        examples = build(RankBands([[1, 10, 1], [11, 30, 1]]), 3, pools=[LARGE])
        return [examples.sample(0, rng([seed, number, 0]), 3).document_ids for _ in range(2)]

    assert epoch(0, 1) == epoch(0, 1)
    assert len({tuple(epoch(0, number)) for number in range(8)}) == 8
    assert epoch(0, 1) != epoch(1, 1)


def test_d2_pools_that_are_too_small_are_left_out_and_counted(build):
    examples = build(Uniform(), 4)
    assert len(examples) == 1
    assert examples.sample(0, rng(), 4).query_id == "q1"
    facts = examples.describe()
    assert facts["left_out"] == {"short": 1}
    assert (facts["examples"], facts["positives"], facts["pool"], facts["negatives"]) == (1, 3, [30, 30, 30], 4)
    assert len(build(Uniform(), 3)) == 2
    # In the ranks 5 .. 6 q2 has 2 negatives, q1 too.
    assert len(build(RankBands([[5, 6, 1]]), 2)) == 2


def test_no_pool_large_enough_names_the_largest_width_that_works(build):
    with pytest.raises(DataError, match=r"largest number that works is 30 \(tuples of 31 .*\ntry: train.negatives=30"):
        build(Uniform(), 31)
    # With distances from the positive the smallest of its positives' counts decides: 30 negatives lie 3.375 .. 9 below
    # d0 (9), but of those only 25 (scores 0 .. 3) lie 4 or more below d2 (7).
    bands = ScoreBands([[4, float("inf"), 1]])
    assert len(build(bands, 25)) == 1
    with pytest.raises(DataError, match="the largest number that works is 25"):
        build(bands, 26)
    with pytest.raises(DataError, match="none of the 0 pools"):
        build(Uniform(), 1, pools=())


def test_more_negatives_than_asked_for_at_first_are_refused(build):
    examples = build(Uniform(), 3)
    assert examples.limit == 3
    with pytest.raises(DataError, match="4 negatives are wanted, but these examples were made for 3"):
        examples.sample(0, rng(), 4)
    with pytest.raises(DataError, match="negatives=-1"):
        build(Uniform(), -1)
    assert build(Uniform(), 0).sample(1, rng(), 0).document_ids == ("d3",)


def test_bands_that_are_refilled_are_counted(build):
    # q2 has nothing in 1 .. 3; q1 has enough in both.
    assert build(RankBands([[1, 3, 1], [4, 30, 1]]), 2).describe()["refilled"] == 1
    assert build(RankBands([[1, 3, 1], [4, 30, 1]]), 2, pools=[LARGE]).describe()["refilled"] == 0


@pytest.mark.parametrize(
    "pool",
    [
        Pool("q3", ("d3",), (1.0,), (), (), ()),
        Pool("q2", ("gone",), (1.0,), (), (), ()),
        Pool("q2", ("d3",), (1.0,), ("gone",), (1.0,), (1,)),
    ],
)
def test_d5_unknown_ids_raise_with_the_id(build, pool):
    with pytest.raises(DataError, match=r"'(gone|q3)' is no id"):
        build(Uniform(), 0, pools=[LARGE, pool])


def test_the_fingerprint_is_that_of_content_sampler_and_width(build):
    first = build(Uniform(), 3).fingerprint
    assert build(Uniform(), 3).fingerprint == first
    others = [
        build(Uniform(), 2),
        build(Hardest(), 3),
        build(RankBands([[1, 9, 1]]), 3),
        build(RankBands([[1, 8, 1]]), 3),
        build(Uniform(), 3, pools=[LARGE]),
        build(Uniform(), 3, qrels={"q1": {"d9": 1}}),
    ]
    assert len({first, *(examples.fingerprint for examples in others)}) == 7
