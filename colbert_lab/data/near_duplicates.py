"""Near-duplicate texts: MinHash over word n-grams proposes pairs, the exact Jaccard similarity decides.

Broder, "On the resemblance and containment of documents" (1997). All hashing is fixed, so that the same texts give the
same answer in every process.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from colbert_lab.data.texts import hash_text

_WORD = re.compile(r"\w+")
# 16 bands of 4: a pair of similarity 0.7 is proposed with probability 0.99, one of 0.3 with 0.12.
_BANDS, _ROWS = 16, 4
_BASE = np.uint64(0x9E3779B97F4A7C15)


def first_of_kind(texts: Sequence[str], words: int, similarity: float) -> list[bool]:
    """For every text whether none before it that was kept resembles it: Jaccard of word n-grams >= `similarity`.

    `words` is n; letter case and punctuation do not count. A text shorter than n words is one n-gram.
    """
    vocabulary: dict[str, int] = {}
    multipliers = np.random.Generator(np.random.PCG64(0)).integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) * 2 + 1
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    known: dict[int, np.ndarray] = {}
    keep = []
    for i, text in enumerate(texts):
        mine = grams(text, words, vocabulary)
        bands = _signature(mine, multipliers).reshape(_BANDS, _ROWS)
        keys = [(band, row.tobytes()) for band, row in enumerate(bands)]
        others = sorted({j for key in keys for j in buckets.get(key, ())})
        fresh = all(_jaccard(mine, known[j]) < similarity for j in others)
        keep.append(fresh)
        if fresh:
            known[i] = mine
            for key in keys:
                buckets[key].append(i)
    return keep


def grams(text: str, n: int, vocabulary: dict[str, int]) -> np.ndarray:
    """The distinct n-grams [G] uint64, ascending, G >= 1."""
    found = _WORD.findall(text.lower())
    for word in found:
        if word not in vocabulary:
            vocabulary[word] = hash_text(word)
    hashes = np.array([vocabulary[word] for word in found] or [0], dtype=np.uint64)
    length = max(len(hashes) - n + 1, 1)
    combined = np.zeros(length, dtype=np.uint64)
    for shift in range(min(n, len(hashes))):
        combined = combined * _BASE + hashes[shift : shift + length]
    return np.unique(combined)


def _signature(grams: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """[P] uint64, for each multiplier the least of the multiplied n-grams (mixed by a shift: low bits are poor)."""
    mixed = multipliers[:, None] * (grams ^ (grams >> np.uint64(29)))[None, :]
    return (mixed ^ (mixed >> np.uint64(32))).min(axis=1)


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)
