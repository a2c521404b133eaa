"""What a query costs in floating-point operations: by formula, and counted while a model runs.

A multiply-add is two operations. The formulas reproduce the ratios of the ColBERT paper (arXiv 2004.12832, Table 1):
re-ranking k documents with BERT-base costs 180, 13,900 and 23,000 times as much as with ColBERT at k = 10, 1,000 and
2,000. They count matrix products only, as the counter does: norms, activations and soft maxima are below 2 %.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# torch counts its fused attention of accelerators, not the processor's.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}


def transformer_flops(length: int, layers: int, hidden: int, intermediate: int | None = None) -> int:
    """One text of `length` ids through the layers: projections 4Lh², feed-forward 2Lhi, attention 2L²h multiply-adds.

    `intermediate` is the feed-forward's inner dimension i, four times `hidden` where it is None.
    """
    inner = 4 * hidden if intermediate is None else intermediate
    return 2 * layers * (4 * length * hidden**2 + 2 * length * hidden * inner + 2 * length**2 * hidden)


def cross_encoder_flops(k: int, length: int, layers: int, hidden: int, intermediate: int | None = None) -> int:
    """k pairs, each of `length` ids with its query, through the whole model; the head's h products are left out."""
    return k * transformer_flops(length, layers, hidden, intermediate)


def query_flops(query_length: int, dim: int | None, layers: int, hidden: int, intermediate: int | None = None) -> int:
    """Encoding a query of `query_length` ids and projecting each from `hidden` to `dim`; None: no projection."""
    projection = 0 if dim is None else 2 * query_length * hidden * dim
    return transformer_flops(query_length, layers, hidden, intermediate) + projection


def interaction_flops(query_vectors: int, document_vectors: int, dim: int) -> int:
    """All products of `query_vectors` vectors with `document_vectors`, those of all the documents scored together.

    What the compiled kernels compute, which `counted_flops` does not see. 1 and N are a single-vector search.
    """
    return 2 * query_vectors * document_vectors * dim


def late_interaction_flops(
    k: int,
    query_length: int,
    document_length: int,
    dim: int,
    layers: int,
    hidden: int,
    intermediate: int | None = None,
) -> int:
    """Re-ranking k documents of `document_length` vectors, encoded before: the query, then MaxSim with each."""
    encoding = query_flops(query_length, dim, layers, hidden, intermediate)
    return encoding + interaction_flops(query_length, k * document_length, dim)


def single_vector_flops(
    documents: int, query_length: int, layers: int, hidden: int, intermediate: int | None = None
) -> int:
    """Encoding a query into one vector of `hidden` dimensions, and its product with each document's."""
    return transformer_flops(query_length, layers, hidden, intermediate) + interaction_flops(1, documents, hidden)


def exact_search_flops(
    query_length: int, document_vectors: int, dim: int, layers: int, hidden: int, intermediate: int | None = None
) -> int:
    """End to end by MaxSim with every document: `document_vectors` is how many vectors the collection has."""
    encoding = query_flops(query_length, dim, layers, hidden, intermediate)
    return encoding + interaction_flops(query_length, document_vectors, dim)


def residual_search_flops(
    query_length: int,
    centroids: int,
    scored_vectors: int,
    dim: int,
    layers: int,
    hidden: int,
    intermediate: int | None = None,
) -> int:
    """End to end over the residual index (PLAID, arXiv 2205.09707): centroid scores 2·K·m·d, then exact scores.

    `scored_vectors` is how many vectors the documents of the last stage have, of which there are a quarter of
    `ndocs`. The stages between look centroid scores up and multiply nothing.
    """
    encoding = query_flops(query_length, dim, layers, hidden, intermediate)
    return encoding + interaction_flops(query_length, centroids + scored_vectors, dim)


def counted_flops(call: Callable[[], Any]) -> int:
    """The operations of all matrix products that torch runs in `call`, padding included, in this thread.

    Compiled kernels are not seen: run the encoding in `call` and add `interaction_flops` of what was scored.
    """
    with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        call()
    return counter.get_total_flops()
