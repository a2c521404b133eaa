"""Which scores a query's positive competes with: columns picked from a matrix of scores.

Documents are query-major: query i brings documents i·w .. i·w + w - 1, its positive first. Where several processes
share their documents, a process has rows for its own B queries only and columns for the joint batch's documents;
`offset` is then the place of its first query in the joint batch, and query i's own documents are in group offset + i.
"""

from typing import Literal

import torch
from torch import Tensor

OwnNegatives = Literal["drop", "keep"]


def own_columns(scores: Tensor, width: int, offset: int = 0) -> Tensor:
    """The scores of each query's own documents, [B, w], from all pairs [B, B_joint·w]; B_joint is B in one process."""
    # narrow() refuses an offset beyond the joint batch, where a diagonal would just come out shorter.
    grouped = scores.unflatten(1, (-1, width)).narrow(1, offset, len(scores))
    return grouped.diagonal(dim1=0, dim2=1).T


def in_batch_columns(
    batch: int,
    width: int,
    own_negatives: OwnNegatives = "drop",
    device=None,
    offset: int = 0,
    joint: int | None = None,
) -> Tensor:
    """Which documents are a query's candidates in the in-batch loss: [B, B_joint·w], True where one is.

    Always its own positive and every document of every other query. Its own w - 1 negatives stay out with "drop"
    (Stanford's ColBERTv2: B_joint·w - w + 1 candidates), and are in with "keep" (PyLate, Sentence Transformers: all).
    `joint` is B_joint, the queries of all processes together; without it, `batch`.
    """
    joint = batch if joint is None else joint
    keep = torch.ones(batch, joint, width, dtype=torch.bool, device=device)
    if own_negatives == "drop":
        own = torch.arange(batch, device=device)
        keep[own, offset + own, 1:] = False
    return keep.view(batch, joint * width)
