"""SIGTERM as an ordinary exit: a cluster's preemption then unwinds the run, and its trackers are finished."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises SystemExit(143), unless a handler stands already or this is not the main thread."""
    free = signal.getsignal(signal.SIGTERM) in (None, signal.SIG_DFL)
    if not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)
