"""What a query costs in floating-point operations: by formula, and counted while a model runs.

A multiply-add is two operations. The formulas reproduce the ratios of the ColBERT paper (arXiv 2004.12832, Table 1):
re-ranking k documents with BERT-base costs 180, 13,900 and 23,000 times as much as with ColBERT at k = 10, 1,000 and
2,000. They count matrix products only, as the counter does: norms, activations and soft maxima are below 2 %.

A layer whose attention is over a window (two of three of ModernBERT's) counts as if it saw the whole text: that is what
torch computes, and then masks. A kernel that skips what is masked saves some of 2L²h, where L exceeds the window.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# torch counts its fused attention of accelerators, not the processor's.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}


def transformer_flops(length: int, layers: int, hidden: int, intermediate: int | None = None, products: int = 2) -> int:
    """One text of `length` ids through the layers: projections 4Lh², feed-forward 2Lhi, attention 2L²h multiply-adds.

    `intermediate` is the feed-forward's inner dimension i, four times `hidden` where it is None. `products` are those
    between h and i: two, in and out, or 3Lhi of a gated one (GLU, arXiv 2002.05202), which goes in twice.
    """
    inner = 4 * hidden if intermediate is None else intermediate
    return 2 * layers * (4 * length * hidden**2 + products * length * hidden * inner + 2 * length**2 * hidden)


def cross_encoder_flops(
    k: int, length: int, layers: int, hidden: int, intermediate: int | None = None, products: int = 2
) -> int:
    """k pairs, each of `length` ids with its query, through the whole model; the head's h products are left out."""
    return k * transformer_flops(length, layers, hidden, intermediate, products)


def query_flops(
    query_length: int, dim: int | None, layers: int, hidden: int, intermediate: int | None = None, products: int = 2
) -> int:
    """Encoding a query of `query_length` ids and projecting each from `hidden` to `dim`; None: no projection."""
    projection = 0 if dim is None else 2 * query_length * hidden * dim
    return transformer_flops(query_length, layers, hidden, intermediate, products) + projection


def interaction_flops(query_vectors: int, document_vectors: int, dim: int) -> int:
    """All products of `query_vectors` vectors with `document_vectors`, those of all the documents scored together.

    What the compiled kernels compute, which `counted_flops` does not see. 1 and N are a single-vector search.
    """
    return 2 * query_vectors * document_vectors * dim


def late_interaction_flops(
    query_length: int,
    document_vectors: int,
    dim: int,
    layers: int,
    hidden: int,
    intermediate: int | None = None,
    products: int = 2,
    query_vectors: int | None = None,
    projected: bool = True,
) -> int:
    """The query, then MaxSim with `document_vectors` vectors that were encoded before.

    Re-ranking k documents of n vectors each: k·n. Exact search: all vectors of the collection. The residual index
    (PLAID, arXiv 2205.09707): its centroids and the vectors of the last stage's documents, a quarter of `ndocs`; the
    stages between look centroid scores up and multiply nothing. `query_vectors` is how many of the query's positions
    take part, all where it is None; `projected` is False of a model that keeps the backbone's own dimensions.
    """
    encoding = query_flops(query_length, dim if projected else None, layers, hidden, intermediate, products)
    vectors = query_length if query_vectors is None else query_vectors
    return encoding + interaction_flops(vectors, document_vectors, dim)


def single_vector_flops(
    documents: int, query_length: int, layers: int, hidden: int, intermediate: int | None = None, products: int = 2
) -> int:
    """Encoding a query into one vector of `hidden` dimensions, and its product with each document's."""
    encoding = transformer_flops(query_length, layers, hidden, intermediate, products)
    return encoding + interaction_flops(1, documents, hidden)


def shape_of(model: nn.Module) -> tuple[int, int, int, int]:
    """Layers, hidden and inner dimensions and feed-forward products of a transformer, as the formulas take them.

    `model` has a transformers `config`. The products are what a layer's linear maps hold beyond the attention's 4h²,
    in units of hi; two where the model is no plain list of its layers.
    """
    config = model.config
    count, hidden = config.num_hidden_layers, config.hidden_size
    inner = next((getattr(config, n) for n in ("intermediate_size", "hidden_dim") if hasattr(config, n)), 4 * hidden)
    stacks = [one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    if not stacks:
        return count, hidden, inner, 2
    weights = sum(one.weight.numel() for one in stacks[0][0].modules() if isinstance(one, nn.Linear))
    return count, hidden, inner, max(2, round((weights - 4 * hidden**2) / (hidden * inner)))


def counted_flops(call: Callable[[], Any]) -> int:
    """The operations of all matrix products that torch runs in `call`, padding included, in this thread.

    Compiled kernels are not seen: run the encoding in `call` and add `interaction_flops` of what was scored.
    """
    with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        call()
    return counter.get_total_flops()
