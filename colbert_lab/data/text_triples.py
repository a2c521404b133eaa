"""Examples out of a file of raw texts, `query \\t positive \\t negative`, as MS MARCO distributes its triples."""

from typing import Any

import numpy as np

from colbert_lab.artifact import hash_json
from colbert_lab.data.examples import Example, choose
from colbert_lab.data.lines import Lines
from colbert_lab.errors import DataError


class TextTriples:
    """One example a line; there are no ids, so nothing is known about other positives of a query.

    The file is read once, to find and check its lines; later only the lines that are asked for. DataError, with file
    and line, where a line has other than three columns or an empty one; for a missing, empty or compressed file.
    """

    limit = 1

    def __init__(self, file: str):
        self._lines = Lines(file, visit=_columns)
        if not len(self._lines):
            raise DataError(f"{self._lines.path} is empty")
        self.fingerprint = hash_json(["text triples", self._lines.digest])

    def __len__(self) -> int:
        return len(self._lines)

    def sample(self, index: int, rng: np.random.Generator, negatives: int) -> Example:
        """Line number `index` (from 0, blank ones not counted); 0 or 1 negatives."""
        where, line = self._lines[index]
        query, positive, negative = _columns(where, line)
        taken = choose(1, negatives, rng, where, "first")
        return Example(query, (positive, *([negative] * len(taken))), None, None, None, frozenset())

    def describe(self) -> dict[str, Any]:
        """The file, its SHA-256 and the number of lines."""
        return {"file": str(self._lines.path), "sha256": self._lines.digest, "examples": len(self)}


def _columns(where: str, line: str) -> list[str]:
    columns = line.split("\t")
    if len(columns) != 3:
        raise DataError(
            f"{where}: expected 3 columns separated by tabs (query, positive, negative), "
            f"found {len(columns)}: {line[:80]!r}"
        )
    if not all(column.strip() for column in columns):
        raise DataError(f"{where}: one of query, positive, negative is empty: {line[:80]!r}")
    return columns
