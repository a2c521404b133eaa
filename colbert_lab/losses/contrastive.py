"""Contrastive losses: cross-entropy of the positive among several candidates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colbert_lab.losses.columns import OwnNegatives, in_batch_columns


def nway_cross_entropy(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean of -log softmax(S / temperature)₀ over [B, w], positive in column 0; ColBERTv2 without teacher scores."""
    labels = scores.new_zeros(len(scores), dtype=torch.long)
    return F.cross_entropy(scores / temperature, labels)


def in_batch_cross_entropy(
    scores: Tensor,
    width: int,
    own_negatives: OwnNegatives = "drop",
    temperature: float = 1.0,
    excluded: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Cross-entropy of each query's positive among the documents of the whole batch.

    `scores` is [B, B_joint·w], query-major; `in_batch_columns` says which columns are candidates. `excluded`, of the
    same shape, is True where a document is known to be another positive of the query: it is no negative. The query's
    own positive, column (offset + i)·w of query i, stays. B_joint is B and `offset` 0 in one process; where processes
    share their documents, B_joint counts the queries of all, and `offset` is the place of the first of these B.
    """
    batch = len(scores)
    labels = (offset + torch.arange(batch, device=scores.device)) * width
    joint = scores.shape[1] // width
    candidates = in_batch_columns(batch, width, own_negatives, scores.device, offset, joint)
    if excluded is not None:
        candidates = candidates & ~excluded
        candidates[torch.arange(batch, device=scores.device), labels] = True
    logits = (scores / temperature).masked_fill(~candidates, float("-inf"))
    return F.cross_entropy(logits, labels)


class NWay(nn.Module):
    """`nway_cross_entropy` as a term of a loss."""

    scope = "own"

    def __init__(self, temperature: float = 1.0, weight: float = 1.0):
        super().__init__()
        self.temperature, self.weight = temperature, weight

    def forward(self, scores: Tensor) -> Tensor:
        """[B, w] -> scalar."""
        return nway_cross_entropy(scores, self.temperature)


class InBatch(nn.Module):
    """`in_batch_cross_entropy` as a term of a loss."""

    scope = "batch"

    def __init__(self, own_negatives: OwnNegatives = "drop", temperature: float = 1.0, weight: float = 1.0):
        super().__init__()
        self.own_negatives, self.temperature, self.weight = own_negatives, temperature, weight

    def forward(self, scores: Tensor, width: int, excluded: Tensor | None = None, offset: int = 0) -> Tensor:
        """[B, B_joint·w] -> scalar."""
        return in_batch_cross_entropy(scores, width, self.own_negatives, self.temperature, excluded, offset)
