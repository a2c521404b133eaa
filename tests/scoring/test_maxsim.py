"""MaxSim: all four forms are the loop, whatever the masks, padding, dtype and tiles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize, pad
from torch.utils._python_dispatch import TorchDispatchMode

from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged
from colbert_lab.scoring.maxsim import (
    EMPTY,
    compute_relevance_scores,
    maxsim,
    maxsim_grouped,
    maxsim_paired,
    maxsim_ragged,
)
from colbert_lab.scoring.reference import maxsim_loop

SIMILARITIES = ["cosine", "l2"]
# Largest error of one similarity of unit vectors: that of 2 q·d, a product just above 1 rounded to the dtype.
ERROR = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def vectors(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def mask(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def loop(queries, documents, query_mask, document_mask, similarity):
    """[B, N] by the loop, over what the masks leave."""
    return torch.tensor(
        [
            [maxsim_loop(q[kept], d[left], similarity) for d, left in zip(documents, document_mask)]
            for q, kept in zip(queries, query_mask)
        ],
        dtype=torch.float64,
    )


def close(found, expected, dtype, m):
    # An empty document's scores are multiples of EMPTY, which 16 bits hold to within 2**-9 of it.
    bound = ERROR[dtype] * m + (expected.abs() * ERROR[dtype] if dtype != torch.float64 else 0)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((found.double() - expected).abs() <= bound + 1e-12 * expected.abs()).all(), (found, expected)


@st.composite
def cases(draw):
    b, m, count, n, d = (draw(st.integers(1, top)) for top in (3, 4, 4, 5, 8))
    seed = draw(st.integers(0, 10**6))
    queries, documents = vectors(seed, b, m, d), vectors(seed + 1, count, n, d)
    if draw(st.booleans()):
        # Every similarity is negative: a zero anywhere would win.
        queries, documents = queries.abs(), -documents.abs()
    query_mask, document_mask = mask(seed + 2, b, m), mask(seed + 3, count, n)
    if draw(st.booleans()):
        document_mask[draw(st.integers(0, count - 1))] = False
    dtype, similarity = draw(st.sampled_from(list(ERROR))), draw(st.sampled_from(SIMILARITIES))
    return queries.to(dtype), documents.to(dtype), query_mask, document_mask, dtype, similarity


@settings(max_examples=150, deadline=None)
@given(cases())
def test_all_forms_are_the_loop(case):
    queries, documents, query_mask, document_mask, dtype, similarity = case
    b, m, _ = queries.shape
    expected = loop(queries, documents, query_mask, document_mask, similarity)
    close(maxsim(queries, documents, query_mask, document_mask, similarity), expected, dtype, m)
    close(maxsim(queries, documents, query_mask, document_mask, similarity, tile_elements=1), expected, dtype, m)
    many = documents[None].expand(b, *documents.shape)
    masks = document_mask[None].expand(b, *document_mask.shape)
    close(maxsim_grouped(queries, many, query_mask, masks, similarity), expected, dtype, m)
    for column in range(len(documents)):
        one = maxsim_paired(queries, many[:, column], query_mask, masks[:, column], similarity)
        close(one, expected[:, column], dtype, m)
    ragged_queries = Ragged.from_padded(queries, query_mask)
    ragged_documents = Ragged.from_padded(documents, document_mask)
    for tile in (1, 7, 2**26):
        close(maxsim_ragged(ragged_queries, ragged_documents, similarity, tile), expected, dtype, m)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 3), st.floats(-2, 2))
def test_padding_changes_nothing(case, more, filling):
    queries, documents, query_mask, document_mask, _, similarity = case
    before = maxsim(queries.double(), documents.double(), query_mask, document_mask, similarity)
    after = maxsim(
        pad(queries.double(), (0, 0, 0, more), value=filling),
        pad(documents.double(), (0, 0, 0, more), value=filling),
        pad(query_mask, (0, more)),
        pad(document_mask, (0, more)),
        similarity,
    )
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_documents_of_no_length_at_all_are_empty(similarity):
    queries, documents = vectors(0, 2, 3, 4), torch.zeros(5, 0, 4, dtype=torch.float64)
    empty = torch.full((2, 5), 3 * EMPTY, dtype=torch.float64)
    assert torch.equal(maxsim(queries, documents, similarity=similarity), empty)
    assert torch.equal(maxsim_grouped(queries, documents.expand(2, 5, 0, 4), similarity=similarity), empty)
    assert maxsim(queries, documents[:0]).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_an_empty_document_is_last_and_its_score_finite(dtype, similarity):
    queries, documents = vectors(0, 2, 32, 8).to(dtype), -vectors(1, 3, 4, 8).to(dtype)
    keep = torch.ones(3, 4, dtype=torch.bool)
    keep[1] = False
    scores = maxsim(queries, documents, document_mask=keep, similarity=similarity)
    assert torch.isfinite(scores).all()
    assert (scores.argmin(1) == 1).all()


def test_the_sum_is_not_taken_in_16_bits():
    # 300 matches of 1: bf16 cannot count beyond 256, fp16's steps are 1/4 there.
    for dtype in (torch.bfloat16, torch.float16):
        one = torch.zeros(1, 301, 4, dtype=dtype)
        one[..., 0] = 1
        assert maxsim(one, one).item() == 301
        assert maxsim_paired(one, one).item() == 301
        assert maxsim_ragged(Ragged.from_list(one), Ragged.from_list(one)).item() == 301


def test_l2_is_cosine_with_another_scale_on_unit_vectors():
    queries, documents = vectors(0, 3, 5, 8), vectors(1, 4, 6, 8)
    keep = mask(2, 4, 6) | (torch.arange(6) == 0)
    cosine, l2 = (maxsim(queries, documents, document_mask=keep, similarity=s) for s in SIMILARITIES)
    torch.testing.assert_close(l2, 2 * cosine - 2 * 5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_order_of_documents_and_vectors_does_not_matter(similarity):
    queries, documents = vectors(0, 3, 5, 8), [vectors(i, n, 8) for i, n in enumerate((3, 0, 9, 1, 4, 3))]
    scores = maxsim_ragged(Ragged.from_list(queries), Ragged.from_list(documents), similarity)
    order = [4, 1, 0, 5, 3, 2]
    moved = Ragged.from_list([documents[i].flip(0) for i in order])
    again = maxsim_ragged(Ragged.from_list(queries.flip(1)), moved, similarity)
    torch.testing.assert_close(again, scores[:, order])


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("tile", [1, 2**26])
def test_gradients(similarity, tile):
    queries, documents = vectors(0, 2, 3, 4).requires_grad_(), vectors(1, 3, 4, 4).requires_grad_()
    query_mask, keep = mask(2, 2, 3), mask(3, 3, 4)
    keep[1] = False

    def score(q, d):
        return maxsim(q, d, query_mask, keep, similarity, tile)

    def score_grouped(q, d):
        return maxsim_grouped(q, d[None].expand(2, 3, 4, 4), query_mask, keep[None].expand(2, 3, 4), similarity)

    assert torch.autograd.gradcheck(score, (queries, documents))
    assert torch.autograd.gradcheck(score_grouped, (queries, documents))
    score(queries, documents).square().sum().backward()
    assert torch.isfinite(queries.grad).all()
    assert (queries.grad[~query_mask] == 0).all()
    assert (documents.grad[~keep] == 0).all()
    assert (queries.grad[query_mask] != 0).any(1).all()
    assert (documents.grad[0] != 0).any()


class Largest(TorchDispatchMode):
    """The largest storage, in elements of 4 bytes, that any operation's result lies in."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_no_more_similarities_than_asked_for_exist_at_once(similarity):
    # 8 x 16 x 32 x 64 = 262,144 similarities, of inputs with 8 x 16 x 4 and 32 x 64 x 4 = 8,192 elements.
    queries, documents = vectors(0, 8, 16, 4).float().requires_grad_(), vectors(1, 32, 64, 4).float().requires_grad_()
    keep = mask(2, 32, 64)
    bound = 2**15
    with Largest() as largest:
        maxsim(queries, documents, None, keep, similarity, tile_elements=bound).sum().backward()
    assert largest.elements <= bound
    with Largest() as ragged:
        maxsim_ragged(Ragged.from_list(queries.detach()), Ragged.from_list(documents.detach()), similarity, bound)
    assert ragged.elements <= bound
    with Largest() as whole:
        maxsim(queries, documents, None, keep, similarity)
    assert whole.elements == 8 * 16 * 32 * 64


def test_relevance_scores():
    query, documents = vectors(0, 3, 4), vectors(1, 6, 5, 4)
    keep = mask(2, 6, 5) | (torch.arange(5) == 0)
    expected = loop(query[None], documents, torch.ones(1, 3, dtype=torch.bool), keep, "cosine")[0]
    order, scores = compute_relevance_scores(query, documents, 4, keep, return_scores=True)
    assert order.tolist() == expected.argsort(descending=True)[:4].tolist()
    torch.testing.assert_close(scores, expected[order])
    assert torch.equal(compute_relevance_scores(query, documents, 4, keep), order)
    unmasked = loop(query[None], documents, torch.ones(1, 3, dtype=torch.bool), keep | True, "cosine")[0]
    assert compute_relevance_scores(query, documents, 1000).tolist() == unmasked.argsort(descending=True).tolist()


def test_relevance_scores_keep_the_order_of_equal_documents():
    query, document = vectors(0, 3, 4), vectors(1, 1, 5, 4)
    better = query[None, [0, 1, 2, 2, 2]]
    documents = torch.cat([document, document, better, document, better])
    assert compute_relevance_scores(query, documents, 5).tolist() == [2, 4, 0, 1, 3]


@pytest.mark.parametrize("k", [0, -1])
def test_at_least_one_document_is_asked_for(k):
    with pytest.raises(ConfigError, match=f"k is {k}"):
        compute_relevance_scores(vectors(0, 3, 4), vectors(1, 2, 5, 4), k)


def test_vectors_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="4 dimensions, document vectors 8"):
        maxsim(vectors(0, 1, 3, 4), vectors(1, 2, 5, 8))
    with pytest.raises(ConfigError, match="'dot'"):
        maxsim(vectors(0, 1, 3, 4), vectors(1, 2, 5, 4), similarity="dot")
