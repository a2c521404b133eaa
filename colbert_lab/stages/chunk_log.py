"""The record of a making in chunks: a line of facts for each, by which a restart knows what is done.

A line is noted before its chunk is committed or after, as the maker says; a kill leaves at most a line cut short at the
end, which counts for nothing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colbert_lab.artifact import write_atomic
from colbert_lab.index import disk


def note(record: Path, facts: Mapping[str, Any]) -> None:
    """Append a line; ArtifactError where the disk is full."""
    # Unbuffered: what a full disk did not take would be written again, and fail again, when the file is closed.
    with disk.telling(record), record.open("ab", buffering=0) as handle:
        disk.write(handle, memoryview(_line(facts)))


def noted(record: Path) -> list[dict[str, Any]]:
    """The lines that are whole; none where there is no record yet."""
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def keep(record: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Let these lines be the record; killed meanwhile, it is the old one or the new one, whole."""
    with disk.telling(record):
        write_atomic(record, b"".join(map(_line, lines)))


def encoding_seconds(record: Path) -> tuple[float, bool] | None:
    """Seconds that an index's documents took to be encoded, and whether another index's vectors were read instead.

    Reading is no encoding, and not among these seconds. None where the record, no part of an artifact, is gone.
    """
    if not record.is_file():
        return None
    lines = noted(record)
    return sum(line["seconds"] for line in lines if "read" not in line), any("read" in line for line in lines)


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
