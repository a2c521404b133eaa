"""Which scores a query's positive competes with: columns picked from a matrix of scores.

Documents are query-major: query i brings documents i·w .. i·w + w - 1, its positive first.
"""

from typing import Literal

import torch
from torch import Tensor

OwnNegatives = Literal["drop", "keep"]


def own_columns(scores: Tensor, width: int) -> Tensor:
    """The scores of each query's own documents, [B, w], from all pairs [B, B·w]."""
    b = scores.shape[0]
    return scores.view(b, b, width).diagonal(dim1=0, dim2=1).T


def in_batch_columns(batch: int, width: int, own_negatives: OwnNegatives = "drop", device=None) -> Tensor:
    """Which of the B·w documents are a query's candidates in the in-batch loss: [B, B·w], True where one is.

    Always its own positive and every document of every other query. Its own w - 1 negatives stay out with "drop"
    (Stanford's ColBERTv2: B·w - w + 1 candidates), and are in with "keep" (PyLate, Sentence Transformers: B·w).
    """
    keep = torch.ones(batch, batch, width, dtype=torch.bool, device=device)
    if own_negatives == "drop":
        own = torch.arange(batch, device=device)
        keep[own, own, 1:] = False
    return keep.view(batch, batch * width)
