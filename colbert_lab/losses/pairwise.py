"""Pairwise losses: a query's positive against its own negatives, pair by pair.

Scores are [B, w], the positive in column 0; with w > 2 the mean over the w - 1 pairs.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def pairwise_hinge(scores: Tensor, margin: float = 1.0) -> Tensor:
    """Mean of max(0, margin - S⁺ + S⁻)."""
    return (margin - scores[:, :1] + scores[:, 1:]).clamp_min(0).mean()


def pairwise_softmax(scores: Tensor) -> Tensor:
    """Mean of -log softmax([S⁺, S⁻])₀ = log(1 + exp(S⁻ - S⁺)), the loss of ColBERT's paper (2004.12832) and code."""
    return F.softplus(scores[:, 1:] - scores[:, :1]).mean()


class PairwiseHinge(nn.Module):
    """`pairwise_hinge` as a term of a loss."""

    scope = "own"

    def __init__(self, margin: float = 1.0, weight: float = 1.0):
        super().__init__()
        self.margin, self.weight = margin, weight

    def forward(self, scores: Tensor) -> Tensor:
        """[B, w] -> scalar."""
        return pairwise_hinge(scores, self.margin)


class PairwiseSoftmax(nn.Module):
    """`pairwise_softmax` as a term of a loss."""

    scope = "own"

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, scores: Tensor) -> Tensor:
        """[B, w] -> scalar."""
        return pairwise_softmax(scores)
