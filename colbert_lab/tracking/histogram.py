"""Histograms: many values as counts between edges, small enough to be kept at every step that is logged."""

import math
from bisect import bisect_right
from collections.abc import Sequence

BINS = 32


def binned(values: Sequence[float], edges: Sequence[float] | None = None) -> tuple[list[int], list[float]]:
    """Counts [b] of the finite values between `edges` [b + 1], the last edge included; and the edges.

    By default `edges_of` the values. Values outside of given edges are counted in the nearest bin. Both are empty where
    no value is finite and no edges are given.
    """
    edges = edges_of(values) if edges is None else list(edges)
    if not edges:
        return [], []
    counts = [0] * (len(edges) - 1)
    for value in values:
        if math.isfinite(value):
            counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return counts, edges


def edges_of(*samples: Sequence[float], bins: int = BINS) -> list[float]:
    """Edges [bins + 1] of equal width over the finite values of all samples, so that they can be laid over each other.

    Where all values are equal the bins span 1 around them; no edges where there is no finite value.
    """
    finite = [value for sample in samples for value in sample if math.isfinite(value)]
    if not finite:
        return []
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Not low + i * width: the last edge must be the greatest value itself.
    return [low * (1 - i / bins) + high * (i / bins) for i in range(bins + 1)]
