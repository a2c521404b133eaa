"""Documents' vectors in 8 bits: estimates of MaxSim with what they may be off, and MaxSim itself by way of them.

A vector d is kept as d' = c/s with whole numbers |c| <= 127 and its own scale s, beside the length of its error
|d - d'|; a query vector q becomes q' the same way at each search. By Cauchy and Schwarz

    |q·d - q'·d'|  =  |q·(d - d') + (q - q')·d'|  <=  |q| |d - d'| + |q - q'| |d'|,

to which comes what fp32 arithmetic itself may lose. Two uses are made of it:

    estimates   a maximum moves by no more than what it is taken over, so that the sum over the query's vectors is off
                by at most e Σ|q| + D Σ|q - q'|, where e and D are the largest |d - d'| and |d'| of the document
    scores      a query vector's best match is among the document's vectors whose estimates come within twice the
                bound of the best estimate; only these are multiplied in fp32, which gives PackedDocuments' scores

The estimates cost a quarter of fp32's arithmetic and read a quarter of its bytes.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch

from colbert_lab.ragged import Ragged
from colbert_lab.scoring.kernels import PackedDocuments, block_sizes, finished, in_threads, lay_out, padded

# |c| of a whole vector, where products are summed in 16 bits: more leaves less for the query.
_CODE_NORM = 425
# Values that are copied at once where they cannot be coded in place.
_COPIED_VALUES = 2**22
# Below this a value's square, or its scale, leaves the range of fp32.
_TINY = 1e-18


@dataclass(frozen=True)
class CodedQueries:
    """Query vectors as the kernels read them, and what bounds need of them.

    `vectors` [m, d'] fp32, padded; `norms` and `residuals` [m] float64 are |q| and |q - q'|; `blocks`, `table`,
    `correction` and `units` are what code_loops.best_of_codes says.
    """

    vectors: np.ndarray
    blocks: np.ndarray
    table: np.ndarray
    correction: np.ndarray
    units: np.ndarray
    norms: np.ndarray
    residuals: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, quarters: np.ndarray | None) -> "CodedQueries":
        """For vectors [m, d'] fp32, d' a multiple of 8, and codes whose quarters are at most so long.

        Without quarters as fine as 8 bits can be, which is for CPUs alone that sum in 32 bits (llvm.WIDE).
        """
        from colbert_lab.scoring.code_loops import QUERY_PEAK, SUM, code_queries, corrections
        from colbert_lab.scoring.llvm import LANES

        blocks = block_sizes(len(vectors))
        lanes = int(blocks.sum()) * LANES
        whole, units = np.zeros(vectors.shape, np.int8), np.zeros(lanes, np.float32)
        sums, norms, residuals = np.zeros((lanes, 4), np.int32), np.empty(len(vectors)), np.empty(len(vectors))
        largest, limits = (127, np.full(4, np.inf)) if quarters is None else (QUERY_PEAK, SUM / quarters)
        code_queries(vectors, largest, limits, whole, units, sums, norms, residuals)
        return cls(vectors, blocks, lay_out(whole, blocks, 4), corrections(sums), units, norms, residuals)


@dataclass(frozen=True)
class Codes:
    """Documents' vectors in 8 bits, with how far each document's may be off.

    `codes` [T, d'] holds c + 128; `scales` [T] what c is to be multiplied by, `bias` [T] minus |d|²/2 for l2, else 0.
    `errors` and `norms` [N] are the largest |d - d'| and max(|d|, |d'|) of a document, `quarters` [4] the largest
    norms of c's quarters, as the kernel sums them.
    """

    documents: PackedDocuments
    codes: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    errors: np.ndarray
    norms: np.ndarray
    quarters: np.ndarray

    @classmethod
    def of(cls, documents: PackedDocuments) -> "Codes":
        """The codes of all these documents."""
        from colbert_lab.scoring.llvm import PART, WIDE

        values, lengths = documents.documents.values, documents.documents.lengths
        count, dim = len(values), values.shape[1] + -values.shape[1] % PART
        codes = np.empty(count * dim, np.uint8)
        scales, errors, norms, squares = (np.empty(count, np.float32) for _ in range(4))
        quarters = [np.ones(4)]

        def code(bits: np.ndarray, piece: slice) -> None:
            from colbert_lab.scoring.code_loops import code_rows

            # No row of whole numbers up to 127 is as long as 127 d.
            most = np.float32(127 * dim if WIDE else _CODE_NORM)
            facts = [part[piece] for part in (scales, errors, norms, squares)]
            part = codes[piece.start * dim : piece.stop * dim]

            def run(first: int, last: int) -> None:
                own = np.zeros(4)
                code_rows(bits, dim, most, part, *facts, own, first, last)
                quarters.append(own)

            in_threads(piece.stop - piece.start, (piece.stop - piece.start) * dim * 16, run)

        if documents.bits is not None:
            code(documents.bits, slice(0, count))
        else:
            step = max(1, _COPIED_VALUES // dim)
            for first in range(0, count, step):
                piece = slice(first, min(first + step, count))
                code(padded(values[piece].to(torch.float32)).numpy().reshape(-1), piece)
        bias = squares * np.float32(-0.5) if documents.similarity == "l2" else np.zeros(count, np.float32)
        largest = [
            torch.segment_reduce(torch.from_numpy(part), "max", lengths=lengths, initial=0.0)
            for part in (errors, norms)
        ]
        # Rounded up: the norms were themselves computed in fp32.
        errors, norms = ((part.double() * (1 + 1e-4)).numpy() + _TINY for part in largest)
        errors += 1e-6 * norms
        return cls(documents, codes, scales, bias, errors, norms, np.max(quarters, axis=0) * (1 + 1e-6))

    def estimates(self, queries: Ragged, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of every query and these documents [B, n], and how far the fp32 scores can be from them [B, n]."""
        from colbert_lab.scoring.code_loops import best_of_codes

        coded, bounds = self._coded(queries), queries.offsets.numpy()
        dim, starts, lengths = coded.vectors.shape[1], self.documents.starts[rows], self.documents.lengths[rows]
        sums = np.zeros((len(queries), len(rows)))
        arguments = (self.codes, dim, starts, lengths, coded.blocks, coded.table, coded.correction, bounds)
        in_threads(
            len(rows),
            int(lengths.sum()) * coded.vectors.size,
            lambda first, last: best_of_codes(*arguments, self.scales, coded.units, self.bias, sums, first, last),
        )
        estimates = finished(sums, queries, lengths, self.documents.similarity)
        return estimates, self._bounds(queries, coded, rows)

    def scores(self, queries: Ragged, rows: np.ndarray | None = None) -> np.ndarray:
        """fp32 [B, n]: what PackedDocuments.scores computes, bit for bit."""
        from colbert_lab.scoring.code_loops import best_by_codes

        if self.documents.bits is None:
            return self.documents.scores(queries, rows)
        self.documents.check(queries)
        every, l2 = slice(None) if rows is None else rows, self.documents.similarity == "l2"
        coded, bounds = self._coded(queries), queries.offsets.numpy()
        starts, lengths = self.documents.starts[every], self.documents.lengths[every]
        errors, norms = self.errors[every], self.norms[every]
        rounding = _rounding(queries.dim)
        squares = coded.norms**2 if l2 else np.zeros_like(coded.norms)
        slack = np.stack([coded.norms, coded.residuals + rounding * coded.norms, rounding * squares])
        if l2:
            # |d|²/2 is subtracted, and rounded with the rest.
            slack[1] += rounding * norms.max(initial=0.0)
        sums, dim = np.zeros((len(queries), len(lengths))), coded.vectors.shape[1]
        tables = (lay_out(coded.vectors, coded.blocks, 1), coded.table, coded.correction, bounds)
        terms = (self.scales, coded.units, self.bias, errors, norms, slack, l2)
        in_threads(
            len(lengths),
            int(lengths.sum()) * coded.vectors.size,
            lambda first, last: best_by_codes(
                self.documents.bits, self.codes, dim, starts, lengths, coded.blocks, *tables, *terms, sums, first, last
            ),
        )
        return finished(sums, queries, lengths, self.documents.similarity).astype(np.float32)

    def _coded(self, queries: Ragged) -> CodedQueries:
        from colbert_lab.scoring.llvm import WIDE

        vectors = padded(queries.values.to(device="cpu", dtype=torch.float32)).numpy()
        return CodedQueries.of(vectors, None if WIDE else self.quarters)

    def _bounds(self, queries: Ragged, coded: CodedQueries, rows: np.ndarray) -> np.ndarray:
        ends = np.cumsum(queries.lengths.numpy())[:-1]
        norm, residual, square = (
            np.array([part.sum() for part in np.split(values, ends)])[:, None]
            for values in (coded.norms, coded.residuals, coded.norms**2)
        )
        largest, rounding = self.norms[rows], _rounding(queries.dim)
        bounds = self.errors[rows] * norm + largest * residual + rounding * largest * norm
        if self.documents.similarity == "l2":
            count = queries.lengths.numpy()[:, None]
            bounds = 2 * bounds + rounding * (count * largest**2 + square)
        bounds[:, self.documents.lengths[rows] == 0] = 0
        return bounds


def codes_fit(documents: Ragged) -> bool:
    """Whether the codes of these documents are made: AVX2, and at most a quarter of the machine's memory."""
    from colbert_lab.scoring import llvm

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return llvm.has_avx2() and 0 < len(documents.values) * (documents.dim + 8) <= memory // 4


def _rounding(dim: int) -> float:
    """fp32: a sum of d products is off by less than d x 2**-24 of their sizes; here with a factor of two to spare."""
    return (dim + 32) * 2.0**-23
