"""Exact search: every document scored by MaxSim, in tiles of bounded memory; what other indexes are held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from colbert_lab.errors import ConfigError
from colbert_lab.index.files import Files
from colbert_lab.index.rows import check_search
from colbert_lab.index.store import Store, StoreDtype, StoreWriter, edit_rows, stage
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run
from colbert_lab.scoring.maxsim import Similarity, maxsim_ragged

# Document values converted to fp32 at once, and query vectors scored together: about 64 MB each.
_TILE_VALUES = 2**24
_QUERY_VECTORS = 1024


@dataclass(frozen=True)
class ExactIndexKind:
    """`index=exact`: all token embeddings as they are, in `dtype`."""

    dtype: StoreDtype = "fp16"
    takes: ClassVar[Literal["embeddings"]] = "embeddings"

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> StoreWriter:
        """Begin, or go on with, the store in this directory."""
        return StoreWriter(directory, dim, self.dtype, similarity)

    def open(self, directory: Path) -> "ExactIndex":
        """The finished index in this directory."""
        return ExactIndex(directory)


class ExactIndex:
    """Brute-force MaxSim over a store."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._store = Store.open(directory)

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
        files = Files.edit(self._directory)
        edit_rows(files, self._store.rows, removed, added, replace)
        if documents is not None:
            stage(files, added, documents)
        files.commit()
        self._store = Store.open(self._directory)

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged,
        k: int,
        only: Sequence[str] | None = None,
        probe: None = None,
    ) -> Run:
        """The best min(k, N) of every query (of `only` these documents) by exact MaxSim, equal scores by id.

        A query vector's dimension must be the store's. Memory is bounded by the tile sizes, not by N. There is nothing
        to probe: ConfigError where `probe` is given.
        """
        check_search(k, queries.dim, self._store.embeddings.dim)
        if probe is not None:
            raise ConfigError(f"an exact index has nothing to probe, {type(probe).__name__} was given\ntry: probe=auto")
        allowed = self._store.rows.allowed(only)
        hits = []
        for first, last in _query_batches(queries.lengths.tolist()):
            hits += self._search_batch(queries[first:last], k, allowed)
        return Run(dict(zip(query_ids, hits, strict=True)), depth=k)

    def _search_batch(self, queries: Ragged, k: int, allowed: np.ndarray) -> list[Hits]:
        best: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(queries)
        for first, tile in self._tiles():
            rows = np.flatnonzero(allowed[first : first + len(tile)])
            scores = maxsim_ragged(queries, tile, self.similarity).numpy()[:, rows]
            for i, row_scores in enumerate(scores):
                kept, kept_rows = best[i]
                best[i] = _keep_best(np.concatenate([kept, row_scores]), np.concatenate([kept_rows, rows + first]), k)
        return [self._store.rows.best(scores, rows, k) for scores, rows in best]

    def _tiles(self) -> Iterator[tuple[int, Ragged]]:
        embeddings = self._store.embeddings
        ends = embeddings.offsets.numpy()
        step = max(1, _TILE_VALUES // embeddings.dim)
        first = 0
        while first < len(embeddings):
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + step, side="right")) - 1)
            yield first, embeddings[first:last].to(dtype=torch.float32)
            first = last


def _keep_best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best and everything that ties with the k-th, in no order."""
    if len(scores) <= k:
        return scores, rows
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    keep = scores >= threshold
    return scores[keep], rows[keep]


def _query_batches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    first, vectors = 0, 0
    for i, length in enumerate(lengths):
        if i > first and vectors + length > _QUERY_VECTORS:
            yield first, i
            first, vectors = i, 0
        vectors += length
    if first < len(lengths):
        yield first, len(lengths)
