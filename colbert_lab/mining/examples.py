"""Examples drawn from pools: w-way tuples that are new in every epoch, and the same for the same (seed, epoch)."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.artifact import hash_file, hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.data.examples import Example, texts_of
from colbert_lab.errors import DataError
from colbert_lab.mining.pools import FILE, Pool, read_pools
from colbert_lab.mining.samplers import Sampler
from colbert_lab.mining.tally import spread

_BATCH = 1000


class PooledExamples:
    """One example for each pool in `pools` that has `negatives` negatives for the sampler to draw.

    `pools` is a directory with pools.arrow, or such a file. The positive is drawn uniformly among the pool's, the
    negatives by `sampler`; the example's scores are the teacher's. Pools with fewer negatives to draw, for one of their
    positives at least, are left out and counted as `short`. Known positives are the pool's, and those of `qrels` where
    given. DataError, with the id, for a query or document that is not in the collection; and where no pool is large
    enough, with the largest number that works.
    """

    def __init__(
        self,
        collection: Collection,
        pools: str | Path,
        sampler: Sampler,
        negatives: int,
        qrels: Qrels | None = None,
    ):
        if negatives < 0:
            raise DataError(f"negatives={negatives} must be 0 or more\ntry: train.negatives=15")
        self.limit = negatives
        self._collection, self._sampler = collection, sampler
        file = Path(pools) / FILE if Path(pools).is_dir() else Path(pools)
        self._pools = read_pools(file)
        self._judged = {
            query: frozenset(document for document, grade in judged.items() if grade > 0)
            for query, judged in (qrels or {}).items()
        }
        self._counts = Counter({"short": 0, "refilled": 0, "positives": 0})
        self._sizes: list[int] = []
        most, kept = 0, []
        for number, pool in enumerate(self._checked()):
            available = min(sampler.available(*_arrays(pool), score) for score in pool.positive_scores)
            most = max(most, available)
            if available < negatives:
                self._counts["short"] += 1
            else:
                kept.append(number)
                self._count(pool)
        if not kept:
            raise DataError(
                f"none of the {len(self._pools)} pools in {pools} has {negatives} negatives to draw with "
                f"{sampler.describe()}; the largest number that works is {most} (tuples of {most + 1} documents)\n"
                f"try: train.negatives={most}"
            )
        self._kept = np.array(kept, dtype=np.int64)
        self._digest = hash_file(file)
        known = sorted((query, sorted(documents)) for query, documents in self._judged.items())
        self.fingerprint = hash_json(
            ["pools", collection.digest, self._digest, sampler.describe(), negatives, hash_json(known)]
        )

    def __len__(self) -> int:
        return len(self._kept)

    def sample(self, index: int, rng: np.random.Generator, negatives: int) -> Example:
        """Pool number `index` of those kept: a positive and `negatives` negatives drawn with `rng`.

        DataError for more negatives than the examples were made for.
        """
        if negatives > self.limit:
            raise DataError(f"{negatives} negatives are wanted, but these examples were made for {self.limit}")
        pool = self._pools[int(self._kept[index])]
        first = int(rng.integers(len(pool.positives)))
        score = pool.positive_scores[first]
        drawn = self._sampler.draw(rng, *_arrays(pool), score, negatives).tolist()
        ids = (pool.positives[first], *(pool.negatives[i] for i in drawn))
        known = frozenset(pool.positives) | self._judged.get(pool.query, frozenset())
        return Example(
            query=self._collection.queries.get([pool.query])[0],
            documents=tuple(self._collection.corpus.get(ids)),
            query_id=pool.query,
            document_ids=ids,
            scores=(score, *(pool.negative_scores[i] for i in drawn)),
            known_positives=known,
            known_texts=texts_of(self._collection.corpus, known),
        )

    def describe(self) -> dict[str, Any]:
        """The pools' hash, the sampler, and counts.

        `pool` has the least, the median and the largest number of negatives in a pool that is used; `refilled` counts
        the pools in which a band has less than its share, for one of the positives at least.
        """
        return {
            "pools": self._digest,
            **self._sampler.describe(),
            "negatives": self.limit,
            "examples": len(self),
            "left_out": {"short": self._counts["short"]},
            "positives": self._counts["positives"],
            "pool": spread(self._sizes),
            "refilled": self._counts["refilled"],
        }

    def _count(self, pool: Pool) -> None:
        ranks, scores = _arrays(pool)
        self._sizes.append(len(ranks))
        self._counts["positives"] += len(pool.positives)
        self._counts["refilled"] += any(
            self._sampler.refilled(ranks, scores, score, self.limit) for score in pool.positive_scores
        )

    def _checked(self) -> Iterator[Pool]:
        """All pools, their ids looked up many at a time; DataError for the first that the collection lacks."""
        pools = iter(self._pools)
        while batch := list(islice(pools, _BATCH)):
            self._collection.queries.rows([pool.query for pool in batch])
            self._collection.corpus.rows([document for pool in batch for document in pool.positives + pool.negatives])
            yield from batch


def _arrays(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    return np.array(pool.negative_ranks, dtype=np.int64), np.array(pool.negative_scores, dtype=np.float64)
