"""The exact best k documents by MaxSim without scoring most of them exactly: 8-bit estimates, and what they may be off.

A vector d is kept as d' = c/s with whole numbers |c| <= 127 and its own scale s, beside the length of its error
|d - d'|; a query vector q becomes q' the same way at each search. By Cauchy and Schwarz

    |q·d - q'·d'|  =  |q·(d - d') + (q - q')·d'|  <=  |q| |d - d'| + |q - q'| |d'|,

and a maximum moves by no more than what it is taken over, so that the sum over the query's vectors is off by at most
e Σ|q| + D Σ|q - q'|, where e and D are the largest |d - d'| and |d'| of the document; to which comes what fp32
arithmetic itself may lose. The k documents with the best estimates are scored exactly; the k-th of these scores is
passed only by documents whose estimate plus bound reaches it, and those are scored exactly too. What is left out
cannot be among the best k, ties included.

The estimates cost a quarter of fp32's arithmetic and read a quarter of its bytes. They are made of all documents at the
first search and kept in memory, d + 8 bytes a vector, where that is at most a quarter of the machine's memory and its
CPU has the instructions (AVX2); else everything is scored exactly, straight from the store.
"""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.ragged import Ragged
from colbert_lab.scoring.kernels import (
    PackedDocuments,
    block_sizes,
    finished,
    in_threads,
    lay_out,
    padded,
)
from colbert_lab.scoring.maxsim import Similarity

# |c| of a whole vector. More leaves less for the query: their product is bounded by what 16 bits hold.
_CODE_NORM = 300
# Two 16-bit sums make a dot product; each must fit, and a pair of products too: 255 x (64 + 64) < 2**15.
_SUM, _QUERY_PEAK = 2**15 - 1, 64
# Estimates alive at once, and values that are coded at once.
_ESTIMATES, _CODED_VALUES = 2**22, 2**17
# Below this a value's square, or its scale, leaves the range of fp32.
_TINY = 1e-18


class PrunedSearch:
    """The exact best k of documents that are searched again and again."""

    def __init__(self, documents: Ragged, similarity: Similarity = "cosine"):
        self._packed = PackedDocuments(documents, similarity)

    @cached_property
    def _codes(self) -> "Codes | None":
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
                kept = keep_best(*kept, self._packed.scores(query, rows[chosen])[0], rows[chosen], k)
        return kept


@dataclass(frozen=True)
class Codes:
    """Documents' vectors in 8 bits, with how far each document's may be off.

    `codes` [T, d'] holds c + 128; `scales` [T] what c is to be multiplied by, `bias` [T] minus |d|²/2 for l2, else 0.
    `errors` and `norms` [N] are the largest |d - d'| and max(|d|, |d'|) of a document, `halves` [2] the largest norms
    of c's two halves, as the kernel sums them.
    """

    documents: PackedDocuments
    codes: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    errors: np.ndarray
    norms: np.ndarray
    halves: np.ndarray

    @classmethod
    def of(cls, documents: PackedDocuments) -> "Codes":
        """The codes of all these documents, made piece by piece."""
        values, lengths = documents.documents.values, documents.documents.lengths
        count, dim = len(values), values.shape[1] + -values.shape[1] % 8
        codes, halves = torch.empty(count, dim, dtype=torch.uint8), torch.ones(2)
        # Apart, since views would keep all four for as long as the first two are kept.
        scales, bias, errors, norms = (torch.zeros(count) for _ in range(4))
        step = max(1, _CODED_VALUES // dim)
        for first in range(0, count, step):
            piece = slice(first, first + step)
            exact = padded(values[piece].to(torch.float32, copy=True))
            norm = exact.norm(dim=1)
            whole, scale = _code(exact, norm)
            codes[piece], scales[piece] = whole + 128, scale
            whole_halves = _half_norms(whole)
            halves = torch.maximum(halves, whole_halves.amax(0))
            norms[piece] = torch.maximum(norm, scale * whole_halves.norm(dim=1))
            errors[piece] = exact.addcmul_(whole, scale[:, None], value=-1).norm(dim=1)
            if documents.similarity == "l2":
                bias[piece] = norm.square() * -0.5
        largest = [torch.segment_reduce(part, "max", lengths=lengths, initial=0.0) for part in (errors, norms)]
        # Rounded up: the norms were themselves computed in fp32.
        errors, norms = ((part.double() * (1 + 1e-4)).numpy() + _TINY for part in largest)
        errors += 1e-6 * norms
        flat = codes.numpy().reshape(-1)
        return cls(documents, flat, scales.numpy(), bias.numpy(), errors, norms, halves.double().numpy())

    def estimates(self, queries: Ragged, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of every query and these documents [B, n], and how far the fp32 scores can be from them [B, n]."""
        from colbert_lab.scoring.simd import LANES, best_of_codes

        vectors = padded(queries.values.to(device="cpu", dtype=torch.float32))
        whole, units = self._query_codes(vectors)
        blocks, dim, bounds = block_sizes(len(vectors)), vectors.shape[1], queries.offsets.numpy()
        table = lay_out(whole.to(torch.int8).numpy(), blocks, 4)
        # Codes are 128 too large, which adds 128 Σq to each half; 16-bit sums wrap around to where they belong.
        halves = whole.view(len(whole), -1, 2, 2).sum((1, 3)).numpy().astype(np.int64)
        lanes = int(blocks.sum()) * LANES
        lane_units = np.zeros(lanes, np.float32)
        lane_units[: len(units)] = units.numpy()
        correction = np.zeros((lanes, 2), np.int16)
        correction[: len(whole)] = (-128 * halves).astype(np.int16)
        starts, lengths = self.documents.starts[rows], self.documents.lengths[rows]
        sums = np.zeros((len(queries), len(rows)))
        arguments = (self.codes, dim, starts, lengths, blocks, table, correction.reshape(-1), bounds)
        in_threads(
            len(rows),
            int(lengths.sum()) * vectors.numel(),
            lambda first, last: best_of_codes(*arguments, self.scales, lane_units, self.bias, sums, first, last),
        )
        estimates = finished(sums, queries, lengths, self.documents.similarity)
        residuals = (vectors.double() - whole.double() * units.double()[:, None]).norm(dim=1)
        return estimates, self._bounds(queries, vectors.double().norm(dim=1), residuals, rows)

    def _query_codes(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Whole numbers [m, d] and their units [m]: as fine as no 16-bit sum can overflow."""
        limits = torch.from_numpy(_SUM / self.halves)
        # What cannot be coded is left to the residual, whose bound then prunes nothing.
        vectors = torch.where(vectors.abs() < 1 / _TINY, vectors, 0.0)
        peaks = vectors.abs().amax(1).clamp(min=_TINY)
        ratios = (_half_norms(vectors / peaks[:, None]).double() / limits).amax(1)
        scales = (1 / ratios).clamp(max=_QUERY_PEAK).float()
        whole = (vectors / peaks[:, None] * scales[:, None]).round()
        while True:
            over = (_half_norms(whole).double() > limits).any(1) | (whole.abs().amax(1) > _QUERY_PEAK)
            if not over.any():
                return whole, peaks / scales
            scales[over] *= 0.98
            whole = (vectors / peaks[:, None] * scales[:, None]).round()

    def _bounds(self, queries: Ragged, norms: Tensor, residuals: Tensor, rows: np.ndarray) -> np.ndarray:
        per_query = queries.lengths.tolist()
        norm, residual, square = (
            np.array([float(part.sum()) for part in values.split(per_query)])[:, None]
            for values in (norms, residuals, norms.square())
        )
        largest = self.norms[rows]
        # fp32: a sum of d products is off by less than d x 2**-24 of their sizes; here with a factor of two to spare.
        rounding = (queries.dim + 32) * 2.0**-23
        bounds = self.errors[rows] * norm + largest * residual + rounding * largest * norm
        if self.documents.similarity == "l2":
            count = queries.lengths.numpy()[:, None]
            bounds = 2 * bounds + rounding * (count * largest**2 + square)
        bounds[:, self.documents.lengths[rows] == 0] = 0
        return bounds


def codes_fit(documents: Ragged) -> bool:
    """Whether the codes of these documents are made: AVX2, and at most a quarter of the machine's memory."""
    from colbert_lab.scoring.simd import has_avx2

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return has_avx2() and 0 < len(documents.values) * (documents.dim + 8) <= memory // 4


def keep_best(
    scores: np.ndarray, rows: np.ndarray, more: np.ndarray, more_rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of both and everything that ties with the k-th, in no order."""
    scores, rows = np.concatenate([scores, more]), np.concatenate([rows, more_rows])
    if len(scores) <= k:
        return scores, rows
    keep = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    return scores[keep], rows[keep]


def _code(exact: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers [T, d] within ±127 and the scale [T] that brings them back, for vectors [T, d] of these norms."""
    peak = torch.maximum(exact.amax(1), -exact.amin(1))
    scale = torch.maximum(peak / 127, norm / _CODE_NORM)
    scale = torch.where(peak > _TINY, scale, torch.ones_like(scale))
    return (exact / scale[:, None]).round_().clamp_(-127, 127), scale


def _half_norms(whole: Tensor) -> Tensor:
    """Norms [T, 2] of the components that the kernel sums apart: 0, 1, 4, 5, ... and 2, 3, 6, 7, ..."""
    half = torch.arange(whole.shape[1]) // 2 % 2
    return (whole.square() @ F.one_hot(half, 2).to(whole.dtype)).sqrt()
