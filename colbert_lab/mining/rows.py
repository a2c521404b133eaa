"""Rows on disk, one a query: an Arrow file that is written once, in batches, and read memory-mapped, by number."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colbert_lab.errors import ArtifactError

_BATCH = 1000


class Rows:
    """The rows of an Arrow file as dicts; `rows[i]`, or all of them in order by iteration.

    ArtifactError where the file is missing, is no Arrow file, or has other columns than `schema`.
    """

    def __init__(self, file: Path, schema: pa.Schema):
        self.file = Path(file)
        if not self.file.is_file():
            raise ArtifactError(f"{self.file} does not exist; make it again")
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(self.file)))
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except pa.ArrowInvalid as error:
            raise ArtifactError(f"{self.file} cannot be read as an Arrow file: {error}; make it again") from error
        if reader.schema != schema:
            raise ArtifactError(f"{self.file} has columns {reader.schema.names}, expected {schema.names}, of its types")
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} in {self.file}")
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._batches[batch].slice(index - int(self._starts[batch]), 1).to_pylist()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.columns()

    def columns(self, *names: str) -> Iterator[dict[str, Any]]:
        """All rows in order, with these columns only (none given: all); no more than a batch is in memory at once."""
        for batch in self._batches:
            yield from (batch.select(list(names)) if names else batch).to_pylist()

    def lengths(self, column: str) -> np.ndarray:
        """[len] int64, how many entries each row's list has in this column."""
        found = [pc.list_value_length(batch.column(column)).to_numpy() for batch in self._batches]
        return np.concatenate([np.empty(0, dtype=np.int64), *found]).astype(np.int64)


def write_rows(file: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
    """Write dicts with the columns of `schema` as the file that Rows reads; equal rows make equal bytes."""
    rows = iter(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
