"""Killing a process between any two things that it does to files."""

import multiprocessing
import os
import signal
from collections.abc import Callable

# What a maker of files does to them; shutil and pathlib call these by their names in os.
_OPERATIONS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "unlink")
armed = [True]


def killed_at(moment: int, action: Callable[[], object], begin: bool = True) -> bool:
    """Do `action` in a process that kills itself before its `moment`-th operation on files; whether it came to that.

    With begin=False operations count from when `armed[0]` is set to True in it.
    """
    dying = multiprocessing.get_context("fork").Process(target=_die, args=(moment, action, begin))
    dying.start()
    dying.join(60)
    assert dying.exitcode in (0, -signal.SIGKILL), dying.exitcode
    return dying.exitcode != 0


def _die(moment: int, action: Callable[[], object], begin: bool) -> None:
    left, armed[0] = moment, begin

    def counted(function):
        def call(*args, **options):
            nonlocal left
            if armed[0]:
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
            return function(*args, **options)

        return call

    for name in _OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    action()
