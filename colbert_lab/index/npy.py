"""An .npy file that grows: its header has a fixed size and room for more rows, and only the committed rows are mapped.

`facts` says dtype, columns (None for one axis) and the committed rows.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.errors import ArtifactError

# numpy pads a version 1.0 header of one or two axes to this, with room for the first axis to grow.
HEADER = 128


def row_bytes(facts: dict[str, Any]) -> int:
    """Bytes of one row."""
    return np.dtype(facts["dtype"]).itemsize * (1 if facts["columns"] is None else facts["columns"])


def header(rows: int, facts: dict[str, Any]) -> bytes:
    """The header (128 bytes) of an array of so many rows."""
    shape = (rows,) if facts["columns"] is None else (rows, facts["columns"])
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": facts["dtype"], "fortran_order": False, "shape": shape})
    assert len(buffer.getvalue()) == HEADER
    return buffer.getvalue()


def content(array: np.ndarray) -> memoryview:
    """The bytes of an array, in place."""
    array = np.ascontiguousarray(array)
    return memoryview(array).cast("B") if array.size else memoryview(b"")


def check_header(path: Path, facts: dict[str, Any]) -> None:
    """ArtifactError where a header is not the one for the committed rows, or for rows that a killed edit added."""
    with path.open("rb") as handle:
        found = handle.read(HEADER)
    most = (path.stat().st_size - HEADER) // max(1, row_bytes(facts))
    if found != header(facts["rows"], facts) and found != header(most, facts):
        raise ArtifactError(f"{path} was changed after it was written (its header differs)")


def mapped(path: Path, facts: dict[str, Any]) -> np.ndarray:
    """The committed rows of a file, mapped copy-on-write."""
    shape = (facts["rows"],) if facts["columns"] is None else (facts["rows"], facts["columns"])
    if not facts["rows"] or not row_bytes(facts):
        return np.empty(shape, dtype=facts["dtype"])
    # A plain array over the map: a memmap's own class slows every slice of it down.
    return np.asarray(np.memmap(path, dtype=facts["dtype"], mode="c", offset=HEADER, shape=shape))
