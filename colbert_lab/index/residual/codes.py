"""A compressed collection as the kernels read it: the codec's tables and the codes of all documents."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from colbert_lab.compression.residual import Codec
from colbert_lab.index.files import Files
from colbert_lab.index.residual.simd import TILE, WORD
from colbert_lab.ragged import Ragged

_CODEC = "codec-"


@dataclass(frozen=True)
class Codes:
    """R documents' vectors, T in all, compressed.

    codec     how
    codes     [T] uint16 or uint32: the centroid of each vector
    packed    [T, bytes] uint8: its residual
    scales    [T] uint8: the number of its scale; [0] where the codec has none
    offsets   [R + 1] int64: document r is the vectors offsets[r] .. offsets[r + 1]
    """

    codec: Codec
    codes: np.ndarray
    packed: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, files: Files) -> "Codes":
        """The compressed collection that is committed in files."""
        scales = files.array("scales") if "scales" in files else np.empty(0, np.uint8)
        return cls(
            stored_codec(files), files.array("codes"), files.array("packed"), scales, offsets(files.array("lengths"))
        )

    @property
    def vectors(self) -> int:
        """T."""
        return len(self.codes)

    @property
    def centroids(self) -> int:
        """K."""
        return len(self.codec.centroids)

    @cached_property
    def empty(self) -> np.ndarray:
        """Bool [R]: True where a document has no vector."""
        return self.offsets[1:] == self.offsets[:-1]

    @cached_property
    def rotated(self) -> np.ndarray:
        """The centroids in the basis of rotated queries, fp32, with rows of 0 up to a multiple of 8."""
        padded = np.zeros((-(-self.centroids // TILE) * TILE, self.codec.dim), np.float32)
        padded[: self.centroids] = self.codec.centroids_rotated.numpy()
        return padded

    def rotate(self, query: np.ndarray) -> np.ndarray:
        """Query vectors [m, d] fp32 in the basis of the tables; numpy starts no threads for so small a product."""
        rotation = self.codec.rotation
        return np.ascontiguousarray(query if rotation is None else query @ rotation.numpy())

    @cached_property
    def tables(self) -> tuple:
        """What kernels.refine calls codec: centroids, first dimensions, codewords, whether bytes share them, scales."""
        words = self.codec.table.numpy()
        assert words.shape[2] == WORD
        shared = bool((words == words[:1]).all())
        words = np.ascontiguousarray(words[:1] if shared else words, np.float32).reshape(-1)
        levels = self.codec.scale_levels.numpy() if self.codec.scaled else np.ones(256, np.float32)
        return self.rotated, self.codec.first.numpy(), words, shared, levels

    @cached_property
    def small(self) -> "tuple | None":
        """What kernels.refine_by_codes calls small; None where this CPU or d is not what it needs.

        Codewords [256 x 8] or [bytes x 256 x 8] as bytes about 128 and their step, centroids [K, d] int8 and their
        step, the centroids' squared norms, first dimensions, and what is between two bytes' codewords (0 if shared).
        """
        from colbert_lab.scoring.llvm import has_avx2

        if not has_avx2() or self.codec.dim % 16:
            return None
        centroids, first, words, shared, _ = self.tables
        centroids = centroids[: self.centroids]
        numbers, step = _eight_bits(words)
        small, centroid_step = _eight_bits(centroids)
        squares = np.einsum("kd,kd->k", centroids, centroids)
        return (
            (numbers.astype(np.int16) + 128).astype(np.uint8),
            step,
            small,
            centroid_step,
            squares,
            first,
            0 if shared else 256,
        )

    @cached_property
    def quarters(self) -> np.ndarray:
        """How long the quarters of codewords in 8 bits can be, as scoring.simd_codes sums them: [4] float64."""
        words, _, _, _, _, first, stride = self.small
        words = words.reshape(-1, 256, WORD).astype(np.float64) - 128
        squares = np.zeros(4)
        middle = self.codec.dim // 2
        for byte in range(len(first) - 1):
            dims = np.arange(first[byte], first[byte + 1])
            part = words[byte if stride else 0][:, : len(dims)] ** 2
            quarter = dims // middle * 2 + dims // 2 % 2
            squares += [(part * (quarter == number)).sum(1).max() for number in range(4)]
        return np.maximum(np.sqrt(squares), 1.0)

    @cached_property
    def arrays(self) -> tuple:
        """What kernels.refine calls store: codes, packed, scales, offsets."""
        return self.codes, self.packed, self.scales, self.offsets

    def decode(self, row: int) -> torch.Tensor:
        """The vectors [n, d] of a document as the codec gives them back."""
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        scales = torch.from_numpy(self.scales[part].copy()) if self.codec.scaled else None
        codes = torch.from_numpy(self.codes[part].astype(np.int64))
        return self.codec.decode(codes, torch.from_numpy(self.packed[part].copy()), scales)

    def decoded(self, rows: np.ndarray) -> Ragged:
        """Documents as the codec gives them back."""
        vectors = [self.decode(int(row)) for row in rows]
        return Ragged.from_list(vectors) if vectors else Ragged(torch.empty(0, self.codec.dim), torch.zeros(0).long())


def _eight_bits(values: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Whole numbers of the same shape, int8, and their step in fp32."""
    step = np.float32(max(float(np.abs(values).max(initial=0.0)), 1e-12) / 127)
    return np.rint(values / step).astype(np.int8), step


def offsets(lengths: np.ndarray) -> np.ndarray:
    """[R + 1] int64 of lengths [R] of any integer type: beyond 2^31 vectors 32 bits would overflow."""
    found = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=found[1:])
    return found


def stage_codec(files: Files, codec: Codec) -> None:
    """Stage what a codec is made of."""
    for name, tensor in codec.arrays().items():
        files.replace(_CODEC + name, tensor.numpy())


def stored_codec(files: Files) -> Codec:
    """The codec in files, whose facts say its kind and bits."""
    names = ("centroids", "rotation", "table", "cutoffs", "weights")
    arrays = {name: files.array(_CODEC + name) for name in names if _CODEC + name in files}
    return Codec.from_arrays(arrays, files.facts)


def has_codec(files: Files) -> bool:
    """Whether a codec is committed in files."""
    return _CODEC + "centroids" in files
