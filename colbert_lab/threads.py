"""Sharing a loop among threads: the kernels let go of the GIL, so Python's own threads do."""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # By process as well: threads do not survive a fork.
    return ThreadPoolExecutor(threads, thread_name_prefix="colbert-lab")


def share(loop: Callable[[int, int], None], count: int, threads: int, unit: int = 1, least: int = 1) -> None:
    """Call loop(first, last) for ranges that make up 0 .. count, multiples of `unit`, in `threads` threads at once.

    Ranges are smaller than a thread's share, so that none waits long for another, but at least of `least`. The calling
    thread works too, alone where the others are busy: a loop may share another, from any thread and after a fork.
    An error, an interrupt as well, is raised when no thread is at a range any more; what none has begun is left.
    """
    if threads == 1 or count <= least:
        return loop(0, count)
    step = max(least, -(-count // (8 * threads)))
    step = -(-step // unit) * unit
    ranges = [(first, min(first + step, count)) for first in range(0, count, step)]
    left = iter(ranges)  # next() of a list's iterator is atomic

    def work() -> None:
        try:
            for first, last in left:
                loop(first, last)
        except BaseException:
            # The others stop after the range that they are at.
            deque(left, maxlen=0)
            raise

    others = [_pool(os.getpid(), threads).submit(work) for _ in range(min(threads, len(ranges)) - 1)]
    try:
        work()
    finally:
        # What no thread has begun has nothing left to do, and may wait for this very thread.
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()


def each(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> list[Any]:
    """function of every item, in their order, `threads` at a time; not to be called within a shared loop.

    The calling thread only waits, and would wait for ever for threads that wait for it.
    """
    if threads == 1:
        return [function(item) for item in items]
    return list(_pool(os.getpid(), threads).map(function, items))
