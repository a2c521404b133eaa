"""Exact search: every document scored by MaxSim, in tiles of bounded memory; what other indexes are held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index.store import Store, StoreDtype, StoreWriter
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

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> StoreWriter:
        """Begin, or go on with, the store in this directory."""
        return StoreWriter(directory, dim, self.dtype, similarity)

    def open(self, directory: Path) -> "ExactIndex":
        """The finished index in this directory."""
        return ExactIndex(Store.open(directory))


class ExactIndex:
    """Brute-force MaxSim over a store."""

    def __init__(self, store: Store):
        self._store = store
        self._rows = {document: row for row, document in enumerate(store.ids)}
        # Equal scores are ordered by id: the place of each row among the sorted ids.
        self._id_order = np.empty(len(store.ids), dtype=np.int64)
        self._id_order[sorted(range(len(store.ids)), key=store.ids.__getitem__)] = np.arange(len(store.ids))

    def __len__(self) -> int:
        return len(self._store.ids)

    @property
    def similarity(self) -> Similarity:
        """How its vectors are compared."""
        return self._store.facts["similarity"]

    def stats(self) -> dict[str, Any]:
        """Documents, vectors, dimensions, dtype and bytes of the values."""
        values = self._store.embeddings.values
        return {**self._store.facts, "bytes": values.numel() * values.element_size()}

    def embeddings(self, ids: Sequence[str]) -> Ragged:
        """The stored embeddings of these documents; DataError for an id that is not in the index."""
        unknown = [i for i in ids if i not in self._rows]
        if unknown:
            raise DataError(f"{len(unknown)} documents are not in the index, {unknown[0]!r} is the first")
        return self._store.embeddings.select([self._rows[i] for i in ids])

    def search(self, query_ids: Sequence[str], queries: Ragged, k: int) -> Run:
        """The best min(k, N) of every query by exact MaxSim, equal scores by id.

        A query vector's dimension must be the store's. Memory is bounded by the tile sizes, not by N.
        """
        if k < 1:
            raise ConfigError(f"k={k}, but at least one document must be asked for\ntry: k=1000")
        if queries.dim != self._store.embeddings.dim:
            raise ConfigError(
                f"the queries' vectors have {queries.dim} dimensions, the index {self._store.embeddings.dim}"
            )
        hits = []
        for first, last in _query_batches(queries.lengths.tolist()):
            hits += self._search_batch(queries[first:last], k)
        return Run(dict(zip(query_ids, hits, strict=True)), depth=k)

    def _search_batch(self, queries: Ragged, k: int) -> list[Hits]:
        best: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(queries)
        for first, tile in self._tiles():
            scores = maxsim_ragged(queries, tile, self.similarity).numpy()
            for i, row_scores in enumerate(scores):
                kept, rows = best[i]
                best[i] = _keep_best(
                    np.concatenate([kept, row_scores]), np.concatenate([rows, np.arange(first, first + len(tile))]), k
                )
        return [self._hits(scores, rows, k) for scores, rows in best]

    def _tiles(self) -> Iterator[tuple[int, Ragged]]:
        embeddings = self._store.embeddings
        ends = embeddings.offsets.numpy()
        step = max(1, _TILE_VALUES // embeddings.dim)
        first = 0
        while first < len(embeddings):
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + step, side="right")) - 1)
            yield first, embeddings[first:last].to(dtype=torch.float32)
            first = last

    def _hits(self, scores: np.ndarray, rows: np.ndarray, k: int) -> Hits:
        order = np.lexsort((self._id_order[rows], -scores))[:k]
        return Hits(tuple(self._store.ids[rows[i]] for i in order), scores[order].astype(np.float64))


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
