"""MaxSim of packed documents on a CPU: all of them, or some rows in place, without a copy and without padding.

The same numbers as `maxsim_ragged`, several times as fast: documents are read once, as they are stored (fp16, bf16 or
fp32), and no similarity is written to memory (see simd.py). Equal documents have equal scores, bit for bit, wherever
they lie and whatever else is scored with them. As many threads as torch has (`torch.set_num_threads`).
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged
from colbert_lab.scoring.maxsim import EMPTY, Similarity, maxsim_ragged
from colbert_lab.threads import share

# Values that are copied at once where they cannot be read in place: 16 MB in fp32.
_COPIED_VALUES = 2**22
# Products below which a second thread costs more than it brings.
_ONE_THREAD = 2**22


def maxsim_packed(queries: Ragged, documents: Ragged, similarity: Similarity = "cosine") -> Tensor:
    """Score every query against every document: [B, N] in fp32 (fp64 for fp64 documents), without gradients.

    Exactly what `maxsim_ragged` computes, to which it leaves fp64 and what does not lie on the CPU.
    """
    if documents.values.device.type != "cpu" or documents.values.dtype == torch.float64:
        return maxsim_ragged(queries, documents, similarity)
    return torch.from_numpy(PackedDocuments(documents, similarity).scores(queries))


class PackedDocuments:
    """Documents to be scored many times, all or some: where each begins, and its values as the kernels read them."""

    def __init__(self, documents: Ragged, similarity: Similarity = "cosine"):
        """`documents` on the CPU, in fp32, fp16 or bf16; their values may be mapped from a file."""
        if similarity not in ("cosine", "l2"):
            raise ConfigError(f"similarity is {similarity!r}, but must be 'cosine' or 'l2'")
        self.documents, self.similarity = documents, similarity
        self.lengths = documents.lengths.numpy()
        self.starts = documents.offsets.numpy()[:-1]
        self.bits = _readable(documents.values)

    def __len__(self) -> int:
        return len(self.lengths)

    def scores(self, queries: Ragged, rows: np.ndarray | None = None) -> np.ndarray:
        """fp32 [B, n]: every query against the documents with these numbers (all of them where None), in their order.

        A document without vectors scores EMPTY a query vector.
        """
        self.check(queries)
        starts, lengths = (self.starts, self.lengths) if rows is None else (self.starts[rows], self.lengths[rows])
        if self.bits is not None:
            return self._scores(queries, self.bits, starts, lengths)
        rows = np.arange(len(self)) if rows is None else rows
        parts = [np.empty((len(queries), 0), np.float32)]
        for first, last in pieces(lengths, max(1, _COPIED_VALUES // self.documents.dim)):
            copied = self.documents.select(rows[first:last]).to(dtype=torch.float32)
            values = padded(copied.values)
            starts = copied.offsets.numpy()[:-1]
            parts.append(self._scores(queries, values.numpy().reshape(-1), starts, lengths[first:last]))
        return np.concatenate(parts, axis=1)

    def check(self, queries: Ragged) -> None:
        """ConfigError where the queries' vectors have another dimension."""
        if queries.dim != self.documents.dim:
            raise ConfigError(f"query vectors have {queries.dim} dimensions, document vectors {self.documents.dim}")

    def _scores(self, queries: Ragged, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        from colbert_lab.scoring.simd import best_of_floats

        vectors = padded(queries.values.to(device="cpu", dtype=torch.float32))
        blocks = block_sizes(len(vectors))
        table, bounds, dim = lay_out(vectors.numpy(), blocks, 1), queries.offsets.numpy(), vectors.shape[1]
        l2 = self.similarity == "l2"
        sums = np.zeros((len(queries), len(lengths)))
        in_threads(
            len(lengths),
            int(lengths.sum()) * vectors.numel(),
            lambda first, last: best_of_floats(
                values, dim, starts, lengths, blocks, table, bounds, l2, sums, first, last
            ),
        )
        return finished(sums, queries, lengths, self.similarity).astype(np.float32)


def finished(sums: np.ndarray, queries: Ragged, lengths: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Scores [B, n] from the kernels' sums, in place: for l2, twice the sum of q·d - |d|²/2 less the sum of |q|²."""
    if similarity == "l2":
        norms = queries.values.cpu().double().square().sum(1)
        sums *= 2
        sums -= np.array([float(part.sum()) for part in norms.split(queries.lengths.tolist())])[:, None]
    sums[:, lengths == 0] = EMPTY * queries.lengths.numpy()[:, None]
    return sums


def block_sizes(vectors: int) -> np.ndarray:
    """Registers of each block of query vectors: as few blocks as do, all about as large."""
    from colbert_lab.scoring.llvm import LANES, MAX_REGISTERS

    registers = max(1, -(-vectors // LANES))
    count = -(-registers // MAX_REGISTERS)
    return np.array([registers // count + (block < registers % count) for block in range(count)])


def lay_out(vectors: np.ndarray, blocks: np.ndarray, together: int) -> np.ndarray:
    """Query vectors [m, d] as the kernels read them: a block after another, each [d / together, lanes, together]."""
    from colbert_lab.scoring.llvm import LANES

    lanes = np.zeros((int(blocks.sum()) * LANES, vectors.shape[1]), vectors.dtype)
    lanes[: len(vectors)] = vectors
    parts = np.split(lanes, np.cumsum(blocks)[:-1] * LANES)
    return np.concatenate([p.reshape(len(p), -1, together).transpose(1, 0, 2).reshape(-1) for p in parts])


def padded(values: Tensor) -> Tensor:
    """Values [T, d] with zeros behind, so that d is a multiple of what is read at once."""
    from colbert_lab.scoring.llvm import PART

    return F.pad(values, (0, -values.shape[1] % PART)).contiguous()


def pieces(lengths: np.ndarray, vectors: int):
    """(first, last) of runs of documents of at most that many vectors together, or of one document that has more."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    first = 0
    while first < len(lengths):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + vectors, side="right")) - 1)
        yield first, last
        first = last


def in_threads(count: int, work: int, run: Callable[[int, int], None]) -> None:
    """run(first, last) over pieces of 0:count, in torch's number of threads where there is `work` (products) for them.

    Threads of Python rather than numba's: those must not be entered from two threads, nor after a fork.
    """
    share(run, count, 1 if work < _ONE_THREAD else torch.get_num_threads())


def _readable(values: Tensor) -> np.ndarray | None:
    """The values, flat, as the kernels read them in place; None where this hardware, dtype or d needs a copy first."""
    from colbert_lab.scoring.llvm import PART, widens_half

    if values.shape[1] % PART or not values.is_contiguous():
        return None
    if values.dtype == torch.float32:
        return values.numpy().reshape(-1)
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().reshape(-1).view(np.uint16)
    if values.dtype == torch.float16 and widens_half():
        return values.view(torch.int16).numpy().reshape(-1)
    return None
