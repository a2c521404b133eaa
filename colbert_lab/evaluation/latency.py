"""How long a query takes, one at a time, and where the time goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from colbert_lab.errors import ConfigError, DataError


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call: the median and the 95th percentile over `times` calls."""

    p50_ms: float
    p95_ms: float
    times: int


# Enters a part of a call by its name: `with part("encode"): ...`
Part = Callable[[str], AbstractContextManager[None]]


def latencies(call: Callable[[int], Any], queries: int, timed: int, warmup: int) -> np.ndarray:
    """Milliseconds [min(timed, queries)] of call(i), one query at a time, for queries spread over all of them.

    `warmup` calls are made before and not counted, of queries that are not timed as far as there are any: a timed one
    shall find the index's pages and compiled code warm, but not its own answer in a cache. ConfigError where nothing
    would be timed.
    """
    if timed < 1 or warmup < 0:
        raise ConfigError(
            f"timed={timed} queries after warmup={warmup}: timed must be at least 1, warmup 0", "the latency"
        )
    chosen = np.unique(np.linspace(0, queries - 1, min(timed, queries)).round().astype(int)).tolist()
    others = [i for i in range(queries) if i not in set(chosen)] or chosen
    for turn in range(warmup):
        call(others[turn % len(others)])
    taken = []
    for i in chosen:
        start = time.perf_counter()
        call(i)
        _settle()
        taken.append(1000 * (time.perf_counter() - start))
    return np.array(taken)


def timed(call: Callable[[int], Any], queries: int, times: int = 100, warmup: int = 10) -> Latency:
    """The latency of call(i) for `times` of the queries 0 to queries - 1, after `warmup` others (see `latencies`)."""
    return _latency(latencies(call, queries, times, warmup))


def timed_parts(
    call: Callable[[int, Part], Any], queries: int, times: int = 100, warmup: int = 10
) -> dict[str, Latency]:
    """The same of call(i, part), whole ("total") and by its parts, in the order in which they were first entered.

    A part is what runs in `with part("encode"):`; entered several times in a call it counts together, and in a call
    that does not enter it, 0. DataError for a part inside another, or one that is named total.
    """
    spent: list[dict[str, float]] = []

    def watched(i: int) -> None:
        parts: dict[str, float] = {}
        call(i, _stopwatch(parts))
        spent.append(parts)

    total = latencies(watched, queries, times, warmup)
    counted = spent[-len(total) :]
    names = dict.fromkeys(name for parts in counted for name in parts)
    return {"total": _latency(total)} | {
        name: _latency(np.array([parts.get(name, 0.0) for parts in counted])) for name in names
    }


def _stopwatch(parts: dict[str, float]) -> Part:
    """What enters parts and adds up their milliseconds, one at a time."""
    running: list[str] = []

    @contextmanager
    def part(name: str) -> Iterator[None]:
        if running or name == "total":
            inside = f" inside {running[0]!r}" if running else ""
            raise DataError(f"a part {name!r}{inside} cannot be timed: parts follow each other, and total is the whole")
        running.append(name)
        start = time.perf_counter()
        try:
            yield
            _settle()
        finally:
            running.clear()
        parts[name] = parts.get(name, 0.0) + 1000 * (time.perf_counter() - start)

    return part


def _latency(taken: np.ndarray) -> Latency:
    p50, p95 = np.percentile(taken, [50, 95])
    return Latency(float(p50), float(p95), len(taken))


def _settle() -> None:
    # An accelerator's work is only queued when a call returns.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
