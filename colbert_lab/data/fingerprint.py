"""Content hashes of files that are remembered, so that gigabytes are not read again for every command."""

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from colbert_lab.artifact import hash_file, hash_json, write_atomic


def hash_files(paths: Iterable[Path], memo: Path | None = None) -> dict[str, str]:
    """File name -> SHA-256 of its content.

    `memo` is a JSON file in which hashes are kept by real path, size and time of change (in nanoseconds).
    """
    return {path.name: remembered(stamp(path), memo, lambda path=path: hash_file(path)) for path in paths}


def stamp(path: Path) -> str:
    """What identifies a state of a file without reading it: real path, size, time of change."""
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def remembered(key: str, memo: Path | None, compute: Callable[[], str]) -> str:
    """The value kept under `key` in the file `memo`, or else computed and kept there."""
    key = hash_json(key)
    known = _read(memo)
    if key in known:
        return known[key]
    value = compute()
    if memo is not None:
        memo.parent.mkdir(parents=True, exist_ok=True)
        # Read again: another process may have added its own in the meantime. A lost entry costs a second reading.
        write_atomic(memo, json.dumps({**_read(memo), key: value}, indent=0, sort_keys=True).encode())
    return value


def _read(memo: Path | None) -> dict[str, str]:
    if memo is not None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            known = json.loads(memo.read_text(encoding="utf-8"))
            return known if isinstance(known, dict) else {}
    return {}
