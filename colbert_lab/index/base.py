"""What every index can do: take a stream of documents with ids, be opened again, search, and change.

An index knows no model: it stores vectors (or words) and compares them. Which model's vectors they are stands in the
manifest of the artifact that holds it, and the search stage refuses another's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from colbert_lab.ragged import Ragged
from colbert_lab.run import Run
from colbert_lab.scoring.maxsim import Similarity


class IndexWriter(Protocol):
    """An index in the making; what was appended and returned from is safe from a kill."""

    @property
    def documents(self) -> int:
        """How many documents it holds already, from this start or an earlier one."""

    def append(self, ids: Sequence[str], documents: Ragged | Sequence[str]) -> None:
        """Add documents, in order: their embeddings, or their texts where the kind takes texts."""

    def finish(self) -> None:
        """Nothing more comes: train what is to be trained and complete the files."""


class Index(Protocol):
    """A finished index."""

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""

    def __len__(self) -> int:
        """N, the number of documents."""

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged | Sequence[str],
        k: int,
        only: Sequence[str] | None = None,
        probe: Any = None,
    ) -> Run:
        """The best min(k, N) documents of every query, ties by id.

        `only` names the documents that count, before anything is pruned. `probe` holds the index's own parameters of a
        search; those it leaves open, or all where it is None, are resolved from k at every call anew.
        """

    def stats(self) -> dict[str, Any]:
        """Facts about it: documents, vectors, bytes of all files, ..."""

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""

    def add(self, ids: Sequence[str], documents: Ragged | Sequence[str]) -> None:
        """Add documents; all are there when it returns, or none. DataError for an id that is there already."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents, all or none; DataError for an id that is not there."""

    def update(self, ids: Sequence[str], documents: Ragged | Sequence[str]) -> None:
        """Put other embeddings (texts) in the place of these documents' own, all or none."""


class IndexKind(Protocol):
    """A choice of index with its parameters, as the configuration names it."""

    takes: Literal["embeddings", "texts"]
    # The class of its own search parameters, None where it has none.
    probe: type | None

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> IndexWriter:
        """Begin, or go on with, an index in this directory."""

    def open(self, directory: Path) -> Index:
        """Open the finished index in this directory, memory-mapped."""
