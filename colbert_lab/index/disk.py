"""Writing to a disk that others use too, and that can be full."""

import errno
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colbert_lab.errors import ArtifactError


def locked(directory: Path) -> int:
    """The directory, locked; the system lets go of it when the descriptor is closed or the process ends, however."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ArtifactError(f"{directory} is being edited by another; wait for it, or stop it") from error
    return lock


def write(handle: Any, content: memoryview) -> None:
    """All of it: an unbuffered file may take less at once."""
    while len(content):
        content = content[handle.write(content) :]


def sync(path: Path) -> None:
    """Bring what was written of a file to the disk."""
    with telling(path), path.open("r+b") as handle:
        os.fsync(handle.fileno())


@contextmanager
def telling(path: Path | None = None, below: str | Path = "."):
    """A disk that is full or may not be written to, as an ArtifactError that names the file and what mends it.

    The file is `path`, or the one that the system names; where it names none, it is told that it lies `below`.
    """
    try:
        yield
    except OSError as error:
        file = path or error.filename2 or error.filename or f"a file below {below}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = f"the disk is full: {file} could not be written; what was committed before is whole; make room first"
        elif error.errno == errno.EROFS:
            told = f"{file} lies on a disk that can only be read\ntry: root=<a directory that can be written to>"
        elif error.errno == errno.EACCES:
            told = f"{file} cannot be used: permission denied\ntry: another place for it, or the right to use it"
        else:
            raise
        raise ArtifactError(told) from error
