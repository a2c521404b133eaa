"""Locks that one process holds against others; the system lets go of them when it ends, however it ends.

The lock of what lies, or shall lie, at a path is a file beside it. Who is done with it removes the file.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import IO


def file_of(path: Path) -> Path:
    """The file whose lock stands for `path`."""
    return path.with_name(f".{path.name}.lock")


def taken(path: Path) -> IO[str]:
    """The lock of `path`, held until what is returned is closed; BlockingIOError where another process has it."""
    while True:
        handle = file_of(path).open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            handle.close()
            raise
        if _stands(handle, path):
            return handle
        handle.close()


def waited_for(path: Path) -> IO[str]:
    """The lock of `path`, once no other process has it; says that it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        try:
            return taken(path)
        except BlockingIOError:
            if not told:
                print(f"waiting for another process that makes {path}", file=sys.stderr, flush=True)
                told = True
            with file_of(path).open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)


def _stands(handle: IO[str], path: Path) -> bool:
    """Whether this is still the file beside `path`: its last holder may have removed it, and another made a new one."""
    try:
        return os.fstat(handle.fileno()).st_ino == file_of(path).stat().st_ino
    except FileNotFoundError:
        return False


def being_made(path: Path) -> bool:
    """Whether a process holds the making of the artifact at `path`."""
    try:
        with file_of(Path(path).absolute()).open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
