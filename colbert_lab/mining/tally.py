"""Counts of what was dropped, by reason and query: a total alone does not tell one bad query from a bad rule."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Counted(Generic[T]):
    """Rows that are made one at a time, as they are iterated, once; and what was counted meanwhile.

    `rows` yields them and returns the counts.
    """

    def __init__(self, rows: Generator[T, None, dict[str, Any]]):
        self._rows = rows
        self._counts: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[T]:
        if self._counts is not None:
            raise RuntimeError("these rows were iterated before; they are made once")
        self._counts = yield from self._rows

    @property
    def counts(self) -> dict[str, Any]:
        """The counts, as JSON; RuntimeError before the last row was taken."""
        if self._counts is None:
            raise RuntimeError("what rows count is known when all of them were taken")
        return self._counts


class Tally:
    """What each query lost, for a fixed list of reasons."""

    def __init__(self, *reasons: str):
        self._counts: dict[str, list[int]] = {reason: [] for reason in reasons}

    def add(self, counts: Mapping[str, int]) -> None:
        """The counts of one query; reasons that it lacks are 0. KeyError for a reason that is none of ours."""
        for reason in counts:
            self._counts[reason]
        for reason, found in self._counts.items():
            found.append(counts.get(reason, 0))

    def summary(self) -> dict[str, dict[str, int | list[int]]]:
        """For each reason the total, how many queries it concerns, and [least, median, most] a query, as JSON."""
        return {
            reason: {"total": sum(found), "queries": sum(map(bool, found)), "per_query": spread(found)}
            for reason, found in self._counts.items()
        }


def spread(values: Iterable[int]) -> list[int]:
    """[least, median, most] as integers, the median rounded down; zeros where there are no values."""
    values = list(values) or [0]
    return [min(values), int(np.median(values)), max(values)]
