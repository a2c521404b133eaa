"""Loops shared among threads."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future

import pytest

from colbert_lab.threads import each, share


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("count", "unit", "least"), [(0, 1, 1), (1, 1, 1), (64, 8, 1), (100, 1, 7), (104, 8, 50)])
def test_shares_make_up_the_whole(threads, count, unit, least):
    seen = []
    share(lambda first, last: seen.append((first, last)), count, threads, unit, least)
    assert sorted(n for first, last in seen for n in range(first, last)) == list(range(count))
    assert all(first % unit == 0 for first, _ in seen)


def test_a_share_that_fails_is_told():
    def fail(first, last):
        raise RuntimeError(f"at {first}")

    with pytest.raises(RuntimeError, match="at"):
        share(fail, 100, 3)


def test_an_error_leaves_what_is_not_begun_undone():
    seen, caller = [], threading.get_ident()

    def fail(first, last):
        seen.append(first)
        time.sleep(0.01)
        if threading.get_ident() == caller:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share(fail, 1000, 2)
    # Of 16 ranges the one that raised, and what the other thread did meanwhile and was at.
    assert len(seen) <= 4


def test_no_more_threads_than_ranges_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr("colbert_lab.threads._pool", lambda *_: asked.append(1) or _Idle())
    share(lambda first, last: None, 3, 64)
    assert len(asked) == 2


class _Idle:
    """A pool whose threads never come."""

    def submit(self, work):
        return Future()


def test_shares_within_shares_end():
    sums = [0] * 40

    def inner(row):
        done = []
        share(lambda first, last: done.append(last - first), 50, 3)
        sums[row] = sum(done)

    share(lambda first, last: [inner(row) for row in range(first, last)], 40, 3)
    assert sums == [50] * 40


def test_a_process_that_is_forked_shares_with_threads_of_its_own():
    def child(answer):
        done = []
        share(lambda first, last: done.append(last - first), 100, 3)
        answer.send((os.getpid(), sum(done)))

    share(lambda first, last: None, 100, 3)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    assert here.poll(20)
    assert here.recv() == (process.pid, 100)
    process.join(20)


@pytest.mark.parametrize("threads", [1, 3])
def test_each_keeps_the_order(threads):
    assert each(lambda n: n * n, range(20), threads) == [n * n for n in range(20)]
