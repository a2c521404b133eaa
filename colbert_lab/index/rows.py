"""Which document stands in which row of an index: the ids, the rows that are deleted, and the order of equal scores."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits


class Rows:
    """The ids of R rows, of which some are deleted; a document that was updated has an old, deleted row and a new one.

    `ids` holds one id a row, `deleted` the numbers of the rows that do not count. DataError for an id that two live
    rows have.
    """

    def __init__(self, ids: Sequence[str], deleted: np.ndarray | None = None):
        self._all = ids
        self.live = np.ones(len(ids), dtype=bool)
        if deleted is not None:
            self.live[deleted] = False
        refuse_repeated(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def ids(self) -> list[str]:
        """The live documents' ids, in row order."""
        return list(self._all) if self.live.all() else [self._all[row] for row in np.flatnonzero(self.live)]

    @cached_property
    def _row(self) -> dict[str, int]:
        return dict(zip(self.ids, np.flatnonzero(self.live).tolist(), strict=True))

    @cached_property
    def place(self) -> np.ndarray:
        """The place of each row's id among the sorted ids, int64 [R]: by it equal scores are ordered."""
        place = np.empty(len(self._all), dtype=np.int64)
        place[sorted(range(len(self._all)), key=self._all.__getitem__)] = np.arange(len(self._all))
        return place

    def __contains__(self, document: str) -> bool:
        return document in self._row

    def of(self, ids: Sequence[str]) -> np.ndarray:
        """The rows (int64) of these documents; DataError for an id that is not in the index."""
        unknown = [i for i in ids if i not in self._row]
        if unknown:
            raise DataError(f"{len(unknown)} documents are not in the index, {unknown[0]!r} is the first")
        return np.fromiter((self._row[i] for i in ids), dtype=np.int64, count=len(ids))

    def allowed(self, only: Sequence[str] | None) -> np.ndarray:
        """Bool [R]: live and, where `only` is given, among these documents; DataError for an unknown id."""
        if only is None:
            return self.live
        allowed = np.zeros(len(self._all), dtype=bool)
        allowed[self.of(only)] = True
        return allowed

    def best(self, scores: np.ndarray, rows: np.ndarray, k: int) -> Hits:
        """The k best of these rows by their scores, equal scores by id, ascending."""
        if len(scores) > k:
            # The k best and everything that ties with the k-th, so that ids alone decide among these.
            kth = np.partition(scores, len(scores) - k)[len(scores) - k]
            keep = scores >= kth
            scores, rows = scores[keep], rows[keep]
        order = np.lexsort((self.place[rows], -scores))[:k]
        return Hits(tuple(self._all[row] for row in rows[order]), scores[order].astype(np.float64))

    def refuse_present(self, ids: Sequence[str]) -> None:
        """DataError where one of these is in the index already, or comes twice among them."""
        refuse_repeated(ids)
        present = [i for i in ids if i in self._row]
        if present:
            raise DataError(
                f"{len(present)} documents are in the index already, {present[0]!r} is the first; update them instead"
            )


def check_search(k: int, queries: Ragged, dim: int, query_ids: Sequence[str] | None = None) -> None:
    """ConfigError where fewer than one document is asked for, or the queries' vectors are not of `dim`.

    DataError where query ids are given that are not as many as the queries, or one comes twice.
    """
    if k < 1:
        raise ConfigError(f"k={k}, but at least one document must be asked for\ntry: search.k=1000")
    if queries.dim != dim:
        raise ConfigError(f"the queries' vectors have {queries.dim} dimensions, the index {dim}")
    if query_ids is not None and not len(query_ids) == len(set(query_ids)) == len(queries):
        raise DataError(f"{len(query_ids)} query ids must be distinct and match {len(queries)} queries")


def refuse_repeated(ids: Sequence[str]) -> None:
    """DataError for an id that comes twice."""
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        repeated = next(i for i in ids if i in seen or seen.add(i))
        raise DataError(f"document id {repeated!r} was indexed twice")
