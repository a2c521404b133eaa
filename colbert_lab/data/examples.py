"""Training examples: a query with a positive and negatives, drawn by number from whatever they are kept in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from colbert_lab.data.texts import Texts
from colbert_lab.errors import DataError


@dataclass(frozen=True)
class Example:
    """A query and its documents, the positive first; texts, not ids.

    `scores` are a teacher's, in the order of the documents. `known_positives` are the ids of all documents known to
    be relevant to the query, `known_texts` the hashes of their texts (`Texts.content`): in a batch, no other query's
    document of these may count as a negative, nor a copy of one under another id. Where the source has raw texts only,
    the ids are None, and nothing is known but the positive itself.
    """

    query: str
    documents: tuple[str, ...]
    query_id: str | None
    document_ids: tuple[str, ...] | None
    scores: tuple[float, ...] | None
    known_positives: frozenset[str]
    known_texts: frozenset[int] = frozenset()


class Examples(Protocol):
    """Examples by number. `limit` is how many negatives every example can give (None: as many as are wanted)."""

    fingerprint: str
    limit: int | None

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator, negatives: int) -> Example:
        """Example number `index` with this many negatives; a function of the arguments and the state of `rng` alone."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON facts and counts for the manifest."""
        ...


def texts_of(corpus: Texts, ids: Iterable[str]) -> frozenset[int]:
    """The hashes of the texts of those of these documents that the corpus has."""
    rows = corpus.find(list(ids))
    return frozenset(corpus.content[rows[rows >= 0]].tolist())


def choose(count: int, negatives: int, rng: np.random.Generator, where: str, pick: str) -> list[int]:
    """Which `negatives` of `count` listed ones to take, in the order of the list: the "first", or a "sample" of them.

    DataError where there are fewer.
    """
    if negatives > count:
        raise DataError(
            f"{where}: {negatives} negatives are wanted, but there are {count}; lower the number of documents"
        )
    if pick == "first" or negatives == count:
        return list(range(negatives))
    return sorted(rng.choice(count, size=negatives, replace=False).tolist())


def check_pick(pick: str) -> str:
    """`pick` itself; DataError where it is neither "sample" nor "first"."""
    if pick not in ("sample", "first"):
        raise DataError(f"pick={pick} must be one of sample, first")
    return pick
