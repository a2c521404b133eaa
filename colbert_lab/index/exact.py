"""Exact search: the best documents by MaxSim over all of them; what other indexes are held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from colbert_lab.errors import ConfigError
from colbert_lab.index.files import Files
from colbert_lab.index.rows import check_search
from colbert_lab.index.store import Store, StoreDtype, StoreWriter, edit_rows, stage
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run
from colbert_lab.scoring.maxsim import Similarity
from colbert_lab.scoring.pruned import PrunedSearch

# Query vectors scored together: enough to read the documents seldom, few enough that theirs stay in the cache.
_QUERY_VECTORS = 1024


@dataclass(frozen=True)
class ExactIndexKind:
    """`index=exact`: all token embeddings as they are, in `dtype`."""

    dtype: StoreDtype = "fp16"
    takes: ClassVar[Literal["embeddings"]] = "embeddings"
    probe: ClassVar[None] = None

    def __post_init__(self):
        if self.dtype not in get_args(StoreDtype):
            raise ConfigError(
                f"dtype={self.dtype!r} is none of {', '.join(get_args(StoreDtype))}\ntry: index.dtype=fp16"
            )

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> StoreWriter:
        """Begin, or go on with, the store in this directory."""
        return StoreWriter(directory, dim, self.dtype, similarity)

    def open(self, directory: Path) -> "ExactIndex":
        """The finished index in this directory."""
        return ExactIndex(directory)


class ExactIndex:
    """MaxSim over a store."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._open()

    def _open(self) -> None:
        self._store = Store.open(self._directory)
        self._pruned = PrunedSearch(self._store.embeddings, self.similarity)

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""
        return self._store.rows.ids

    def __len__(self) -> int:
        return len(self._store.rows)

    @property
    def similarity(self) -> Similarity:
        """How its vectors are compared."""
        return self._store.facts["similarity"]

    def stats(self) -> dict[str, Any]:
        """Documents, vectors, dimensions, dtype and bytes of all files."""
        return {**self._store.facts, "bytes": self._store.files.bytes()}

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""
        self._store.files.verify()

    def embeddings(self, ids: Sequence[str]) -> Ragged:
        """The stored embeddings of these documents; DataError for an id that is not in the index."""
        return self._store.embeddings.select(self._store.rows.of(ids).tolist())

    def scores(self, queries: Ragged, ids: Sequence[str]) -> np.ndarray:
        """MaxSim, fp32 [B, n], of every query and these documents where they lie; DataError for an unknown id."""
        return self._pruned.scores(queries, self._store.rows.of(ids))

    def add(self, ids: Sequence[str], documents: Ragged) -> None:
        """Add documents; all are there when it returns, or none. DataError for an id that is there already."""
        self._edit(added=ids, documents=documents)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents from every later search; their vectors stay on the disk. DataError for an unknown id."""
        self._edit(removed=ids)

    def update(self, ids: Sequence[str], documents: Ragged) -> None:
        """Put other embeddings in the place of these documents' own; DataError for an unknown id."""
        self._edit(added=ids, documents=documents, replace=True)

    def _edit(self, removed=(), added=(), documents: Ragged | None = None, replace: bool = False) -> None:
        with Files.edit(self._directory, seen=self._store.files) as files:
            edit_rows(files, self._store.rows, removed, added, replace)
            if documents is not None:
                stage(files, added, documents)
            files.commit()
        self._open()

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged,
        k: int,
        only: Sequence[str] | None = None,
        probe: None = None,
    ) -> Run:
        """The best min(k, N) of every query (of `only` these documents) by exact MaxSim, equal scores by id.

        A query vector's dimension must be the store's. Most documents are ruled out by a bound (scoring/pruned.py)
        for which the first search reads all of them. There is nothing to probe: ConfigError where `probe` is given.
        """
        check_search(k, queries, self._store.embeddings.dim, query_ids)
        if probe is not None:
            raise ConfigError(f"an exact index has nothing to probe, {type(probe).__name__} was given\ntry: probe=auto")
        rows = np.flatnonzero(self._store.rows.allowed(only))
        hits = []
        for first, last in _query_batches(queries.lengths.tolist()):
            found = self._pruned.best(queries[first:last], k, rows)
            hits += [self._store.rows.best(scores, numbers, k) for scores, numbers in found]
        return Run(dict(zip(query_ids, hits, strict=True)), depth=k)


def _query_batches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    first, vectors = 0, 0
    for i, length in enumerate(lengths):
        if i > first and vectors + length > _QUERY_VECTORS:
            yield first, i
            first, vectors = i, 0
        vectors += length
    if first < len(lengths):
        yield first, len(lengths)
