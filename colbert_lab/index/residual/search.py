"""Searching compressed documents: centroid scores, an approximation by them, and residuals where they matter.

    1  scores of all centroids, S = C·Qᵀ, and the same as bytes
    2  candidates: all documents, or where there are many, those in the lists of each query vector's best centroids
    3  approximation: a document is scored by its vectors' centroids alone, 32 query vectors an instruction
    4  refinement of the best: for each query vector, the residuals of the document vectors that can be its best match

PLAID's stages 2 and 3 (arXiv 2205.09707) are one here: a document's approximation costs less than choosing which of its
centroids to leave out.
"""

import threading
from dataclasses import dataclass

import numpy as np

from colbert_lab.index.residual import kernels
from colbert_lab.index.residual.codes import Codes
from colbert_lab.index.residual.lists import best_cells, rows_of_cells
from colbert_lab.index.residual.probe import ResidualProbe
from colbert_lab.index.residual.simd import BYTES, TILE
from colbert_lab.index.rows import Rows
from colbert_lab.scoring.codes import CodedQueries
from colbert_lab.scoring.llvm import LANES
from colbert_lab.scoring.maxsim import EMPTY
from colbert_lab.threads import share

# The least work that is worth a thread's while.
_CENTROIDS, _DOCUMENTS, _REFINED = 1024, 1024, 16
# How often more cells are tried where too few documents stand in the first, and how many more, before all are taken.
_WIDER = (1, 8)
# Of a query vector's norm: estimates by 8-bit products are off by a tenth of it with codec=product (root mean square).
# With Stanford's codec a best match is left out now and then, for one that is nearly as good.
_WINDOW = 0.015


@dataclass(frozen=True)
class Found:
    """What one query found: rows after each stage, and the scores (float32) of the last."""

    candidates: np.ndarray
    rows: np.ndarray
    scores: np.ndarray


class Searcher:
    """The stages of a search over the codes of R documents and their inverted lists.

    `rows` says which of two goes first where their approximations are equal.
    """

    def __init__(self, codes: Codes, lists: np.ndarray, list_bytes: np.ndarray, rows: Rows):
        self._codes, self._rows = codes, rows
        self._lists = lists
        self._list_ends = np.zeros(len(list_bytes) + 1, np.int64)
        np.cumsum(list_bytes, dtype=np.int64, out=self._list_ends[1:])
        self._scratch = threading.local()

    def find(self, query: np.ndarray, k: int, allowed: np.ndarray, probe: ResidualProbe, threads: int) -> Found:
        """At least min(k, allowed rows) rows with their scores, for query vectors [m, d] fp32 and a resolved probe.

        `allowed` is bool [R]. A score is the sum over query vectors of the best dot product; EMPTY where a document has
        no vector.
        """
        vectors = len(query)
        if vectors == 0 or not allowed.any():
            rows = np.flatnonzero(allowed)
            return Found(rows, rows, np.zeros(len(rows), np.float32))
        query = self._codes.rotate(query)
        scores = self._centroid_scores(query, threads)
        table, step = self._table(scores, vectors, threads)
        candidates = self._candidates(scores, vectors, k, allowed, probe)
        # Documents without vectors can outnumber any count of vectors, and scores differ by more than any margin that
        # does not know the query's norms.
        count, steps = (len(candidates), 255) if probe.exact else (probe.candidates, np.ceil(probe.margin * step))
        rows, margin = self._approximate(table, candidates, count, threads), int(min(255.0, steps))
        refined = np.empty(len(rows), np.float32)
        tables, arrays, small = self._codes.tables, self._codes.arrays, self._codes.small
        if probe.exact or small is None:
            ends = (tables, arrays, rows, refined)
            share(
                lambda first, last: kernels.refine(table, vectors, margin, query, *ends, first, last),
                len(rows),
                threads,
                least=_REFINED,
            )
        else:
            coded = CodedQueries.of(query, self._codes.quarters)
            window = np.float32(_WINDOW * coded.norms.max())
            lanes = (coded.blocks, coded.table, coded.correction, coded.units)
            ends = (scores, query, lanes, tables, small, arrays, rows, refined)
            share(
                lambda first, last: kernels.refine_by_codes(table, vectors, margin, window, *ends, first, last),
                len(rows),
                threads,
                least=_REFINED,
            )
        refined[self._codes.empty[rows]] = EMPTY * vectors
        return Found(candidates, rows, refined)

    def _centroid_scores(self, query: np.ndarray, threads: int) -> np.ndarray:
        """S [K rounded up, m rounded up] fp32."""
        blocks = -(-len(query) // LANES)
        padded = np.zeros((blocks * LANES, query.shape[1]), np.float32)
        padded[: len(query)] = query
        columns = np.ascontiguousarray(padded.reshape(blocks, LANES, -1).transpose(0, 2, 1))
        centroids = self._codes.rotated
        scores = self._buffer("scores", (len(centroids), blocks * LANES), np.float32)
        share(
            lambda first, last: kernels.centroid_scores(centroids, columns, scores, first, last),
            len(centroids),
            threads,
            unit=TILE,
            least=_CENTROIDS,
        )
        return scores

    def _table(self, scores: np.ndarray, vectors: int, threads: int) -> tuple[np.ndarray, float]:
        """S as bytes [K, lanes], and how many of their steps make a score of 1.

        Each query vector's range ends with its best centroid and begins, at the same distance for all, about where the
        mean of the centroids is: what scores less is hardly a best match, and a sum of equal steps keeps the order.
        """
        bounds = np.empty((2, scores.shape[1]), np.float32)
        kernels.spread(scores, self._codes.centroids, bounds)
        width = max(float((bounds[0] - bounds[1])[:vectors].max()), 1e-6)
        step = np.float32(255 / width)
        table = self._buffer("table", (len(scores), -(-vectors // BYTES) * BYTES), np.uint8)
        low = bounds[0] - np.float32(width)
        share(
            lambda first, last: kernels.quantise(scores, low, step, vectors, table, first, last),
            len(scores),
            threads,
            least=_CENTROIDS,
        )
        return table, float(step)

    def _candidates(
        self, scores: np.ndarray, vectors: int, k: int, allowed: np.ndarray, probe: ResidualProbe
    ) -> np.ndarray:
        everything = np.flatnonzero(allowed)
        most = self._codes.centroids
        if probe.cells == 0 or len(everything) <= k or (probe.cells >= most and probe.threshold is None):
            return everything
        threshold = -np.inf if probe.threshold is None else probe.threshold
        for wider in _WIDER:
            cells = np.empty((vectors, min(probe.cells * wider, most)), np.int64)
            best_cells(scores, most, vectors, cells.shape[1], threshold, cells)
            found = np.empty(len(everything), np.int64)
            count = rows_of_cells(np.unique(cells), self._lists, self._list_ends, allowed.astype(np.uint8), found)
            if count >= k:
                return found[:count]
        return everything

    def _approximate(self, table: np.ndarray, rows: np.ndarray, count: int, threads: int) -> np.ndarray:
        """The best `count` of rows by their centroids alone, ascending."""
        if len(rows) <= count:
            return rows
        scores = np.empty(len(rows), np.int32)
        codes, offsets = self._codes.codes, self._codes.offsets
        share(
            lambda first, last: kernels.approximate(table, codes, offsets, rows, scores, first, last),
            len(rows),
            threads,
            least=_DOCUMENTS,
        )
        last = np.partition(scores, len(rows) - count)[len(rows) - count]
        sure, tied = rows[scores > last], rows[scores == last]
        if len(sure) + len(tied) > count:
            tied = tied[np.argsort(self._rows.place[tied])[: count - len(sure)]]
        return np.sort(np.concatenate([sure, tied]))

    def _buffer(self, name: str, shape: tuple[int, int], dtype: type) -> np.ndarray:
        """Memory of this thread that is used again by its next query: fresh pages cost more than what is computed."""
        size = shape[0] * shape[1]
        held = getattr(self._scratch, name, None)
        if held is None or held.size < size:
            held = np.empty(size, dtype)
            setattr(self._scratch, name, held)
        return held[:size].reshape(shape)
