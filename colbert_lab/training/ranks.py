"""Ranks: processes that train one model together, each with a device of its own; the one that starts them speaks.

    best = together(4, train_it, cfg, collection, tracker=tracker)      # train_it(cfg, collection, tracker), four times

Each rank does the same on its own part of every batch (`gather.own_part`); Lightning's DistributedDataParallel averages
the gradients. What rank 0 tells its tracker is passed on to the one here, the others are silent. The starting process
does nothing but wait, so that a rank that fails, hangs in a collective or is killed takes the others with it, at once
and with its own error; what was trained up to the last checkpoint is kept, as after any kill.
"""

import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch

from colbert_lab.errors import TrainingError
from colbert_lab.processes import die_with, gpus_for, sendable
from colbert_lab.tracking.tracker import Tracker

Result = TypeVar("Result")

# What fitting tells a tracker; each returns nothing, so that it can be told from another process.
_TOLD = ("log", "summary", "derived", "table", "histogram", "resumed")
# Seconds that the other ranks have to say why they failed, once one has: its end makes theirs fail too.
_GRACE = 2.0
_own, _size = 0, 1


def together(devices: int, function: Callable[..., Result], *given: Any, tracker: Tracker) -> Result:
    """What `function(*given, tracker)` returns; with several `devices`, what it returns in rank 0 of as many processes.

    `function` and `given` must pickle then. Where there is a CUDA device each rank has one, else its share of the
    threads of this process. Raises what the first rank to fail raised, TrainingError where one was killed, ConfigError
    where there are fewer CUDA devices.
    """
    if devices == 1:
        return function(*given, tracker)
    gpus_for(devices)
    # For the ranks, whose torch reads it as it loads: else it warns of every model all of whose weights are trained.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // devices)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(devices)}
    # Of a cluster's node nothing is taken over; of the threads Lightning else makes a share of its own.
    meeting |= {"NODE_RANK": "0", "OMP_NUM_THREADS": str(threads)}
    ranks: list[tuple[Any, Connection]] = []
    try:
        for rank in range(devices):
            here, there = spawn.Pipe(duplex=False)
            own = (rank, os.getpid(), threads, {**meeting, "LOCAL_RANK": str(rank)}, there)
            process = spawn.Process(target=_work, args=(*own, function, given), name=f"rank {rank}")
            ranks.append((process, here))
            process.start()
            # Else the end of the process would not be the end of what can be read from it.
            there.close()
        return _listen(ranks, tracker)
    finally:
        for process, here in ranks:
            if process.pid is not None:
                process.kill()
                process.join()
            here.close()


def size() -> int:
    """How many ranks this process is one of; 1 where it is none."""
    return _size


def speaks() -> bool:
    """Whether this process is rank 0, or no rank at all: the one that judges, keeps weights and shows progress."""
    return _own == 0


class _Failure(NamedTuple):
    """Why a rank failed, and when, on a clock that all processes of a machine share."""

    at: float
    error: BaseException


class _Voice:
    """Rank 0's tracker: says to the other end of a connection what it is told."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in _TOLD:
            raise AttributeError(f"{name} cannot be told from another process")
        return lambda *told, **more: self._connection.send((name, told, more))


def _listen(ranks: Sequence[tuple[Any, Connection]], tracker: Tracker) -> Any:
    """Pass on what rank 0 tells until all ranks are done, and return its result; raise where one fails."""
    left, result = {here: number for number, (_, here) in enumerate(ranks)}, None
    while left:
        for here in wait(list(left)):
            said = _said(here)
            if said is None or isinstance(said, _Failure):
                _fail(ranks, left, left.pop(here), said, tracker)
            name, told, more = said
            if name != "done":
                getattr(tracker, name)(*told, **more)
            elif left.pop(here) == 0:
                result = told
    return result


def _said(here: Connection) -> Any:
    try:
        return here.recv()
    except (EOFError, OSError):
        # It was killed, in the second case in the middle of saying something.
        return None


def _fail(
    ranks: Sequence[tuple[Any, Connection]], left: dict, rank: int, said: _Failure | None, tracker: Tracker
) -> NoReturn:
    """Raise why the first rank failed: of an error and those that it caused in others, the one that came first.

    What rank 0 told before is passed on: what the last checkpoint has behind it is not told again.
    """
    failures = [] if said is None else [said]
    killed = [rank] if said is None else []
    end = time.monotonic() + _GRACE
    while left and (ready := wait(list(left), max(0.0, end - time.monotonic()))):
        for here in ready:
            said = _said(here)
            if isinstance(said, _Failure):
                failures.append(said)
            elif said is None:
                killed.append(left[here])
            if said is None or isinstance(said, _Failure) or said[0] == "done":
                del left[here]
            else:
                getattr(tracker, said[0])(*said[1], **said[2])
    # A rank that was killed says nothing, and the others fail for want of it; one that aborts itself does so for want
    # of another that has failed.
    codes = {rank: _exit_code(ranks[rank][0]) for rank in killed}
    first = next((rank for rank in killed if not failures or codes[rank] != -signal.SIGABRT), None)
    if first is None:
        error = min(failures, key=lambda failure: failure.at).error
        for rank in killed:
            error.add_note(f"process {rank} of the {len(ranks)} that train together aborted")
        raise error
    how = f"ended by {signal.Signals(-codes[first]).name}" if codes[first] < 0 else f"at its end, code {codes[first]}"
    raise TrainingError(
        f"process {first} of the {len(ranks)} that train together was {how}; what was trained up to the last "
        "checkpoint is kept\ntry: the same command again; where memory ran out, a smaller train.batch_queries"
    )


def _exit_code(process: Any) -> int:
    """That of a process that has closed its connection; it is killed where it has not ended for all that."""
    process.join(_GRACE)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


def _work(
    rank: int, parent: int, threads: int, meeting: dict, here: Connection, function: Callable, given: Sequence
) -> None:
    global _own, _size
    die_with(parent)
    # Ctrl-C reaches every process of the terminal; it is the starting one's to end the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(meeting)
    torch.set_num_threads(threads)
    _own, _size = rank, int(meeting["WORLD_SIZE"])
    if rank:
        # What Python says to the user; what a driver says of a crash is still shown.
        sys.stdout = sys.stderr = io.StringIO()
        logging.disable()
    try:
        result = function(*given, _Voice(here) if rank == 0 else Tracker.silent())
        here.send(("done", result, {}))
    except BaseException as error:
        here.send(_Failure(time.time(), sendable(error)))
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]
