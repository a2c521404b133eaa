"""An ensemble of teachers: several teachers' scores of the same pairs as one, brought to one scale query by query."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from colbert_lab.errors import ConfigError, DataError

Normalise = Literal["none", "z_score", "min_max"]
# Pairs that are worked on at once, in double precision.
_BLOCK = 2**20


def combine(
    scores: Sequence[np.ndarray],
    offsets: Sequence[int] | np.ndarray,
    normalise: Normalise = "none",
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """The ensemble of teachers: the weighted mean (by default equal weights) of their scores, float32 [P].

    `scores` holds one array [P] a teacher; query q has the pairs offsets[q] to offsets[q + 1]. "z_score" takes off a
    query's mean and divides by its (population) deviation, "min_max" maps its scores to 0 .. 1; where all of a query's
    scores are equal they become 0. ConfigError for wrong weights, DataError for scores that do not fit together.
    """
    offsets = np.asarray(offsets, dtype=np.int64)
    weights = [1.0] * len(scores) if weights is None else list(weights)
    problems = []
    if normalise not in get_args(Normalise):
        problems.append(f"normalise is {normalise!r}, it can be {', '.join(get_args(Normalise))}")
    if len(weights) != len(scores) or not all(0 <= w < np.inf for w in weights) or not sum(weights) > 0:
        problems.append(f"weights are {weights}, there must be one for each of {len(scores)} teachers, not all 0")
    if problems:
        raise ConfigError(problems, "the ensemble")
    count = int(offsets[-1]) if len(offsets) else 0
    if not len(offsets) or offsets[0] or (np.diff(offsets) < 0).any() or any(len(s) != count for s in scores):
        raise DataError(f"queries own {count} pairs, but there are {[len(s) for s in scores]} scores")
    combined = np.empty(count, dtype=np.float32)
    for queries in _blocks(offsets):
        own = offsets[queries]
        pairs = slice(own[0], own[-1])
        total = np.zeros(own[-1] - own[0])
        for part, weight in zip(scores, weights):
            some = np.asarray(part[pairs], dtype=np.float64)
            if not np.isfinite(some).all():
                raise DataError("a teacher's score is not a finite number")
            total += weight * _normalised(some, own - own[0], normalise)
        combined[pairs] = total / sum(weights)
    return combined


def _blocks(offsets: np.ndarray) -> Iterator[slice]:
    """The offsets in slices of whole queries, the last offset of one the first of the next."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _BLOCK)))
        last = min(last, len(offsets) - 1)
        yield slice(first, last + 1)
        first = last


def _normalised(scores: np.ndarray, offsets: np.ndarray, normalise: Normalise) -> np.ndarray:
    lengths = np.diff(offsets)
    # reduceat would take an empty segment for one of length 1.
    starts, lengths = offsets[:-1][lengths > 0], lengths[lengths > 0]
    if normalise == "none" or not len(starts):
        return scores
    least, most = np.minimum.reduceat(scores, starts), np.maximum.reduceat(scores, starts)
    if normalise == "min_max":
        centre, scale = least, most - least
    else:
        centre = np.add.reduceat(scores, starts) / lengths
        scale = np.sqrt(np.add.reduceat((scores - centre.repeat(lengths)) ** 2, starts) / lengths)
    # By the extremes: the deviation of equal scores is not quite 0 where their mean was rounded.
    constant = (least == most).repeat(lengths)
    scale = np.where(constant, 1.0, scale.repeat(lengths))
    return np.where(constant, 0.0, (scores - centre.repeat(lengths)) / scale)
