"""Processes that do a part of the work: none outlives the one that started it; and what of the machine each has."""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from colbert_lab.errors import ConfigError, LabError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Results that may wait for their turn, a process: enough that none is idle while the slowest is waited for.
_AHEAD = 2


def cores() -> int:
    """How many cores this process may use; where the system does not say (macOS), how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with(parent: int) -> None:
    """Have this process killed as soon as its parent, of this id, has ended, and at once where it has already.

    By the kernel on Linux; elsewhere by a thread that looks every second.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; nothing is set up on them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    names = [str(number) for number in range(count)] if given is None else given.split(",")
    return [name.strip() for name in names][:count]


def gpus_for(devices: int) -> list[str]:
    """A GPU for each of so many processes, none where this machine has none; ConfigError where it has fewer."""
    found = visible_gpus()
    if 0 < len(found) < devices:
        raise ConfigError(f"{devices} devices are asked for, but there are {len(found)}\ntry: devices={len(found)}")
    return found[:devices]


def in_order(
    devices: int, make: Callable[..., Callable[[Task], Result]], given: Sequence[Any], tasks: Iterable[Task]
) -> Iterator[Result]:
    """make(*given)(task) for each task, in their order, by so many processes at once that each call `make` once.

    Each has a GPU of its own where there are any, else its share of the threads. `make`, `given`, tasks and results
    must pickle; a few tasks are taken ahead of the results. Raises what one raised, LabError where one was killed.
    """
    import torch

    gpus, spawn = gpus_for(devices), multiprocessing.get_context("spawn")
    places = spawn.SimpleQueue()
    for place in range(devices):
        places.put(gpus[place] if gpus else None)
    begin = (os.getpid(), max(1, torch.get_num_threads() // devices), places, make, given)
    pool = ProcessPoolExecutor(devices, spawn, initializer=_begin, initargs=begin)
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_do, task))
            if len(waiting) > _AHEAD * devices:
                yield pickle.loads(waiting.popleft().result())
        while waiting:
            yield pickle.loads(waiting.popleft().result())
    except BrokenProcessPool as error:
        raise LabError(
            f"one of the {devices} processes that share the work was killed; what was kept until then is not lost\n"
            f"try: the same command again; where memory ran out, devices={max(1, devices // 2)}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# What `make` made, in a process that shares the work.
_does: Callable[[Any], Any]


def _begin(parent: int, threads: int, places: Any, make: Callable, given: Sequence) -> None:
    global _does
    die_with(parent)
    # Ctrl-C reaches every process of the terminal; it is the starting one's to end the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = places.get()
    if place is not None:
        # Before anything asks for a device: the first that is visible is then the only one.
        os.environ["CUDA_VISIBLE_DEVICES"] = place
    import torch

    torch.set_num_threads(threads)
    _does = make(*given)


def _do(task: Any) -> bytes:
    # As bytes: torch would pass tensors on by shared memory, of which a container often has 64 MB.
    return pickle.dumps(_does(task), protocol=pickle.HIGHEST_PROTOCOL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
