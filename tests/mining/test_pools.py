"""Denoising: false negatives by margin, relabelling, errors of the judgements, what is counted, the file."""

import pickle

import numpy as np
import pytest

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.mining.candidates import QueryCandidates, read_candidates
from colbert_lab.mining.pools import Denoising, Pool, make_pools, read_pools, write_pools

# Two positives (p1, p2), three documents that nobody judged (u1..u3), one judged not relevant (z).
ROW = QueryCandidates("q", ("p1", "p2", "u1", "z", "u2", "u3"), (3, 0, 1, 2, 4, 5), (2, 1, -1, 0, -1, -1))
SCORES = [5.0, 2.0, 6.0, 4.0, 1.0, 2.0]


def pools_of(row=ROW, scores=SCORES, **knobs):
    return taken([row], scores, **knobs)


def taken(rows, scores, **knobs):
    """All pools, and then the counts."""
    made = make_pools(rows, np.array(scores, dtype=np.float32), Denoising(**knobs))
    return list(made), made.counts


def test_without_denoising_everything_is_kept():
    (pool,), counts = pools_of()
    assert pool == Pool(
        "q", ("p1", "p2"), (5.0, 2.0), ("u1", "z", "u2", "u3"), (6.0, 4.0, 1.0, 2.0), negative_ranks=(1, 2, 4, 5)
    )
    assert counts["dropped"]["false_negative"]["total"] == 0
    assert (counts["queries"], counts["positives"], counts["negatives"]) == (1, 2, 4)


@pytest.mark.parametrize(
    ("margin", "against", "kept"),
    [
        # The best positive has 5: dropped are those of 5 - margin and more.
        (0.0, "best", ("z", "u2", "u3")),
        (1.0, "best", ("u2", "u3")),
        (0.5, "best", ("z", "u2", "u3")),
        (4.0, "best", ()),
        (-1.5, "best", ("u1", "z", "u2", "u3")),
        # The worst has 2; u3, of equal score, is as likely relevant as it.
        (0.0, "worst", ("u2",)),
        (-0.5, "worst", ("u2", "u3")),
    ],
)
def test_d6_negatives_within_the_margin_of_the_positive_are_dropped(margin, against, kept):
    (pool,), counts = pools_of(margin=margin, against=against)
    assert pool.negatives == kept
    lost = 4 - len(kept)
    assert counts["dropped"]["false_negative"] == {"total": lost, "queries": int(lost > 0), "per_query": [lost] * 3}
    assert counts["negatives_per_query"] == [len(kept)] * 3


def test_never_relabelled_queries_without_a_positive_are_left_out_and_counted():
    free = QueryCandidates("free", ("a", "b"), (1, 2), (-1, 0))
    pools, counts = taken([free, ROW], [9.0, 8.0, *SCORES])
    assert [pool.query for pool in pools] == ["q"]
    assert counts["left_out"] == {"without_positive": 1}
    assert counts["relabelled"] == 0


def test_unjudged_queries_get_the_teachers_best_among_the_unjudged():
    free = QueryCandidates("free", ("a", "b", "c"), (1, 2, 3), (-1, 0, -1))
    pools, counts = taken([free, ROW], [1.0, 8.0, 3.0, *SCORES], relabel="unjudged")
    # b has the highest score, but was judged not relevant.
    assert pools[0] == Pool("free", ("c",), (3.0,), ("a", "b"), (1.0, 8.0), (1, 2))
    assert pools[1].positives == ("p1", "p2")
    assert counts["relabelled"] == 1
    none = QueryCandidates("none", ("a",), (1,), (0,))
    assert pools_of(none, [1.0], relabel="unjudged")[1]["left_out"] == {"without_positive": 1}
    # The margin counts from the new positive: 3 - 2 = 1, so a goes as well.
    assert pools_of(free, [1.0, 0.5, 3.0], relabel="unjudged", margin=2.0)[0][0].negatives == ("b",)


def test_always_relabelled_the_teachers_best_is_the_one_positive():
    (pool,), counts = pools_of(relabel="always")
    assert (pool.positives, pool.positive_scores) == (("u1",), (6.0,))
    assert pool.negatives == ("z", "u2", "u3")
    assert (counts["relabelled"], counts["dropped"]["set_aside"]["total"]) == (1, 2)
    # Where the best was judged relevant nothing is relabelled; of equal scores the judged one is the best.
    (pool,), counts = pools_of(scores=[6.0, 2.0, 6.0, 4.0, 1.0, 2.0], relabel="always")
    assert (pool.positives, counts["relabelled"], counts["dropped"]["set_aside"]["total"]) == (("p1",), 0, 1)


def test_positives_that_the_teacher_ranks_low_are_errors_of_the_judgements():
    # Above p1 (5) only u1; above p2 (2) u1 and z, u3 being equal: ranks 2 and 3, other positives not counted.
    assert pools_of(worst_positive_rank=3)[0][0].positives == ("p1", "p2")
    (pool,), counts = pools_of(worst_positive_rank=2)
    assert (pool.positives, pool.negatives) == (("p1",), ("u1", "z", "u2", "u3"))
    assert counts["dropped"]["label_error"]["total"] == 1
    assert pools_of(worst_positive_rank=1)[1]["left_out"] == {"without_positive": 1}
    (pool,), counts = pools_of(worst_positive_rank=1, relabel="unjudged")
    assert (pool.positives, counts["relabelled"]) == (("u1",), 1)


def test_pools_are_made_one_at_a_time():
    made = make_pools([ROW, ROW], np.array([*SCORES, *[np.nan] * 6], dtype=np.float32), Denoising())
    pools = iter(made)
    assert next(pools).positives == ("p1", "p2")
    with pytest.raises(RuntimeError, match="known when all of them were taken"):
        made.counts  # noqa: B018
    with pytest.raises(DataError, match="no number"):
        next(pools)


def test_scores_of_other_candidates_are_refused():
    with pytest.raises(DataError, match="gave 5 scores, but the candidates have more documents"):
        pools_of(scores=SCORES[:5])
    with pytest.raises(DataError, match="gave 7 scores, but the candidates have 6 documents"):
        pools_of(scores=[*SCORES, 0.0])
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match=f"query 'q' and document 'u2' is {bad}"):
            pools_of(scores=[5.0, 2.0, 6.0, 4.0, bad, 2.0])


def test_d12_the_file_is_equal_byte_for_byte_and_keeps_every_bit_of_a_score(tmp_path):
    rng = np.random.default_rng(0)
    rows = [QueryCandidates(str(i), ("a", "b", "c"), (1, 2, 3), (1, -1, -1)) for i in range(1200)]
    scores = rng.normal(size=3600).astype(np.float32)
    pools, counts = taken(rows, scores, margin=0.1)
    np.save(tmp_path / "scores.npy", scores)
    for name, given in (("one", scores), ("two", np.load(tmp_path / "scores.npy", mmap_mode="r"))):
        write_pools(tmp_path / name, made := make_pools(iter(rows), given, Denoising(margin=0.1)))
        assert made.counts == counts
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = read_pools(tmp_path / "one")
    assert list(read) == pools
    assert pickle.loads(pickle.dumps(read))[1100] == pools[1100]
    assert [np.float32(pool.positive_scores[0]) for pool in read] == scores[::3].tolist()
    with pytest.raises(ArtifactError, match="has columns"):
        read_candidates(tmp_path / "one")


def test_wrong_knobs_are_told_together():
    with pytest.raises(ConfigError, match="4 problems in denoising") as told:
        Denoising(margin=float("nan"), against="all", relabel="sometimes", worst_positive_rank=0)
    assert "against=all must be one of best, worst" in str(told.value)
    with pytest.raises(ConfigError, match="try: worst_positive_rank=null"):
        Denoising(relabel="always", worst_positive_rank=3)
