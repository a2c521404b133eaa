"""The exact best k documents by MaxSim without scoring most of them exactly: 8-bit estimates, and what they may be off.

The k documents with the best estimates (codes.py) are scored exactly; the k-th of these scores is passed only by
documents whose estimate plus bound reaches it, and those are scored exactly too. What is left out cannot be among the
best k, ties included.

Their codes are made at the first search and kept in memory, d + 8 bytes a vector, where that is at most a quarter of
the machine's memory and its CPU has the instructions (AVX2); else everything is scored exactly, from the store itself.
"""

from functools import cached_property

import numpy as np

from colbert_lab.ragged import Ragged
from colbert_lab.scoring.codes import Codes, codes_fit
from colbert_lab.scoring.kernels import PackedDocuments
from colbert_lab.scoring.maxsim import Similarity

# Estimates alive at once.
_ESTIMATES = 2**22


class PrunedSearch:
    """The exact best k of documents that are searched again and again."""

    def __init__(self, documents: Ragged, similarity: Similarity = "cosine"):
        self._packed = PackedDocuments(documents, similarity)

    @cached_property
    def _codes(self) -> Codes | None:
        return Codes.of(self._packed) if codes_fit(self._packed.documents) else None

    def best(self, queries: Ragged, k: int, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query (scores fp32, numbers) of the best k among the documents `rows`, ascending numbers.

        In no order, with all documents that tie with the k-th. Memory is bounded whatever the number of documents.
        """
        self._packed.check(queries)
        found = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(queries)
        # Where most documents are asked for there is little to prune.
        codes = self._codes if 4 * k < len(rows) else None
        step = max(1, _ESTIMATES // max(1, len(queries)))
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            if codes is None:
                scores = self._packed.scores(queries, some)
                found = [keep_best(*kept, scores[i], some, k) for i, kept in enumerate(found)]
            else:
                estimates, bounds = codes.estimates(queries, some)
                for i, kept in enumerate(found):
                    found[i] = self._refine(queries[i : i + 1], estimates[i], bounds[i], some, k, kept)
        return found

    def scores(self, queries: Ragged, rows: np.ndarray) -> np.ndarray:
        """fp32 [B, n]: every query against the documents with these numbers, in their order."""
        return self._packed.scores(queries, rows) if self._codes is None else self._codes.scores(queries, rows)

    def _refine(self, query: Ragged, estimates: np.ndarray, bounds: np.ndarray, rows: np.ndarray, k: int, kept):
        """Add to the best so far what of `rows` is among the best k."""
        upper = estimates + bounds
        likely = np.argpartition(estimates, -min(k, len(rows)))[-min(k, len(rows)) :]
        open_ = np.ones(len(rows), dtype=bool)
        for candidates in (likely, None):
            threshold = kept[0].min() if len(kept[0]) >= k else -np.inf
            # Not "reaches it", which is false of an estimate that is no number.
            open_ &= ~(upper < threshold)
            chosen = np.flatnonzero(open_) if candidates is None else candidates[open_[candidates]]
            open_[chosen] = False
            if len(chosen):
                kept = keep_best(*kept, self.scores(query, rows[chosen])[0], rows[chosen], k)
        return kept


def keep_best(
    scores: np.ndarray, rows: np.ndarray, more: np.ndarray, more_rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of both and everything that ties with the k-th, in no order."""
    scores, rows = np.concatenate([scores, more]), np.concatenate([rows, more_rows])
    if len(scores) <= k:
        return scores, rows
    keep = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    return scores[keep], rows[keep]
