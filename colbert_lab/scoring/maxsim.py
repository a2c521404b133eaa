"""MaxSim, the late interaction: sum over query vectors of the best similarity to a document's vectors.

    all pairs   queries [B, m, d], documents [N, n, d]     -> [B, N]     maxsim
    paired      queries [B, m, d], documents [B, n, d]     -> [B]        maxsim_paired
    grouped     queries [B, m, d], documents [B, w, n, d]  -> [B, w]     maxsim_grouped
    ragged      Ragged of B queries, Ragged of N documents -> [B, N]     maxsim_ragged

One implementation serves training and search. Masks are True where a vector counts. A masked document vector is out of
the running before the maximum is taken (a zero in its place would beat every negative similarity); a masked query
vector adds nothing to the sum. The sum is taken in fp32 (fp64 for fp64 inputs) whatever the inputs' dtype: rounding a
sum of 32 terms in 16 bits loses more than 16-bit vectors do. ColBERT, arXiv 2004.12832, section 3.3.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged

Similarity = Literal["cosine", "l2"]

# What the best match of a query vector is worth where a document has no vector at all: below any similarity of unit
# vectors (-1; -4 for squared distances) and still finite in every dtype, so that an empty document ranks last and
# neither scores nor gradients become infinite.
EMPTY = -1e4

# Similarities alive at once, in elements: 2**26 are 256 MB in fp32.
_TILE_ELEMENTS = 2**26


def maxsim(
    queries: Tensor,
    documents: Tensor,
    query_mask: Tensor | None = None,
    document_mask: Tensor | None = None,
    similarity: Similarity = "cosine",
    tile_elements: int = _TILE_ELEMENTS,
) -> Tensor:
    """Score every query against every document: [B, m, d] and [N, n, d] give [B, N].

    `query_mask` is [B, m], `document_mask` [N, n]. "cosine" takes dot products (of unit vectors, their cosine); "l2"
    minus the squared distance. At most `tile_elements` similarities exist at once, forward and backward: the
    documents are taken in tiles.
    """
    _check(queries, documents, similarity)
    b, m, d = queries.shape
    count, n, _ = documents.shape
    tile = max(1, tile_elements // max(1, b * m * n))
    flat = queries.reshape(b * m, d)
    parts = []
    for start in range(0, count, tile):
        tiled = documents[start : start + tile]
        mask = None if document_mask is None else document_mask[start : start + tile]
        products = flat @ tiled.reshape(-1, d).T
        parts.append(_reduce(products.view(b, m, len(tiled), n), queries, tiled, query_mask, mask, similarity))
    return torch.cat(parts, dim=1) if parts else queries.new_zeros(b, 0, dtype=_sum_dtype(queries))


def maxsim_grouped(
    queries: Tensor,
    documents: Tensor,
    query_mask: Tensor | None = None,
    document_mask: Tensor | None = None,
    similarity: Similarity = "cosine",
) -> Tensor:
    """Score each query against its own w documents: [B, m, d] and [B, w, n, d] give [B, w]; masks [B, m], [B, w, n]."""
    _check(queries, documents, similarity)
    b, w, n, d = documents.shape
    products = torch.bmm(queries, documents.reshape(b, w * n, d).transpose(1, 2)).view(b, queries.shape[1], w, n)
    return _reduce(products, queries, documents, query_mask, document_mask, similarity)


def maxsim_paired(
    queries: Tensor,
    documents: Tensor,
    query_mask: Tensor | None = None,
    document_mask: Tensor | None = None,
    similarity: Similarity = "cosine",
) -> Tensor:
    """Score query i against document i: [B, m, d] and [B, n, d] give [B]; masks [B, m] and [B, n]."""
    mask = None if document_mask is None else document_mask[:, None]
    return maxsim_grouped(queries, documents[:, None], query_mask, mask, similarity)[:, 0]


@torch.no_grad()
def maxsim_ragged(
    queries: Ragged, documents: Ragged, similarity: Similarity = "cosine", tile_elements: int = _TILE_ELEMENTS
) -> Tensor:
    """Score every query of a Ragged against every document of another: [B, N] in fp32, without gradients.

    Documents are taken in tiles of similar length, each padded by repeating a document's last vector, which changes no
    maximum and needs no mask. The order of the documents in `documents` does not matter to the result.
    """
    _check(queries.values[None], documents.values[None], similarity)
    values = queries.values.to(_sum_dtype(documents.values))
    scores = values.new_empty(len(queries), len(documents))
    segments = torch.arange(len(queries), device=values.device)
    segments = segments.repeat_interleave(queries.lengths.to(values.device))
    norms = values.square().sum(1) if similarity == "l2" else None
    for rows, tile in _tiles(documents, len(values), tile_elements):
        best = _best_matches(values, tile.to(values.dtype), norms)
        tile_scores = values.new_zeros(len(queries), len(rows)).index_add_(0, segments, best)
        scores[:, rows.to(values.device)] = tile_scores
    empty = (documents.lengths == 0).nonzero()[:, 0].to(values.device)
    scores[:, empty] = EMPTY * queries.lengths.to(scores)[:, None]
    return scores


def compute_relevance_scores(
    query_embeddings: Tensor,
    document_embeddings: Tensor,
    k: int,
    mask: Tensor | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Rank documents [N, n, d] for one query [m, d]: the numbers of the best min(k, N), best first.

    `mask` [N, n] is True where a document vector counts; without it all count. With `return_scores` the scores come
    too. Equal scores keep the documents' order.
    """
    if k < 1:
        raise ConfigError(f"k is {k}, but at least one document must be asked for")
    scores = maxsim(query_embeddings[None], document_embeddings, document_mask=mask)[0]
    order = scores.argsort(descending=True, stable=True)[:k]
    return (order, scores[order]) if return_scores else order


def _reduce(
    products: Tensor,
    queries: Tensor,
    documents: Tensor,
    query_mask: Tensor | None,
    document_mask: Tensor | None,
    similarity: Similarity,
) -> Tensor:
    """Dot products [B, m, N, n] to scores [B, N]; documents and their mask are [(B,) N, n, ...]."""
    dtype = _sum_dtype(products)
    if similarity == "l2":
        q2 = queries.to(dtype).square().sum(-1)[:, :, None, None]
        d2 = documents.to(dtype).square().sum(-1)
        products = 2 * products.to(dtype) - q2 - (d2[:, None] if d2.dim() == 3 else d2[None, None])
    if document_mask is not None:
        masked = ~document_mask
        products = products.masked_fill(masked[:, None] if masked.dim() == 3 else masked[None, None], EMPTY)
    if not products.shape[-1]:
        products = F.pad(products, (0, 1), value=EMPTY)  # all documents are empty: no maximum could be taken
    # max() rather than amax(): for the backward pass it keeps the positions [B, m, N], not the similarities.
    best = products.max(dim=-1).values.to(dtype)
    if query_mask is not None:
        best = best.masked_fill(~query_mask[:, :, None], 0.0)
    return best.sum(dim=1)


def _tiles(documents: Ragged, query_vectors: int, tile_elements: int):
    """Groups of non-empty documents of similar length: (numbers [N'], vectors [N', n, d] padded by repetition)."""
    lengths = documents.lengths
    order = lengths.argsort(stable=True)
    order = order[int((lengths == 0).sum()) :]
    ordered = lengths[order]
    starts = documents.offsets[order]
    # Small enough that a tile's similarities stay near the cache, large enough that the product is worth its call.
    budget = max(1, min(tile_elements, 2**21) // max(1, query_vectors))
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and (last + 1 - first) * int(ordered[last]) <= budget:
            last += 1
        n = int(ordered[last - 1])
        within = torch.minimum(torch.arange(n)[None, :], ordered[first:last, None] - 1)
        yield order[first:last], documents.values[(starts[first:last, None] + within).to(documents.values.device)]
        first = last


def _best_matches(queries: Tensor, tile: Tensor, norms: Tensor | None) -> Tensor:
    """For query vectors [M, d] and documents [N, n, d] the largest similarity [M, N]; `norms` are |q|², for l2."""
    count, n, d = tile.shape
    products = tile.reshape(-1, d) @ queries.T
    if norms is not None:
        products = 2 * products - norms - tile.reshape(-1, d).square().sum(1)[:, None]
    return products.view(count, n, -1).amax(1).T


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _check(queries: Tensor, documents: Tensor, similarity: str) -> None:
    if queries.shape[-1] != documents.shape[-1]:
        raise ConfigError(f"query vectors have {queries.shape[-1]} dimensions, document vectors {documents.shape[-1]}")
    if similarity not in ("cosine", "l2"):
        raise ConfigError(f"similarity is {similarity!r}, but must be 'cosine' or 'l2'")
