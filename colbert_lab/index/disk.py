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
def telling(path: Path):
    """A full disk as an ArtifactError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ArtifactError(
            f"the disk is full: {path} could not be written; what was committed before is whole; make room first"
        ) from error
