"""What every index can do: take a stream of embeddings with ids, be opened again, and search.

An index knows no model: it stores vectors and compares them. Which model's vectors they are stands in the manifest of
the artifact that holds it, and the search stage refuses another's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from colbert_lab.ragged import Ragged
from colbert_lab.run import Run
from colbert_lab.scoring.maxsim import Similarity


class IndexWriter(Protocol):
    """An index in the making; what was appended and returned from is safe from a kill."""

    @property
    def documents(self) -> int:
        """How many documents it holds already, from this start or an earlier one."""

    def append(self, ids: Sequence[str], embeddings: Ragged) -> None:
        """Add documents, in order."""

    def finish(self) -> None:
        """Nothing more comes: complete the files."""


class Index(Protocol):
    """A finished index."""

    def __len__(self) -> int:
        """N, the number of documents."""

    def search(self, query_ids: Sequence[str], queries: Ragged, k: int) -> Run:
        """The best min(k, N) documents of every query, ties by id."""

    def stats(self) -> dict[str, Any]:
        """Facts about it: documents, vectors, bytes, ..."""


class IndexKind(Protocol):
    """A choice of index with its parameters, as the configuration names it."""

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> IndexWriter:
        """Begin, or go on with, an index in this directory."""

    def open(self, directory: Path) -> Index:
        """Open the finished index in this directory, memory-mapped."""
