"""Vector quantisation of short pieces: 256 codewords, and the nearest of them for every piece of a vector.

One codebook serves all pieces: after a random rotation all of them are distributed nearly alike.
"""

import numpy as np
import torch
from torch import Tensor

from colbert_lab.scoring.compiled import compiled
from colbert_lab.scoring.kernels import in_threads

_WORDS = 256
_ITERATIONS = 20


def train_codewords(pieces: Tensor, seed: int) -> Tensor:
    """256 codewords [256, w] fp32 for pieces [S, w], S >= 256: k-means, the codewords in order of their first value."""
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))
    words = pieces[order[:_WORDS]].clone()
    for _ in range(_ITERATIONS):
        codes = nearest_codewords(pieces, words)[:, 0].long()
        sums = torch.zeros_like(words).index_add_(0, codes, pieces)
        counts = codes.bincount(minlength=_WORDS)
        words = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], words)
    return words[words[:, 0].argsort(stable=True)]


def nearest_codewords(vectors: Tensor, words: Tensor) -> Tensor:
    """The nearest of words [256, w] for each piece of w dimensions of vectors [T, d]: uint8 [T, d / w], ties lowest."""
    packed = np.empty((len(vectors), vectors.shape[1] // words.shape[1]), np.uint8)
    halves = (words.square().sum(1) / 2).numpy()
    arguments = (vectors.contiguous().numpy(), np.ascontiguousarray(words.T.numpy()), halves, packed)
    in_threads(len(vectors), vectors.numel() * _WORDS, lambda first, last: _nearest(*arguments, first, last))
    return torch.from_numpy(packed)


# Without NaNs and signed zeros to mind, the search for the greatest value is vectorised; no sum is reordered.
@compiled(fastmath={"nnan", "nsz"})
def _nearest(vectors, words, halves, packed, first, last):
    width = words.shape[0]
    near = np.empty(_WORDS, np.float32)
    for row in range(first, last):
        for piece in range(packed.shape[1]):
            for k in range(_WORDS):
                near[k] = -halves[k]
            for j in range(width):
                value = vectors[row, piece * width + j]
                for k in range(_WORDS):
                    near[k] += value * words[j, k]
            top = near[0]
            for k in range(1, _WORDS):
                top = max(top, near[k])
            best = 0
            while best < _WORDS - 1 and near[best] != top:
                best += 1
            packed[row, piece] = best
