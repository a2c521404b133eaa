"""Re-ranking: the candidates and no others, with their exact scores."""

import numpy as np
import pytest
import torch

from colbert_lab.errors import DataError
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run, rank
from colbert_lab.scoring.reference import maxsim_loop
from colbert_lab.search.rerank import gathered, rerank

IDS = ["d0", "d1", "d2", "d3", "d4", "d5"]


def vectors(seed, lengths):
    values = torch.randn(sum(lengths), 8, generator=torch.Generator().manual_seed(seed))
    return Ragged(torch.nn.functional.normalize(values, dim=-1), torch.tensor(lengths))


DOCUMENTS, QUERIES = vectors(0, [3, 2, 4, 0, 1, 5]), vectors(1, [4, 3])
CANDIDATES = Run({"b": rank(["d5", "d1", "d0"], [9, 8, 7]), "a": rank(["d2", "d3", "d4", "d1"], [4, 3, 2, 1])}, depth=4)


def embeddings(ids):
    return DOCUMENTS.select([IDS.index(i) for i in ids])


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
@pytest.mark.parametrize("k", [1, 2, 100])
def test_the_best_k_are_scored_exactly(similarity, k):
    found = rerank(CANDIDATES, QUERIES, gathered(embeddings, similarity), k)
    assert list(found) == ["b", "a"]
    assert found.depth == min(k, 4)
    for query, vectors_ in zip(("b", "a"), QUERIES):
        expected = {i: maxsim_loop(vectors_, DOCUMENTS[IDS.index(i)], similarity) for i in CANDIDATES[query].ids[:k]}
        assert list(found[query].ids) == sorted(expected, key=lambda i: -expected[i])
        np.testing.assert_allclose(found[query].scores, [expected[i] for i in found[query].ids], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_scores_are_those_of_a_search(tmp_path, dtype):
    kind = ExactIndexKind(dtype)
    writer = kind.writer(tmp_path, 8, "cosine")
    writer.append(IDS, DOCUMENTS)
    writer.finish()
    index = kind.open(tmp_path)
    whole = index.search(["b", "a"], QUERIES, 6)
    found = rerank(CANDIDATES, QUERIES, index.scores, 4)
    for query in found:
        kept = whole[query].without(set(IDS) - set(CANDIDATES[query].ids))
        assert found[query].ids == kept.ids
        np.testing.assert_allclose(found[query].scores, kept.scores, rtol=1e-6)


def test_equal_scores_are_ordered_by_id():
    run = Run({"q": Hits(("z", "a", "m"), np.array([3.0, 2.0, 1.0]))})
    same = vectors(0, [3])
    found = rerank(run, QUERIES[:1], gathered(lambda ids: Ragged.cat([same] * len(ids))), 3)
    assert found["q"].ids == ("a", "m", "z")


def test_a_query_without_candidates_stays_without():
    run = Run({"b": rank([], []), "a": CANDIDATES["a"]})
    found = rerank(run, QUERIES, gathered(embeddings), 3)
    assert len(found["b"]) == 0
    assert len(found["a"]) == 3


def test_as_many_queries_as_the_run_has():
    with pytest.raises(DataError, match="the run has 2 queries, but embeddings of 1"):
        rerank(CANDIDATES, QUERIES[:1], gathered(embeddings), 3)
