"""Processes that do a part of the work: none outlives the one that started it; and what of the machine each has."""

import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from colbert_lab.errors import ConfigError, LabError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks that a process has at most: the one that it works on, and one that it need not wait for.
_AHEAD = 2
_OVER = object()


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
    processes: int,
    make: Callable[..., Callable[[Task], Result]],
    given: Sequence[Any],
    tasks: Iterable[Task],
    gpus: Sequence[str] = (),
) -> Iterator[Result]:
    """make(*given)(task) for each task, in their order, by so many processes at once that each call `make` once.

    Each has its share of the threads and, where `gpus` are given, one of these. `make`, `given`, tasks and results must
    pickle; a few tasks are taken ahead of the results. Raises what one raised, LabError where one was killed. Left
    early, it ends the processes at once.
    """
    crew = _Crew(processes, make, given, gpus)
    try:
        yield from crew.results(iter(tasks))
    finally:
        crew.end()


class _Crew:
    """The processes that share the work, each at the other end of a connection of its own."""

    def __init__(self, count: int, make: Callable, given: Sequence[Any], gpus: Sequence[str]):
        import torch

        spawn = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // count)
        self._processes: list[tuple[Any, Connection]] = []
        try:
            for number in range(count):
                here, there = spawn.Pipe()
                begin = (os.getpid(), threads, gpus[number] if gpus else None, there, make, given)
                process = spawn.Process(target=_work, args=begin)
                self._processes.append((process, here))
                process.start()
                # Else the end of the process would not be the end of what can be read from it.
                there.close()
        except BaseException:
            self.end()
            raise

    def results(self, tasks: Iterator[Any]) -> Iterator[Any]:
        """The results of the tasks, in their order."""
        most = _AHEAD * len(self._processes) + 1
        has: dict[Connection, deque[int]] = {here: deque() for _, here in self._processes}
        done: dict[int, bytes] = {}
        taken, next_one, over = 0, 0, False
        while True:
            while not over and taken - next_one < most:
                # To one that has least to do; with a task waiting there it need not wait for this process.
                least = min(has, key=lambda here: len(has[here]))
                if len(has[least]) == _AHEAD:
                    break
                if over := (task := next(tasks, _OVER)) is _OVER:
                    break
                self._send(least, task)
                has[least].append(taken)
                taken += 1
            if next_one in done:
                yield pickle.loads(done.pop(next_one))
                next_one += 1
            elif next_one == taken:
                return
            else:
                for here in wait([here for here, numbers in has.items() if numbers]):
                    done[has[here].popleft()] = self._receive(here)

    def end(self) -> None:
        """They hold nothing that is not held elsewhere."""
        for process, here in self._processes:
            if process.pid is not None:
                process.kill()
                process.join()
            here.close()

    def _send(self, here: Connection, task: Any) -> None:
        try:
            here.send(task)
        except OSError:
            # Its end, or why it came to it, is there to be read.
            self._receive(here)
            raise self._killed() from None

    def _receive(self, here: Connection) -> bytes:
        try:
            said = here.recv()
        except (EOFError, OSError) as error:
            raise self._killed() from error
        if isinstance(said, BaseException):
            raise said
        return said

    def _killed(self) -> LabError:
        count = len(self._processes)
        return LabError(
            f"one of the {count} processes that share the work was killed; what was kept until then is not lost\n"
            "try: the same command again; where memory ran out, with fewer processes"
        )


def sendable(error: BaseException) -> BaseException:
    """An error as another process can have it, with where it came from unless its message is meant to be enough."""
    told = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(told)
    if not isinstance(error, LabError):
        error.add_note(told)
    return error


def _work(parent: int, threads: int, gpu: str | None, there: Connection, make: Callable, given: Sequence[Any]) -> None:
    die_with(parent)
    # Ctrl-C reaches every process of the terminal; it is the starting one's to end the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        # Before anything asks for a device: the first that is visible is then the only one.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    torch.set_num_threads(threads)
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    # Beside the work, or the starting process would wait to send a task while this one waits to send it a result.
    threading.Thread(target=_take, args=(there, tasks), daemon=True).start()
    try:
        does = make(*given)
        while (task := tasks.get()) is not _OVER:
            # As bytes: torch would pass tensors on by shared memory, of which a container often has 64 MB.
            there.send(pickle.dumps(does(task), protocol=pickle.HIGHEST_PROTOCOL))
    except BaseException as error:
        there.send(sendable(error))


def _take(there: Connection, tasks: queue.SimpleQueue) -> None:
    try:
        while True:
            tasks.put(there.recv())
    except (EOFError, OSError):
        tasks.put(_OVER)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
