"""Which documents may serve as negatives of a query: rows of a run's window, topped up from the corpus at random.

Never a document that is known to be relevant, one with the same text as such a document, or an empty one.
"""

from collections.abc import Sequence

import numpy as np

from colbert_lab.data.texts import Texts
from colbert_lab.errors import DataError
from colbert_lab.run import Hits

# Up to this many documents the allowed ones are listed; above it they are found by trying.
_SMALL = 2000


class Negatives:
    """Draws negatives from a corpus by row."""

    def __init__(self, corpus: Texts):
        self._corpus = corpus
        self._characters = corpus.characters
        self._content = corpus.content

    def window(self, hits: Hits | None, ranks: tuple[int, int], positives: np.ndarray) -> np.ndarray:
        """Rows [W] int32 of the documents at ranks first..last, both included, counted from 1 over all of `hits`.

        DataError where the run names a document that is not in the corpus.
        """
        if hits is None:
            return np.empty(0, dtype=np.int32)
        rows = self._corpus.rows(hits.ids[ranks[0] - 1 : ranks[1]])
        return rows[self._allowed(rows, positives)].astype(np.int32)

    def draw(self, rng: np.random.Generator, window: np.ndarray, positives: np.ndarray, count: int) -> np.ndarray:
        """`count` different rows: out of the window, and out of the whole corpus where that has too few.

        DataError where the corpus has too few.
        """
        if len(window) >= count:
            return rng.choice(window, size=count, replace=False).astype(np.int64)
        drawn = rng.permutation(window).astype(np.int64)
        return np.concatenate([drawn, self._anywhere(rng, count - len(drawn), drawn, positives)])

    def _anywhere(self, rng: np.random.Generator, count: int, taken: np.ndarray, positives: np.ndarray) -> np.ndarray:
        if len(self._corpus) > _SMALL:
            found = list(dict.fromkeys(taken.tolist()))
            for _ in range(20):
                tried = rng.integers(0, len(self._corpus), size=2 * count)
                tried = tried[self._allowed(tried, positives)]
                found = list(dict.fromkeys(found + tried.tolist()))
                if len(found) >= len(taken) + count:
                    return np.array(found[len(taken) : len(taken) + count], dtype=np.int64)
        everything = np.arange(len(self._corpus))
        left = np.setdiff1d(everything[self._allowed(everything, positives)], taken)
        if len(left) < count:
            raise DataError(
                f"{count + len(taken)} negatives are wanted, but only {len(left) + len(taken)} documents of "
                f"{self._corpus.name} can be one for this query; lower the number of documents"
            )
        return rng.choice(left, size=count, replace=False).astype(np.int64)

    def _allowed(self, rows: Sequence[int] | np.ndarray, positives: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, dtype=np.int64)
        same = np.isin(rows, positives) | np.isin(self._content[rows], self._content[positives])
        return ~same & (self._characters[rows] > 0)
