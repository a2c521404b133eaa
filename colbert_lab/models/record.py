"""The JSON file beside a model's weights that says what only we know of it, and of which format it is."""

import json
from pathlib import Path
from typing import Any

from colbert_lab.errors import ArtifactError


def read_record(file: Path, written_as: int, what: str) -> dict[str, Any]:
    """The record in `file`, of format `written_as`; `what` is what its directory should be.

    ArtifactError where there is none, where it cannot be read, or where it is of another format.
    """
    if not file.is_file():
        raise ArtifactError(f"{file.parent} is no {what}: it has no {file.name}")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found = record["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} cannot be read: {error}") from error
    if found != written_as:
        raise ArtifactError(f"{file} is of format {found}, this version reads {written_as}")
    return record
