"""Scales: from values to places in a drawing, with ticks at numbers that a person would choose."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from colbert_lab.report.markup import significant


@dataclass(frozen=True)
class Scale:
    """`low` lies at `start`, `high` at `end` (pixels); logarithmic where `log`, for positive values only."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (self.low, self.high, value)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About so many round numbers within the scale: 1, 2 or 5 times a power of ten."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        step = _step(self.high - self.low, count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [_round(i * step) for i in range(first, last + 1)]


def fitted(
    values: Iterable[float], start: float, end: float, log: bool = False, room: float = 0.06, nought: bool = False
) -> Scale:
    """A scale that holds the values with `room` (a share of it) at both ends; with `nought`, from 0 or below on."""
    values = list(values)
    low, high = min(values), max(values)
    if log:
        if low == high:
            low, high = low / 2, high * 2
        reach = math.log(high / low)
        return Scale(low / math.exp(room * reach), high * math.exp(room * reach), start, end, True)
    if nought:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    reach = high - low
    return Scale(
        low if nought and low == 0 else low - room * reach,
        high if nought and high == 0 else high + room * reach,
        start,
        end,
    )


def wide(values: Iterable[float]) -> bool:
    """Whether the values spread over so many sizes that only a logarithmic scale shows them apart."""
    values = list(values)
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 30


def tick_text(value: float) -> str:
    """A tick in few characters: 0.25, 120, 12k, 3M, 3e-05."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{significant(value / unit, 3)}{letter}"
    return significant(value, 4)


def _step(reach: float, count: int) -> float:
    rough = reach / max(count, 1)
    size = 10.0 ** math.floor(math.log10(rough))
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= count + 1:
            break
    if len(found) >= 2:
        every = math.ceil(len(found) / (count + 1))
        return [_round(value) for value in found[::every]]
    step = _step(high - low, count)
    return [_round(i * step) for i in range(math.ceil(low / step), math.floor(high / step) + 1) if i > 0]


def _round(value: float) -> float:
    return float(f"{value:.10g}")
