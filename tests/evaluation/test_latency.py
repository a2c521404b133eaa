"""Latencies: which calls count, and where their time goes."""

import itertools

import numpy as np
import pytest

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation import latency
from colbert_lab.evaluation.latency import Latency, latencies, timed, timed_parts


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set forward by so many milliseconds."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

        def forward(self, milliseconds):
            self.now += milliseconds / 1000

    clock = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", clock)
    return clock


def test_latencies_are_those_of_the_calls_that_count(monkeypatch):
    calls = []
    # The clock reads 0, 1, 3, 6, 10, ... seconds: calls take 1, 3, 5, ... between two readings.
    readings = itertools.accumulate(itertools.count())
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(readings))
    taken = latencies(calls.append, queries=9, timed=3, warmup=8)
    assert calls[8:] == [0, 4, 8]
    # Six queries are left to warm up with, two come again; none of those that are timed.
    assert calls[:8] == [1, 2, 3, 5, 6, 7, 1, 2]
    np.testing.assert_array_equal(taken, [1000, 3000, 5000])


def test_latencies_of_few_queries():
    calls = []
    assert len(latencies(calls.append, queries=2, timed=100, warmup=3)) == 2
    assert calls == [0, 1, 0, 0, 1]
    with pytest.raises(ConfigError, match="timed must be at least 1"):
        latencies(calls.append, queries=2, timed=0, warmup=0)


def test_percentiles(clock):
    # Calls of 0, 1, ..., 100 ms, after warming up with 50 of the others.
    assert timed(clock.forward, queries=101, times=101, warmup=0) == Latency(pytest.approx(50), pytest.approx(95), 101)


def test_parts_add_up_within_a_call(clock):
    def answer(i, part):
        with part("encode"):
            clock.forward(10)
        clock.forward(1)
        for _ in range(2):
            with part("search"):
                clock.forward(i)
        if i == 4:
            with part("interact"):
                clock.forward(300)

    found = timed_parts(answer, queries=5, times=3, warmup=2)
    assert list(found) == ["total", "encode", "search", "interact"]
    # Timed: queries 0, 2, 4 take 11, 15, 319 ms.
    assert found["total"].p50_ms == pytest.approx(15)
    assert found["encode"] == Latency(pytest.approx(10), pytest.approx(10), 3)
    assert found["search"].p50_ms == pytest.approx(4)
    assert found["interact"].p50_ms == 0
    assert found["interact"].p95_ms == pytest.approx(270)


@pytest.mark.parametrize(("outer", "inner"), [("encode", "search"), ("total", None)])
def test_parts_follow_each_other(outer, inner):
    def answer(_, part):
        with part(outer), part(inner):
            pass

    with pytest.raises(DataError, match=f"a part '{inner or outer}'"):
        timed_parts(answer, queries=1)
