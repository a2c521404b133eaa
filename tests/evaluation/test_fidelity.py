"""How far from exact: every number by hand, from an index whose losses and errors are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import DataError
from colbert_lab.evaluation.fidelity import Staged, overlap, pareto, recall_by_stage, score_error
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run, rank


def run(**ids) -> Run:
    """Query -> documents, one letter each, best first."""
    return Run({query: Hits(tuple(found), -np.arange(len(found), dtype=float)) for query, found in ids.items()})


class Table:
    """An index that scores by a table and loses what `pruned` names, unless only that is asked for."""

    def __init__(self, scores: dict[str, dict[str, float]], pruned: str = "", deaf: str = ""):
        self.scores, self.pruned, self.deaf = scores, pruned, deaf

    def search(self, query_ids, queries, k, only=None, probe=None):
        found = {}
        for query in query_ids:
            lost = self.pruned if only is None else self.deaf
            left = {d: s for d, s in self.scores[query].items() if d not in lost}
            left = {d: s for d, s in left.items() if only is None or d in only}
            found[query] = rank(list(left), list(left.values())).cut(k)
        return Run(found, k)


class Telling(Table):
    def stages(self, query, k, *, probe=None):
        return {}


QUERIES = Ragged(torch.zeros(2, 4), torch.tensor([1, 1]))


def test_overlap_is_the_share_of_the_exact_top_whatever_its_order():
    exact = run(p="abcd", q="abcd", r="ab", s="", t="ab")
    found = run(p="acxd", q="dcba", r="bxay", s="x")
    # p: b is missing of ab; all but b of abcd. q: cd of abcd comes first. r: two of the two there are at all.
    # s: nothing to find. t: was not searched for.
    np.testing.assert_array_equal(overlap(found, exact, 2), [1 / 2, 0, 1 / 2, 1, 0])
    np.testing.assert_array_equal(overlap(found, exact, 4), [3 / 4, 1, 1, 1, 0])


def test_recall_by_stage_counts_what_is_left_at_any_rank():
    exact = run(p="abcd", q="abcd")
    stages = [{"probe": "xdcba", "refined": "da", "found": "a"}, {"probe": "", "refined": "", "found": ""}]
    recall = recall_by_stage(stages, exact, [2, 4])
    assert list(recall) == ["probe", "refined", "found"]
    expected = {"probe": ([1, 0], [1, 0]), "refined": ([1 / 2, 0], [1 / 2, 0]), "found": ([1 / 2, 0], [1 / 4, 0])}
    for stage, (at_2, at_4) in expected.items():
        np.testing.assert_array_equal(recall[stage][2], at_2)
        np.testing.assert_array_equal(recall[stage][4], at_4)


def test_stages_that_do_not_fit_together_are_refused():
    exact = run(p="ab", q="ab")
    with pytest.raises(DataError, match="stages of 1 queries, 2 were asked for"):
        recall_by_stage([{"probe": ["a"]}], exact, [1])
    with pytest.raises(DataError, match=r"query 'q' went through the stages \['other'\], others through \['probe'\]"):
        recall_by_stage([{"probe": ["a"]}, {"other": ["a"]}], exact, [1])


def test_only_an_index_that_tells_its_stages_is_asked_for_them():
    assert isinstance(Telling({}), Staged)
    assert not isinstance(Table({}), Staged)


def test_score_error_by_hand():
    exact = Run({"p": rank(["a", "b"], [10.0, 5.0]), "q": rank(["a", "c"], [4.0, 0.0])})
    index = Table({"p": {"a": 9.0, "b": 5.5, "x": 99.0}, "q": {"a": 4.0, "c": -0.5, "b": 7.0}}, pruned="b")
    error = score_error(index, QUERIES, exact)
    # -1, +0.5, 0, -0.5; relative to 10, 5, 4, and not to 0. What pruning would have lost is scored too.
    assert (error.mean, error.max, error.bias, error.documents) == (0.5, 1.0, -0.25, 4)
    assert error.relative_mean == pytest.approx((0.1 + 0.1 + 0.0) / 3)
    assert error.relative_max == pytest.approx(0.1)


def test_a_document_that_is_not_scored_is_named():
    exact = Run({"p": rank(["a", "b"], [2.0, 1.0]), "q": rank(["a"], [1.0])})
    index = Table({"p": {"a": 2.0, "b": 1.0}, "q": {"a": 1.0}}, deaf="b")
    with pytest.raises(DataError, match="asked for 2 documents of query 'p' by name, the index found 1; 'b' is not"):
        score_error(index, QUERIES, exact)
    with pytest.raises(DataError, match="found no documents"):
        score_error(index, QUERIES, Run({"p": rank([], []), "q": rank([], [])}))


def test_the_front_by_hand():
    quality = [0.9, 0.9, 0.8, 0.8, 0.7, 0.9]
    cost = [9, 8, 4, 5, 4, 8]
    # The first costs more than the second for the same; the fourth more than the third; the fifth is worse than it.
    assert pareto(quality, cost) == [False, True, True, False, False, True]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_what_is_not_on_the_front_is_beaten_by_something_on_it(points):
    on = pareto([q for q, _ in points], [c for _, c in points])
    front = [point for point, kept in zip(points, on, strict=True) if kept]
    assert front
    for (quality, cost), kept in zip(points, on, strict=True):
        better = [(q, c) for q, c in front if q >= quality and c <= cost and (q, c) != (quality, cost)]
        assert bool(better) != kept
