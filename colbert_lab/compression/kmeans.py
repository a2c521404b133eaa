"""Spherical k-means: unit centroids of a sample of token vectors, and which of them a vector is nearest to.

Vectors are compared by dot product, which orders centroids of unit norm as distance does. Comparing every vector with
every centroid is most of what an index build costs, so many centroids are reached in two steps, `Assigner`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities alive at once in an exact comparison: 16 MB in fp32.
_SIMILARITIES = 2**22
# Fewer centroids than this are compared one by one.
_EXACT = 1024
# Vectors that are sorted by group together, 32 MB of 128 dimensions: enough for products of a few hundred rows.
_ROWS = 2**16


def partitions(vectors: int, points: int, sampled: int | None = None) -> int:
    """How many centroids an index of about `vectors` token vectors gets: 2^floor(log2(16·sqrt(vectors))), clamped.

    `sampled` is how many vectors k-means will see (by default all): a centroid stands for at least `points` of them,
    so that tiny collections work. The formula is PLAID's, arXiv 2205.09707; the clamp is ours.
    """
    if vectors < 1:
        return 1
    formula = 2 ** math.floor(math.log2(16 * math.sqrt(vectors)))
    return max(1, min(formula, (vectors if sampled is None else sampled) // points))


def assign(vectors: Tensor, centroids: Tensor) -> Tensor:
    """The centroid [K, d] of greatest dot product for each of vectors [T, d]: int32 [T], ties to the lowest number.

    In fp32 and in chunks of bounded memory. Equal calls give equal codes; where two centroids differ by less than
    fp32's rounding, the same vector in another place of another call may be given the other one.
    """
    codes = torch.empty(len(vectors), dtype=torch.int32)
    step = max(1, _SIMILARITIES // len(centroids))
    for start in range(0, len(vectors), step):
        codes[start : start + step] = (vectors[start : start + step].float() @ centroids.T).max(1).indices
    return codes


class Assigner:
    """`assign` to centroids [K, d] at about a tenth of its cost where K is large, nearly always with its result.

    The centroids are grouped by k-means into 4·sqrt(K) groups, and each group is given the 6·sqrt(K) centroids nearest
    to its middle. A vector is compared with the middles and then with the centroids of its group. A vector that is
    not given its nearest centroid is given one that is nearly as near. Below 1,024 centroids it is `assign`.
    """

    def __init__(self, centroids: Tensor):
        self._centroids = centroids
        count = len(centroids)
        self._exact = count < _EXACT
        if not self._exact:
            root = math.isqrt(count)
            self._middles = _lloyd(F.normalize(centroids, dim=1), 4 * root, 0, 5, assign)
            # Ascending, so that ties go to the lowest number.
            self._near = (self._middles @ centroids.T).topk(min(count, 6 * root), dim=1).indices.sort(1).values

    def __call__(self, vectors: Tensor) -> Tensor:
        """The centroid of each of vectors [T, d]: int32 [T]."""
        if self._exact:
            return assign(vectors, self._centroids)
        codes = torch.empty(len(vectors), dtype=torch.int32)
        for start in range(0, len(vectors), _ROWS):
            codes[start : start + _ROWS] = self._assign(vectors[start : start + _ROWS].float())
        return codes

    def _assign(self, vectors: Tensor) -> Tensor:
        groups = assign(vectors, self._middles).long()
        order = groups.argsort(stable=True)
        parts = vectors[order].split(groups.bincount(minlength=len(self._middles)).tolist())
        found = [near[assign(part, self._centroids[near]).long()] for part, near in zip(parts, self._near) if len(part)]
        codes = torch.empty(len(vectors), dtype=torch.int32)
        codes[order] = torch.cat(found).int()
        return codes


def kmeans(sample: Tensor, partitions: int, seed: int = 0, iterations: int = 4) -> Tensor:
    """min(partitions, S) unit centroids fp32 of sample [S, d]: Lloyd's iterations from S vectors drawn by `seed`.

    A centroid that no vector is nearest to is put where a vector is worst served. An empty sample gives one centroid.
    Equal arguments give equal bytes on one machine.
    """
    count, dim = sample.shape
    if count == 0:
        return F.normalize(torch.ones(1, dim), dim=1)
    return _lloyd(F.normalize(sample.float(), dim=1), partitions, seed, iterations, lambda v, c: Assigner(c)(v))


def _lloyd(sample: Tensor, partitions: int, seed: int, iterations: int, assigned) -> Tensor:
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(seed))
    centroids = sample[order[:partitions]].clone()
    for _ in range(iterations):
        codes = assigned(sample, centroids).long()
        sums = torch.zeros_like(centroids).index_add_(0, codes, sample)
        similarities = (sample * centroids[codes]).sum(1)
        # Vectors that cancel out have a mean of norm 0: the centroid stays.
        centroids = torch.where(sums.norm(dim=1, keepdim=True) > 1e-6, F.normalize(sums, dim=1), centroids)
        empty = (codes.bincount(minlength=len(centroids)) == 0).nonzero()[:, 0]
        worst = similarities.argsort(stable=True)[: len(empty)]
        centroids[empty] = sample[worst]
    return centroids
