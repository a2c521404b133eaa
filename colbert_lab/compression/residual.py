"""Residual compression: a token vector as the number of its centroid and a few bits for each dimension of the rest.

    stanford   ColBERTv2's codec (arXiv 2112.01488): one set of 2^bits quantile buckets for every dimension of
               v - centroid
    product    the default: the part of v across its centroid, as a unit vector in a random basis, cut into pieces of
               8 / bits dimensions, each the nearest of 256 codewords (product quantisation, Jegou et al. 2011); and one
               byte for how far to go along it, chosen so that v's angle with the centroid comes back

Both decode by one table, where byte p of a packed residual stands for the values table[p, byte] of the dimensions
first[p] .. first[p + 1], and both give vectors of norm 1:

    v ≈ g · (centroid[code] + scale · residual),  g = 1 / norm of the sum

Why the angle: the norm is known and the angle with the centroid is kept, so that all the error is in the direction
across, where a random basis leaves it without preference. Scales of least squared error make every estimate too near
to its centroid, and unbiased ones without normalisation add the error's own norm to the vector's.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.compression.codewords import nearest_codewords, train_codewords
from colbert_lab.compression.kmeans import Assigner, kmeans
from colbert_lab.errors import ArtifactError, ConfigError

Kind = Literal["stanford", "product"]
BITS = (1, 2, 4, 8)
# Vectors encoded at once.
_ROWS = 2**14
# Scales from 1/64 to 8 in 254 equal ratios of 2.5 %, and 0 for a vector that is its centroid.
_SCALES = F.pad(torch.exp2(torch.arange(255) * (9 / 254) - 6), (1, 0))
# Directions that codewords are trained on, and pieces of them.
_DIRECTIONS, _PIECES = 2**12, 2**15
# The values that quantiles are taken of; torch.quantile refuses more than 2**24.
_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Codec:
    """Everything needed to encode and decode unit vectors.

    kind, bits     which codec, and bits a dimension (1, 2, 4, 8)
    centroids      [K, d] fp32 unit rows (up to fp16 rounding, in which they are stored)
    rotation       [d, d] fp32 orthogonal: in the rotated basis a vector is v @ rotation; None for stanford
    first          [bytes + 1] int64: byte p stands for the rotated dimensions first[p] .. first[p + 1], 8 at most
    table          [bytes, 256, 8] fp32: their values, 0 beyond the width; the same for every byte
    scale_levels   [256] fp32: the scales that a byte of `scales` stands for; None for stanford, whose scale is 1
    cutoffs        [2^bits - 1] fp32, stanford's bucket borders, else None
    weights        [2^bits] fp32, stanford's bucket values, else None
    """

    kind: Kind
    bits: int
    centroids: Tensor
    rotation: Tensor | None
    first: Tensor
    table: Tensor
    scale_levels: Tensor | None = None
    cutoffs: Tensor | None = None
    weights: Tensor | None = None

    @property
    def dim(self) -> int:
        """d, the dimension of a vector."""
        return self.centroids.shape[1]

    @property
    def bytes(self) -> int:
        """Packed residual bytes of a vector."""
        return len(self.first) - 1

    @property
    def scaled(self) -> bool:
        """Whether every vector has a scale."""
        return self.scale_levels is not None

    @property
    def centroids_rotated(self) -> Tensor:
        """The centroids [K, d] fp32 in the basis of `rotate_queries`."""
        return self.rotate_queries(self.centroids)

    def rotate_queries(self, queries: Tensor) -> Tensor:
        """Query vectors [m, d] in the basis of the tables, where dot products with decoded vectors are the same."""
        return queries if self.rotation is None else queries @ self.rotation

    @cached_property
    def assigner(self) -> Assigner:
        """Which centroid a vector is given."""
        return Assigner(self.centroids)

    def encode(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Unit vectors [T, d] to codes int32 [T], packed uint8 [T, bytes], and scales uint8 [T] or None (stanford)."""
        if vectors.shape[1] != self.dim:
            raise ConfigError(f"vectors have {vectors.shape[1]} dimensions, the codec {self.dim}")
        codes = self.assigner(vectors)
        packed = torch.empty(len(vectors), self.bytes, dtype=torch.uint8)
        scales = torch.empty(len(vectors), dtype=torch.uint8) if self.scaled else None
        for start in range(0, len(vectors), _ROWS):
            rows = slice(start, start + _ROWS)
            some, centroids = vectors[rows].float(), self.centroids[codes[rows].long()]
            if self.scaled:
                packed[rows], scales[rows] = self._encode_product(some, centroids)
            else:
                packed[rows] = pack(torch.bucketize(some - centroids, self.cutoffs), self.bits)
        return codes, packed, scales

    def decode(self, codes: Tensor, packed: Tensor, scales: Tensor | None = None) -> Tensor:
        """The vectors [T, d] fp32 of codes [T], packed [T, bytes] and scales [T], as plainly as can be."""
        residuals = self._lookup(packed)
        if self.scaled:
            residuals = self.scale_levels[scales.long()][:, None] * (residuals @ self.rotation.T)
        return F.normalize(self.centroids[codes.long()] + residuals, dim=1)

    def arrays(self) -> dict[str, Tensor]:
        """What is stored, by name: centroids float16 and what the kind needs; `from_arrays` takes it back."""
        stored = {"centroids": self.centroids.half()}
        if self.kind == "stanford":
            return stored | {"cutoffs": self.cutoffs, "weights": self.weights}
        return stored | {"rotation": self.rotation, "table": self.table[0, :, : 8 // self.bits].contiguous()}

    @property
    def facts(self) -> dict[str, Any]:
        """Kind and bits, as `from_arrays` wants them."""
        return {"codec": self.kind, "bits": self.bits}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], facts: dict[str, Any]) -> "Codec":
        """The codec of `arrays()` (tensors or numpy arrays) and `facts`; ArtifactError where one is missing."""
        arrays = {name: torch.as_tensor(array) for name, array in arrays.items()}
        kind, bits = facts["codec"], facts["bits"]
        needed = {"centroids", *(("cutoffs", "weights") if kind == "stanford" else ("rotation", "table"))}
        if missing := sorted(needed - set(arrays)):
            raise ArtifactError(f"a {kind} codec of {bits} bits needs {', '.join(missing)}, but there is none")
        arrays = {name: array.float() for name, array in arrays.items()}
        if kind == "stanford":
            return _stanford(arrays["centroids"], arrays["cutoffs"], arrays["weights"], bits)
        return _product(arrays["centroids"], arrays["rotation"], arrays["table"].reshape(256, -1), bits)

    def _lookup(self, packed: Tensor) -> Tensor:
        residuals = torch.empty(len(packed), self.dim)
        for p, (start, end) in enumerate(zip(self.first[:-1].tolist(), self.first[1:].tolist(), strict=True)):
            residuals[:, start:end] = self.table[p, packed[:, p].long(), : end - start]
        return residuals

    def _encode_product(self, vectors: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        norms = centroids.norm(dim=1)
        along, across = _across(vectors, centroids)
        packed = nearest_codewords(F.normalize(across, dim=1) @ self.rotation, self.table[0, :, : 8 // self.bits])
        decoded = self._lookup(packed) @ self.rotation.T
        decoded_along, decoded_across = _across(decoded, centroids)
        # |across| / along is the angle's tangent; centroid + s·decoded has it where s·(b - tan·a) = |centroid|·tan with
        # decoded's parts a along and b across. Without a positive solution the greatest scale is the nearest.
        tangents = across.norm(dim=1) / along.clamp(min=1e-6)
        rests = decoded_across.norm(dim=1) - tangents * decoded_along
        scales = torch.where(rests > 0, norms * tangents / rests.clamp(min=1e-6), self.scale_levels[-1])
        borders = (self.scale_levels[1:] + self.scale_levels[:-1]) / 2
        return packed, torch.bucketize(scales, borders).to(torch.uint8)


def train_codec(
    sample: Tensor, partitions: int, bits: int, kind: Kind = "product", seed: int = 0, iterations: int = 4
) -> Codec:
    """A codec for vectors like sample [S, d] of unit vectors, with at most `partitions` centroids.

    A twentieth of the sample (50,000 at most) is kept from k-means for the residuals, if that leaves enough of both.
    ConfigError for bits or a dimension that cannot be packed. Works for any S, 0 included.
    """
    check(sample.shape[1], bits, kind)
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(seed))
    held = min(len(sample) // 20, 50_000)
    if held < 256 or len(sample) - held < partitions:
        return train_residuals(sample, _rounded(kmeans(sample, partitions, seed, iterations)), bits, kind, seed)
    centroids = kmeans(sample[order[held:]], partitions, seed, iterations)
    return train_residuals(sample[order[:held]], _rounded(centroids), bits, kind, seed)


def train_residuals(sample: Tensor, centroids: Tensor, bits: int, kind: Kind, seed: int = 0) -> Codec:
    """The codec of these centroids [K, d] for the residuals of sample [S, d]."""
    check(centroids.shape[1], bits, kind)
    dim = centroids.shape[1]
    drawn = torch.Generator().manual_seed(seed)
    sample = sample[torch.randperm(len(sample), generator=drawn)[: max(1, _VALUES // dim)]].float()
    nearest = centroids[Assigner(centroids)(sample).long()]
    if kind == "stanford":
        residuals = sample - nearest if len(sample) else torch.zeros(1, dim)
        return _stanford(centroids, *quantile_buckets(residuals, bits), bits)
    rotation = random_rotation(dim, seed)
    across = _across(sample, nearest)[1]
    # A vector that is its centroid has no direction but that of rounding.
    directions = F.normalize(across[across.norm(dim=1) > 1e-3][:_DIRECTIONS], dim=1) @ rotation
    # Small samples say little of the vectors to come: random directions make up for what is missing.
    others = F.normalize(torch.randn(_DIRECTIONS - len(directions), dim, generator=drawn), dim=1)
    pieces = torch.cat([directions, others]).reshape(-1, 8 // bits)
    pieces = pieces[torch.randperm(len(pieces), generator=drawn)[:_PIECES]]
    return _product(centroids, rotation, train_codewords(pieces, seed), bits)


def check(dim: int, bits: int, kind: Kind) -> None:
    """ConfigError where `dim` dimensions of `bits` bits do not fill whole bytes, with the values that are allowed."""
    if kind not in ("stanford", "product"):
        raise ConfigError(f"codec {kind!r} is not known\ntry: index.codec=product or index.codec=stanford")
    if bits not in BITS:
        raise ConfigError(f"bits={bits}, but a residual takes 1, 2, 4 or 8 bits a dimension\ntry: index.bits=2")
    if dim * bits % 8:
        allowed = [str(b) for b in BITS if dim * b % 8 == 0]
        raise ConfigError(
            f"{dim} dimensions of {bits} bits do not fill whole bytes\ntry: index.bits={' or '.join(allowed)}"
        )


def quantile_buckets(residuals: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Cutoffs [2^bits - 1] and weights [2^bits]: quantiles of residuals [S, d], all dimensions in one."""
    values = residuals.flatten()[:_VALUES]
    steps = torch.arange(2**bits, dtype=torch.float32) / 2**bits
    found = torch.quantile(values, torch.cat([steps[1:], steps + 0.5 / 2**bits]))
    return found[: 2**bits - 1], found[2**bits - 1 :]


def random_rotation(dim: int, seed: int) -> Tensor:
    """An orthogonal [d, d] fp32 drawn by `seed`."""
    drawn = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(drawn)
    return (q * r.diagonal().sign()).float()


def pack(buckets: Tensor, bits: int) -> Tensor:
    """Buckets [T, d] to bytes [T, d·bits/8]: least significant bit of a bucket first, most significant of a byte."""
    bit = (buckets[..., None] >> torch.arange(bits)) & 1
    weights = 2 ** torch.arange(7, -1, -1)
    return (bit.reshape(len(buckets), buckets.shape[1] * bits // 8, 8) * weights).sum(-1).to(torch.uint8)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The inverse of `pack`: bytes [T, d·bits/8] to buckets [T, d] int64."""
    bit = (packed.long()[..., None] >> torch.arange(7, -1, -1)) & 1
    return (bit.reshape(len(packed), packed.shape[1] * 8 // bits, bits) << torch.arange(bits)).sum(-1)


def _across(vectors: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """How far vectors [T, d] go along their centroids [T, d] ([T]), and what is left of them across [T, d]."""
    units = F.normalize(centroids, dim=1)
    along = (vectors * units).sum(1)
    return along, vectors - along[:, None] * units


def _rounded(centroids: Tensor) -> Tensor:
    return centroids.half().float()


def _stanford(centroids: Tensor, cutoffs: Tensor, weights: Tensor, bits: int) -> Codec:
    words = weights[unpack(torch.arange(256, dtype=torch.uint8)[:, None], bits)]
    first, table = _tables(words, centroids.shape[1])
    return Codec("stanford", bits, centroids, None, first, table, cutoffs=cutoffs, weights=weights)


def _product(centroids: Tensor, rotation: Tensor, words: Tensor, bits: int) -> Codec:
    first, table = _tables(words, centroids.shape[1])
    return Codec("product", bits, centroids, rotation, first, table, scale_levels=_SCALES)


def _tables(words: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`first` and `table` of a codec of `dim` dimensions where every byte has the same words [256, w]."""
    width = words.shape[1]
    first = torch.arange(0, dim + 1, width)
    return first, F.pad(words, (0, 8 - width)).expand(dim // width, 256, 8)
