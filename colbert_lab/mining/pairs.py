"""Pairs of a query and a document as rows of a collection: many in little memory, their texts read for a few at a time.

    pairs = Pairs.of(collection, candidates.groups())       P pairs, 8 bytes each
    part = pairs.select(numbers)                            some of them, for a teacher to score
    distinct = DistinctPairs(pairs)                         each pair of texts once, whatever the ids

A run of 500,000 queries and 500 documents each makes 250 million pairs: nothing here keeps an object for one.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from colbert_lab.data.collection import Collection
from colbert_lab.data.texts import Texts
from colbert_lab.errors import DataError

# Pairs whose ids, or numbers, are worked on at once.
_BLOCK = 2**16
T = TypeVar("T")


class Pairs:
    """P pairs by row: query query_rows[i] of `collection`, int [P], with document document_rows[i] of it, int [P].

    Ids and texts are read when they are asked for, and kept: ask for those of a selection, not of millions. DataError
    where there are not as many rows of queries as of documents.
    """

    def __init__(self, collection: Collection, query_rows: np.ndarray, document_rows: np.ndarray):
        if len(query_rows) != len(document_rows):
            raise DataError(
                f"there are {len(query_rows)} queries and {len(document_rows)} documents; pairs need as many of each"
            )
        self.collection, self.query_rows, self.document_rows = collection, query_rows, document_rows

    @classmethod
    def of(cls, collection: Collection, groups: Iterable[tuple[str, Sequence[str]]]) -> "Pairs":
        """The pairs of each query's id with its documents', in their order; DataError for an id that is unknown."""
        queries, documents = _room(collection.queries), _room(collection.corpus)
        for asked, found, counts in _batches(groups):
            rows = _row_numbers(collection.queries, asked, queries.typecode)
            queries.frombytes(rows.repeat(counts).tobytes())
            documents.frombytes(_row_numbers(collection.corpus, found, documents.typecode).tobytes())
        return cls(collection, np.asarray(queries), np.asarray(documents))

    def __len__(self) -> int:
        return len(self.query_rows)

    def __reduce__(self):
        # Without the texts that were read.
        return Pairs, (self.collection, self.query_rows, self.document_rows)

    def select(self, numbers: "Sequence[int] | np.ndarray | slice") -> "Pairs":
        """The pairs with these numbers, in this order."""
        return Pairs(self.collection, self.query_rows[numbers], self.document_rows[numbers])

    def blocks(self, least: int) -> Iterator[slice]:
        """The numbers of all pairs, in blocks of `least` or more: what stands together of one query stays together."""
        start = 0
        while start < len(self):
            stop = min(start + least, len(self))
            while stop < len(self) and self.query_rows[stop] == self.query_rows[stop - 1]:
                stop += 1
            yield slice(start, stop)
            start = stop

    @cached_property
    def query_ids(self) -> list[str]:
        """The queries' ids, P of them."""
        return _each(self.collection.queries.ids, self.query_rows)

    @cached_property
    def document_ids(self) -> list[str]:
        """The documents' ids, P of them."""
        return _each(self.collection.corpus.ids, self.document_rows)

    @cached_property
    def queries(self) -> list[str]:
        """The queries' texts, P of them."""
        return _each(self.collection.queries.__getitem__, self.query_rows)

    @cached_property
    def documents(self) -> list[str]:
        """The documents' texts, P of them."""
        return _each(self.collection.corpus.__getitem__, self.document_rows)


class DistinctPairs:
    """The U distinct pairs of texts among P pairs, longest first (characters of both); equal lengths by the texts.

    What the order depends on is the texts: neither their ids nor the order, or the number, in which pairs are given.
    Texts are told apart by their hashes. Takes 16 bytes a distinct pair.
    """

    def __init__(self, pairs: Pairs):
        self._pairs = pairs
        self._queries = _Contents(pairs.collection.queries, pairs.query_rows)
        self._documents = _Contents(pairs.collection.corpus, pairs.document_rows)
        codes = np.empty(len(pairs), dtype=np.int64)
        for some in _slices(len(pairs)):
            codes[some] = self._coded(some)
        codes.sort()
        first = np.ones(len(codes), dtype=bool)
        np.not_equal(codes[1:], codes[:-1], out=first[1:])
        self._codes = codes if first.all() else codes[first]
        del codes, first
        self._order = self._longest_first()

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, some: slice) -> Pairs:
        """These of the distinct pairs; of equal texts under several ids the first row in the collection stands."""
        queries, documents = self._decoded(self._codes[self._order[some]])
        return Pairs(self._pairs.collection, self._queries.rows[queries], self._documents.rows[documents])

    def of_all(self, scores: np.ndarray) -> np.ndarray:
        """From the scores [U] of the distinct pairs in their order those [P] of all pairs, in the order given."""
        by_code = np.empty_like(scores)
        by_code[self._order] = scores
        found = np.empty(len(self._pairs), dtype=scores.dtype)
        for some in _slices(len(found)):
            found[some] = by_code[np.searchsorted(self._codes, self._coded(some))]
        return found

    def _coded(self, some: slice) -> np.ndarray:
        """A number for each of these pairs; equal texts have equal numbers."""
        queries = self._queries.numbers[self._pairs.query_rows[some]]
        return (
            queries.astype(np.int64) * len(self._documents) + self._documents.numbers[self._pairs.document_rows[some]]
        )

    def _decoded(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.divmod(codes, max(1, len(self._documents)))

    def _longest_first(self) -> np.ndarray:
        most = int(self._queries.characters.max(initial=0) + self._documents.characters.max(initial=0))
        # How much shorter than the most, and the place, in one number: sorted where it stands, places come out.
        bits = len(self).bit_length()
        order = np.arange(len(self), dtype=np.int64)
        for some in _slices(len(self)):
            queries, documents = self._decoded(self._codes[some])
            order[some] += (most - self._queries.characters[queries] - self._documents.characters[documents]) << bits
        order.sort()
        order &= (1 << bits) - 1
        return order


class _Contents:
    """The C different texts among some rows of a store, in the order of their hashes.

    `numbers` [N] int32 has the number of each row's text (-1: not among the rows), `rows` [C] the first row of each
    text among them, `characters` [C] its length.
    """

    def __init__(self, texts: Texts, rows: np.ndarray):
        among = np.zeros(len(texts), dtype=bool)
        among[rows] = True
        used = np.flatnonzero(among)
        _, first, numbers = np.unique(np.asarray(texts.content[used]), return_index=True, return_inverse=True)
        self.numbers = np.full(len(texts), -1, dtype=np.int32)
        self.numbers[used] = numbers
        self.rows = used[first]
        self.characters = np.asarray(texts.characters[self.rows])

    def __len__(self) -> int:
        return len(self.rows)


def _batches(groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[tuple[list[str], list[str], list[int]]]:
    """Queries, their documents end to end, and how many each has; whole groups, _BLOCK documents or a few more."""
    queries, documents, counts = [], [], []
    for query, some in groups:
        queries.append(query)
        documents.extend(some)
        counts.append(len(some))
        if len(documents) >= _BLOCK:
            yield queries, documents, counts
            queries, documents, counts = [], [], []
    if queries:
        yield queries, documents, counts


def _room(texts: Texts) -> array:
    """An array that grows, for row numbers of these texts: where it stands, with no copies left behind."""
    return array("i" if len(texts) < 2**31 else "q")


def _row_numbers(texts: Texts, ids: Sequence[str], kind: str) -> np.ndarray:
    """The rows of ids, of which many repeat: each is looked up once."""
    different = list(dict.fromkeys(ids))
    rows = dict(zip(different, texts.rows(different).tolist()))
    return np.array([rows[id] for id in ids], dtype=kind)


def _each(read: Callable[[np.ndarray], list[T]], rows: np.ndarray) -> list[T]:
    """What is read of each row, where many rows repeat: of equal ones once."""
    different, numbers = np.unique(rows, return_inverse=True)
    found = read(different)
    return [found[number] for number in numbers.tolist()]


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))
