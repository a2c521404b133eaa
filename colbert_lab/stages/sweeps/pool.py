"""Processes of a sweep: so many at once, each with its part of the machine, and none that outlives its parent."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Ended:
    """A process that ended: what it was started as, its exit code (minus the signal that ended it), its seconds, id."""

    key: Any
    code: int
    seconds: float
    pid: int


@dataclass
class _Running:
    process: subprocess.Popen
    slot: int
    started: float


class Pool:
    """A process for each of `slots` at once; a slot is what is added to the environment of its process.

    Use it in a `with`: however that is left, the processes are asked to end (SIGTERM), given `grace` seconds, and then
    ended.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]], grace: float = 30.0):
        self._slots = list(slots)
        self._grace = grace
        self._running: dict[Any, _Running] = {}

    @property
    def free(self) -> bool:
        """Whether another process may be started."""
        return len(self._running) < len(self._slots)

    @property
    def running(self) -> dict[Any, int]:
        """The keys of what runs, with their process ids, oldest first."""
        return {key: one.process.pid for key, one in self._running.items()}

    def start(self, key: Any, command: Sequence[str], log: Path) -> None:
        """Start a process on the free slot that is first; what it prints goes to `log`, in place of an earlier one."""
        slot = min(set(range(len(self._slots))) - {one.slot for one in self._running.values()})
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._slots[slot],
                # A group of its own: Ctrl-C reaches the parent alone, which then ends its children in order.
                process_group=0,
            )
        self._running[key] = _Running(process, slot, time.monotonic())

    def wait(self, seconds: float) -> list[Ended]:
        """What has ended: at once where something has, else after at most so many seconds."""
        until = time.monotonic() + seconds
        while not (ended := self._reap()) and time.monotonic() < until:
            time.sleep(min(0.05, max(0.0, until - time.monotonic())))
        return ended

    def stop(self, key: Any) -> None:
        """Ask a process to end (SIGTERM); `wait` tells when it has."""
        if self._running[key].process.poll() is None:
            self._running[key].process.terminate()

    def close(self) -> None:
        """End everything that runs, as a `with` does."""
        for key in self._running:
            self.stop(key)
        until = time.monotonic() + self._grace
        while self._running and time.monotonic() < until:
            self.wait(0.1)
        for one in self._running.values():
            _kill_group(one.process)
            one.process.wait()
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _reap(self) -> list[Ended]:
        ended = []
        for key, one in list(self._running.items()):
            code = one.process.poll()
            if code is not None:
                del self._running[key]
                if code:
                    _kill_group(one.process)  # what a crashed process had started itself
                ended.append(Ended(key, code, time.monotonic() - one.started, one.process.pid))
        return ended


def slots(jobs: int | None, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """The environments of the processes that run at once: a GPU each, or where they share one, and a part of the cores.

    `jobs` None: one a GPU; without GPUs one for every eight cores. Alone, a process has the machine as it is.
    """
    count = jobs or len(gpus) or max(1, cores // 8)
    found: list[dict[str, str]] = [{} for _ in range(count)]
    for number, slot in enumerate(found):
        if gpus:
            slot["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        if count > 1 and "OMP_NUM_THREADS" not in os.environ:
            slot["OMP_NUM_THREADS"] = str(max(1, cores // count))
    return found


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
