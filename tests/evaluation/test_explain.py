"""Explanations: the parts sum to the score of MaxSim, and are the right ones."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import DataError
from colbert_lab.evaluation.explain import explain
from colbert_lab.scoring.maxsim import EMPTY, maxsim
from colbert_lab.scoring.reference import maxsim_loop
from colbert_lab.text.positions import Positions

QUERY = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
DOCUMENT = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
# [CLS] -> 1 0 . ; play ##ing -> 0.6 0.8 and 0 1 ; [MASK] -> -1 0
POSITIONS = Positions.of(["[CLS]", "play", "##ing", "[MASK]"], ["special", "word", "word", "mask"])


def test_a_matrix_worked_out_by_hand():
    found = explain(QUERY, DOCUMENT, POSITIONS, ["a", "b", "##c"])
    expected = [[0.0, 1.0, 1.0], [0.8, 0.6, 0.6], [1.0, 0.0, 0.0], [0.0, -1.0, -1.0]]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-6)
    assert found.best.tolist() == [1, 0, 0, 0]  # of the equal columns 1 and 2 the lower
    np.testing.assert_allclose(found.contributions, [1.0, 0.8, 1.0, 0.0], atol=1e-6)
    assert found.score == pytest.approx(2.8)
    # words: (0.8 + 1.0) / 2.8, special: 1.0 / 2.8
    assert found.shares == pytest.approx({"words": 1.8 / 2.8, "mask": 0.0, "marker": 0.0, "special": 1.0 / 2.8})
    assert found.chosen.tolist() == [3, 1, 0]
    assert found.received.tolist() == pytest.approx([1.8, 1.0, 0.0])


def test_words_sum_their_pieces():
    found = explain(QUERY, DOCUMENT, POSITIONS, ["a", "b", "##c"])
    query = [(part.word.text, round(part.contribution, 6), part.chose) for part in found.query_parts()]
    assert query == [("[CLS]", 1.0, (1,)), ("playing", 1.8, (0, 0)), ("[MASK]", 0.0, (0,))]
    document = [(part.word.text, round(part.contribution, 6), part.chose) for part in found.document_parts()]
    assert document == [("a", 1.8, (1, 2, 3)), ("bc", 1.0, (0,))]


def test_distances():
    found = explain(QUERY[:2], DOCUMENT, ["x", "y"], ["a", "b", "c"], "l2")
    # |(0.6, 0.8) - (0, 1)|^2 = 0.36 + 0.04 = 0.4
    np.testing.assert_allclose(found.contributions, [0.0, -0.4], atol=1e-6)
    assert found.share(float(found.contributions[1])) == pytest.approx(1.0)


def test_a_document_without_vectors():
    found = explain(QUERY, torch.empty(0, 2), POSITIONS, [])
    assert found.best.tolist() == [-1] * 4
    assert found.score == 4 * EMPTY == maxsim(QUERY[None], torch.empty(1, 0, 2)).item()
    assert found.chosen.tolist() == []
    assert found.to_json()["matrix"] == [[], [], [], []]


def test_json_has_the_agreed_keys_and_is_json():
    found = json.loads(json.dumps(explain(QUERY, DOCUMENT, POSITIONS, ["a", "b", "##c"]).to_json()))
    agreed = {"query_tokens", "document_tokens", "matrix", "best", "contributions", "score", "shares"}
    assert agreed <= found.keys()
    assert sum(found["contributions"]) == pytest.approx(found["score"], abs=1e-6)
    assert found["matrix"][1] == [0.8, 0.6, 0.6]


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 9),
    n=st.integers(0, 12),
    d=st.integers(1, 8),
    similarity=st.sampled_from(["cosine", "l2"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    seed=st.integers(0, 10_000),
)
def test_it_is_the_score_of_maxsim(m, n, d, similarity, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    query, document = (torch.randn(count, d, generator=generator) for count in (m, n))
    query, document = (torch.nn.functional.normalize(v, dim=-1).to(dtype) for v in (query, document))
    kinds = [("word", "mask", "marker", "special")[i % 4] for i in range(m)]
    found = explain(query, document, Positions.of(list("abcdefghi")[:m], kinds), [str(i) for i in range(n)], similarity)
    exact = maxsim_loop(query, document, similarity)
    assert found.score == pytest.approx(exact, rel=1e-5, abs=1e-5)
    fast = maxsim(query.float()[None], document.float()[None], similarity=similarity).item()
    assert found.score == pytest.approx(fast, rel=1e-5, abs=1e-5)
    parts = [*found.query_parts()] if n == 0 else [*found.document_parts()]
    assert sum(part.contribution for part in parts) == pytest.approx(found.score, rel=1e-4, abs=1e-4)
    assert sum(found.shares.values()) == pytest.approx(1.0, abs=1e-3) or abs(found.score) < 1e-2
    assert found.chosen.sum() == (m if n else 0)


@pytest.mark.parametrize(
    ("query", "document", "similarity", "told"),
    [
        (["a"], ["b"] * 3, "cosine", "4, 2]"),
        (["a"] * 4, ["b"] * 2, "cosine", "2 tokens"),
        (["a"] * 4, ["b"] * 3, "dot", "cosine, l2"),
    ],
)
def test_what_does_not_fit_is_refused(query, document, similarity, told):
    with pytest.raises(DataError, match=told.replace("]", r"\]")):
        explain(QUERY, DOCUMENT, query, document, similarity)
    with pytest.raises(DataError, match="of one model"):
        explain(QUERY, torch.ones(1, 3), POSITIONS, ["a"])
