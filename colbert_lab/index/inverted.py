"""faiss's inverted file with product quantisation over numbered token vectors, as the index of ColBERTv1 has it.

Trained on a seeded sample of all vectors, never on the first: an ordered corpus begins with one topic.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colbert_lab.compression.kmeans import Assigner, kmeans
from colbert_lab.errors import ConfigError
from colbert_lab.index.staleness import staleness
from colbert_lab.scoring.maxsim import Similarity

# An 8-bit product quantiser has so many centroids for each sub-vector, and cannot be trained on fewer vectors.
_CODES = 256
# Training vectors that faiss wants for every centroid.
_LEAST = 39
# Vectors that are added at once, and how many of all tell how far vectors lie from their centroids.
_CHUNK = 2**16
_MEASURED = 4096
# What torch's number of threads was before the first of the `threads` that are open now, then (thread, number) of each.
_OPEN: list[tuple[int, int]] = []
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Vectors:
    """n token vectors with their numbers: in the store's committed `values` [T, d], and after these, `coming` [C, d].

    numbers: which of the T + C count, ascending.
    """

    numbers: np.ndarray | range
    values: Tensor
    coming: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, places: np.ndarray) -> np.ndarray:
        """The vectors (fp32) at these places among the n."""
        numbers = places + self.numbers.start if isinstance(self.numbers, range) else self.numbers[places]
        if self.coming is None or not len(self.coming):
            return self.values[torch.from_numpy(numbers)].float().numpy()
        stored = torch.from_numpy(numbers[numbers < len(self.values)])
        late = torch.from_numpy(numbers[numbers >= len(self.values)] - len(self.values))
        return torch.cat([self.values[stored].float(), self.coming[late].float()]).numpy()

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(numbers int64, vectors fp32), some at a time."""
        for first in range(0, len(self), _CHUNK):
            places = np.arange(first, min(first + _CHUNK, len(self)))
            yield np.asarray(self.numbers[first : first + _CHUNK], dtype=np.int64), self.take(places)


def load_faiss() -> Any:
    """The package, imported when it is first needed; ConfigError says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            f"index=ivfpq needs the package faiss, which cannot be imported ({error})\ntry: pip install faiss-cpu, "
            "or index=exact"
        ) from error
    return faiss


def partitions_of(vectors: int, asked: int | None) -> int:
    """P before any clamp: as asked, else the reference implementation's 2^ceil(log2(8 sqrt(n)))."""
    return asked if asked is not None else 2 ** math.ceil(math.log2(8 * math.sqrt(max(1, vectors))))


def trained(
    vectors: Vectors, dim: int, similarity: Similarity, partitions: int | None, subvectors: int, sample: int, seed: int
) -> tuple[Any, dict[str, Any]]:
    """A faiss index that holds `vectors`, and facts about it; (None, facts) where there is no vector.

    `sample` vectors a partition are drawn under `seed` to train on, where there are as many. For cosine similarity the
    centroids are those of `compression.kmeans`, in two steps where they are many: faiss compares every vector with
    every centroid, ten minutes for 16,384 of them on two cores. P is clamped to one
    partition for 39 of them; under 256 of them there is nothing to train a product quantiser on, and the vectors are
    kept whole in the inverted file (with P = 1 a flat index). Two builds are byte-equal: the seeds are set, and
    faiss's k-means sums in an order that its number of threads does not change.
    """
    if not len(vectors):
        return None, {"structure": "none", "partitions": 0, "trained_on": 0, "trained_vectors": 0}
    faiss = load_faiss()
    wanted = partitions_of(len(vectors), partitions)
    size = min(len(vectors), max(sample * wanted, _LEAST * _CODES))
    drawn = np.random.default_rng([seed, 11]).choice(len(vectors), size, replace=False, shuffle=False)
    training = vectors.take(np.sort(drawn))
    count = max(1, min(wanted, size // _LEAST))
    cosine = similarity == "cosine"
    metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    quantiser = faiss.IndexFlatIP(dim) if cosine else faiss.IndexFlatL2(dim)
    if size < _CODES:
        index = faiss.IndexIVFFlat(quantiser, dim, count, metric)
    else:
        index = faiss.IndexIVFPQ(quantiser, dim, count, subvectors, 8, metric)
        index.pq.cp.seed, index.pq.cp.min_points_per_centroid = seed, 1
    index.cp.seed, index.cp.min_points_per_centroid = seed, 1
    if cosine:
        # faiss leaves a quantiser as it is that has its P vectors already.
        centroids = kmeans(torch.from_numpy(training), count, seed)
        quantiser.add(centroids.numpy())
    index.train(training)
    file = index.add_with_ids if not cosine else _filing(faiss, index, Assigner(centroids))
    for numbers, chunk in vectors.chunks():
        file(chunk, numbers)
    places = np.unique(np.linspace(0, len(vectors) - 1, min(_MEASURED, len(vectors)), dtype=np.int64))
    return index, {
        "structure": "ivfflat" if size < _CODES else "ivfpq",
        "partitions": count,
        "trained_on": size,
        "trained_vectors": len(vectors),
        "trained_distance": distance(index, vectors.take(places)),
    }


def _filing(faiss: Any, index: Any, assigner: Assigner) -> Callable[[np.ndarray, np.ndarray], None]:
    """`add_with_ids` of vectors [T, d] and numbers [T] under the centroids that `assigner` finds."""

    def file(vectors: np.ndarray, numbers: np.ndarray) -> None:
        cells = assigner(torch.from_numpy(vectors)).numpy().astype(np.int64)
        # Kept by name while faiss reads them.
        given = [np.ascontiguousarray(one) for one in (vectors, numbers, cells)]
        index.add_core(len(vectors), *map(faiss.swig_ptr, given))

    return file


def distance(index: Any, vectors: np.ndarray) -> float:
    """The mean squared distance of vectors to the centroids they are filed under."""
    _, nearest = index.quantizer.search(vectors, 1)
    centroids = index.quantizer.reconstruct_n(0, index.nlist)[nearest[:, 0]]
    return float(np.square(vectors - centroids).sum(1, dtype=np.float64).mean())


def with_added(facts: dict[str, Any], count: int, distance: float) -> dict[str, Any]:
    """The facts of `trained` after `count` more vectors, at this mean squared distance, were filed under its centroids.

    `added_vectors` and their `added_distance` stand beside `trained_distance`.
    """
    before = facts.get("added_vectors", 0)
    mean = (before * facts.get("added_distance", 0.0) + count * distance) / (before + count)
    return {**facts, "added_vectors": before + count, "added_distance": mean}


def stale(facts: dict[str, Any]) -> dict[str, Any]:
    """How stale the centroids are, in the words of index/staleness.py, by root mean square distances."""
    trained, added = (math.sqrt(facts.get(name, 0.0)) for name in ("trained_distance", "added_distance"))
    return staleness(facts["trained_vectors"], facts.get("added_vectors", 0), trained, added)


def nearest(index: Any, queries: np.ndarray, hits: int, probes: int, among: np.ndarray | None = None) -> np.ndarray:
    """The numbers [m, hits] of the vectors nearest to query vectors [m, d] in `probes` partitions, -1 for none.

    `among` is a bool over all numbers: only these are looked at.
    """
    faiss = load_faiss()
    # Both must live until the search is over: faiss holds no reference to them.
    bits = None if among is None else np.packbits(among, bitorder="little")
    selector = None if bits is None else faiss.IDSelectorBitmap(bits)
    parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
    return index.search(np.ascontiguousarray(queries, dtype=np.float32), hits, params=parameters)[1]


def to_bytes(index: Any) -> np.ndarray:
    """A faiss index as uint8."""
    return load_faiss().serialize_index(index)


def from_bytes(content: np.ndarray) -> Any:
    """A copy in memory of the faiss index in these bytes."""
    return load_faiss().deserialize_index(np.ascontiguousarray(content))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within this, faiss and torch use so many threads; None leaves them as they are.

    Searches that overlap in several threads each have their own number, and the last leaves what the first found: torch
    lends its number to every new thread, which must not take another search's for what was there before.
    """
    if count is None:
        yield
        return
    faiss, me = load_faiss(), threading.get_ident()
    with _LOCK:
        # torch's asked for in any case: a thread that asks only later then takes what others have set by that time.
        before, torch_before = faiss.omp_get_max_threads(), torch.get_num_threads()
        if not _OPEN:
            _OPEN.append((0, torch_before))
        _OPEN.append((me, count))
        faiss.omp_set_num_threads(count)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _LOCK:
            mine = [place for place, (owner, _) in enumerate(_OPEN) if owner == me]
            # This thread's enclosing number, else the process's own. torch's last: it may share faiss's OpenMP.
            _, left = _OPEN[mine[-2] if len(mine) > 1 else 0]
            del _OPEN[mine[-1]]
            faiss.omp_set_num_threads(before)
            torch.set_num_threads(left)
            if len(_OPEN) == 1:
                _OPEN.clear()
