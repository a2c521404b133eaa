"""Samplers: which negatives of a pool a tuple takes.

How ColBERTv2 drew its 63 negatives out of the top 500 was never published (stanford-futuredata/ColBERT #94, #170,
#406); these rules are ours. All but Hardest draw without replacement, so that every epoch sees others.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from colbert_lab.errors import ConfigError, DataError


class Sampler(Protocol):
    """Chooses among the n negatives of a pool, given their `ranks` [n] in the run and teacher's `scores` [n]."""

    def draw(
        self, rng: np.random.Generator, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int
    ) -> np.ndarray:
        """[count] int64, different places 0 .. n-1, ascending; a function of the arguments and the state of `rng`.

        DataError where fewer than `count` can be drawn.
        """
        ...

    def available(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float) -> int:
        """How many of the n can be drawn at most."""
        ...

    def refilled(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int) -> int:
        """How many of `count` come from another band than the weights ask for, as that has too few."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its name and its parameters, as JSON."""
        ...


class Uniform:
    """Every negative is as likely as any other."""

    def draw(
        self, rng: np.random.Generator, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int
    ) -> np.ndarray:
        """See Sampler."""
        return _draw(rng, [np.arange(len(ranks))], [1.0], count)

    def available(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float) -> int:
        """All of them."""
        return len(ranks)

    def refilled(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int) -> int:
        """None: there is one band."""
        return 0

    def describe(self) -> dict[str, Any]:
        """The name."""
        return {"sampler": "Uniform"}


class Hardest:
    """The negatives that rank best, always the same ones.

    A model that sees only these learns the top of one ranking, false negatives first; it is here to be compared with.
    """

    def draw(
        self, rng: np.random.Generator, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int
    ) -> np.ndarray:
        """See Sampler; `rng` is not used."""
        _enough(len(ranks), count)
        return np.sort(np.argsort(ranks, kind="stable")[:count])

    def available(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float) -> int:
        """All of them."""
        return len(ranks)

    def refilled(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int) -> int:
        """None: there is one band."""
        return 0

    def describe(self) -> dict[str, Any]:
        """The name."""
        return {"sampler": "Hardest"}


class RankBands:
    """So many from each band of ranks: `bands` are [first, last, weight], ranks counted from 1, both included.

    A band's share of a tuple is its weight's, rounded by largest remainder (so a tuple with one negative takes it from
    the heaviest band); what a band lacks is taken from the others, by their weights. Ranks in no band are never drawn.
    ConfigError for bands that overlap or make no sense.
    """

    def __init__(self, bands: Sequence[Sequence[float]] = ((1, 10, 1.0), (11, 50, 2.0), (51, 1000, 1.0))):
        self._bands = _checked("RankBands", bands, "[first, last, weight]")
        problems = [
            f"the band {list(band)} must be whole ranks, counted from 1, first <= last"
            for band in self._bands
            if not (1 <= band[0] <= band[1] and float(band[0]).is_integer() and float(band[1]).is_integer())
        ]
        ordered = sorted(self._bands)
        problems += [
            f"the bands {list(one)} and {list(other)} overlap; both ends of a band are included"
            for one, other in pairwise(ordered)
            if one[1] >= other[0]
        ]
        if problems:
            raise ConfigError(problems, "RankBands")
        self._weights = [band[2] for band in self._bands]

    def draw(
        self, rng: np.random.Generator, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int
    ) -> np.ndarray:
        """See Sampler."""
        return _draw(rng, self._split(ranks), self._weights, count)

    def available(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float) -> int:
        """Those whose rank is in a band."""
        return sum(map(len, self._split(ranks)))

    def refilled(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int) -> int:
        """See Sampler."""
        return _refilled(self._split(ranks), self._weights, count)

    def describe(self) -> dict[str, Any]:
        """The name and the bands."""
        return {"sampler": "RankBands", "bands": [list(band) for band in self._bands]}

    def _split(self, ranks: np.ndarray) -> list[np.ndarray]:
        ranks = np.asarray(ranks)
        return [np.flatnonzero((ranks >= first) & (ranks <= last)) for first, last, _ in self._bands]


class ScoreBands:
    """So many from each band of difficulty: `bands` are [near, far, weight], how far below the tuple's positive.

    A negative is in the band where near <= positive's score - its own < far, in units of the teacher's scores: near can
    be below 0 (negatives above the positive), far can be infinite (.inf). Shares and what a band lacks as in RankBands;
    scores in no band are never drawn. The default suits the logits of an MS MARCO cross-encoder, some 20 units wide.
    ConfigError for bands that overlap or make no sense.
    """

    def __init__(self, bands: Sequence[Sequence[float]] = ((-math.inf, 3, 1.0), (3, 8, 2.0), (8, math.inf, 1.0))):
        self._bands = _checked("ScoreBands", bands, "[near, far, weight]")
        problems = [f"the band {list(band)} must have near < far" for band in self._bands if not band[0] < band[1]]
        ordered = sorted(self._bands)
        problems += [
            f"the bands {list(one)} and {list(other)} overlap" for one, other in pairwise(ordered) if one[1] > other[0]
        ]
        if problems:
            raise ConfigError(problems, "ScoreBands")
        self._weights = [band[2] for band in self._bands]

    def draw(
        self, rng: np.random.Generator, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int
    ) -> np.ndarray:
        """See Sampler."""
        return _draw(rng, self._split(scores, positive_score), self._weights, count)

    def available(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float) -> int:
        """Those whose distance is in a band."""
        return sum(map(len, self._split(scores, positive_score)))

    def refilled(self, ranks: np.ndarray, scores: np.ndarray, positive_score: float, count: int) -> int:
        """See Sampler."""
        return _refilled(self._split(scores, positive_score), self._weights, count)

    def describe(self) -> dict[str, Any]:
        """The name and the bands."""
        # JSON has no infinity.
        shown = [[x if math.isfinite(x) else str(x) for x in band] for band in self._bands]
        return {"sampler": "ScoreBands", "bands": shown}

    def _split(self, scores: np.ndarray, positive_score: float) -> list[np.ndarray]:
        below = positive_score - np.asarray(scores, dtype=np.float64)
        return [np.flatnonzero((below >= near) & (below < far)) for near, far, _ in self._bands]


def shares(count: int, weights: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """How many of `count` each band gives: by weight, by largest remainder (the earlier band of equal ones).

    What a band has too few for goes to the bands with something left, by the same rule, until all are found.
    DataError where all sizes together are fewer than `count`.
    """
    _enough(sum(sizes), count)
    given = [0] * len(sizes)
    while left := count - sum(given):
        room = [weight if size > have else 0.0 for weight, size, have in zip(weights, sizes, given)]
        exact = [left * weight / sum(room) for weight in room]
        asked = [math.floor(x) for x in exact]
        by_remainder = sorted((i for i in range(len(room)) if room[i]), key=lambda i: (asked[i] - exact[i], i))
        for i in by_remainder[: left - sum(asked)]:
            asked[i] += 1
        given = [min(size, have + more) for size, have, more in zip(sizes, given, asked)]
    return given


def _draw(rng: np.random.Generator, bands: list[np.ndarray], weights: Sequence[float], count: int) -> np.ndarray:
    given = shares(count, weights, [len(band) for band in bands])
    drawn = [rng.choice(band, size=number, replace=False) for band, number in zip(bands, given) if number]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *drawn]).astype(np.int64))


def _refilled(bands: list[np.ndarray], weights: Sequence[float], count: int) -> int:
    asked = shares(count, weights, [count] * len(bands))
    return sum(max(wanted - len(band), 0) for wanted, band in zip(asked, bands))


def _enough(available: int, count: int) -> None:
    if available < count:
        raise DataError(f"{count} negatives are wanted, but {available} can be drawn; lower the number of negatives")


def _checked(name: str, bands: Sequence[Sequence[float]], form: str) -> list[tuple[float, ...]]:
    bands = [tuple(band) for band in bands]
    problems = [] if bands else [f"there is no band; a band is {form}"]
    for band in bands:
        if len(band) != 3 or any(isinstance(x, bool) or not isinstance(x, int | float) or x != x for x in band):
            problems.append(f"the band {list(band)} must be three numbers, {form}")
        elif not 0 < band[2] < math.inf:
            problems.append(f"the band {list(band)} must have a weight above 0; leave it out to draw nothing there")
    if problems:
        raise ConfigError(problems, name)
    return bands
