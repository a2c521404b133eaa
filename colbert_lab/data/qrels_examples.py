"""Examples out of judgements: a positive of the query, negatives from a run or from the whole corpus."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from colbert_lab.artifact import hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.data.examples import Example
from colbert_lab.data.negatives import Negatives
from colbert_lab.errors import DataError
from colbert_lab.run import Run


class QrelsExamples:
    """One example for each query of `qrels` that has a positive in the corpus, in the order of `qrels`.

    `negatives` is "random" (the whole corpus), "none", or the name of what `run` came from ("bm25", a path): then they
    are drawn without replacement from its `ranks` first..last, both included, counted from 1 over the run's list, and
    from the corpus at random where the window has too few. The positive is drawn among the documents of grade
    `min_grade` or more, with `positive_depth` among those that the run has within this rank: loosely related documents,
    which no search would find, teach little (ColBERTv2's public triples are made so, by ranks 50 to 1,000); a query
    without one there is left out. Documents judged above 0 are never negatives. DataError for an unknown id in `qrels`
    (queries) or `run` (documents), and where no query is left.
    """

    def __init__(
        self,
        collection: Collection,
        qrels: Qrels,
        run: Run | None = None,
        negatives: str = "bm25",
        ranks: Sequence[int] = (6, 100),
        min_grade: int = 1,
        positive_depth: int | None = None,
    ):
        if negatives in ("random", "none"):
            run = None
        elif run is None:
            raise DataError(f"negatives={negatives} are drawn from a run, and there is none; or take random, none")
        first, last = ranks
        if not 1 <= first <= last:
            raise DataError(f"ranks=[{first},{last}] must be first and last rank, counted from 1, both included")
        if min_grade < 1:
            raise DataError(f"min_grade={min_grade} must be 1 or more: grade 0 is judged not relevant")
        if positive_depth is not None and (run is None or positive_depth < 1):
            raise DataError(
                f"positive_depth={positive_depth} is a rank, from 1, in the run that negatives are drawn from, and "
                f"negatives={negatives}\ntry: positive_depth=null, or negatives=bm25"
            )
        self.limit = 0 if negatives == "none" else None
        self._collection = collection
        self._negatives = Negatives(collection.corpus)
        self._counts = dict.fromkeys(
            (
                *("without_positive", "empty_query", "empty_positives", "unknown_positives", "positives_not_found"),
                *("no_positive_found", "not_in_run"),
            ),
            0,
        )
        self._known: list[frozenset[str]] = []
        self._queries: list[int] = []
        self._positives: list[np.ndarray] = []
        self._judged: list[np.ndarray] = []
        self._windows: list[np.ndarray] = []
        for query, judged in qrels.items():
            self._add(query, judged, run, (first, last), min_grade, positive_depth)
        if not self._queries:
            raise DataError(f"no query of {collection.name} has a relevant document to learn from: {self._counts}")
        self._facts = {"negatives": negatives, "min_grade": min_grade}
        if run is not None:
            self._facts["ranks"] = [first, last]
        if positive_depth is not None:
            self._facts["positive_depth"] = positive_depth
        self.fingerprint = hash_json([collection.digest, self._facts, self._content()])

    def __len__(self) -> int:
        return len(self._queries)

    def sample(self, index: int, rng: np.random.Generator, negatives: int) -> Example:
        """The query number `index` with a positive and `negatives` negatives drawn with `rng`."""
        corpus, queries = self._collection.corpus, self._collection.queries
        positive = rng.choice(self._positives[index])
        if self.limit is not None and negatives > self.limit:
            raise DataError(f"{negatives} negatives are wanted with negatives=none; take negatives=random or bm25")
        drawn = self._negatives.draw(rng, self._windows[index], self._judged[index], negatives)
        rows = np.concatenate([[positive], drawn]).astype(np.int64)
        query = self._queries[index]
        return Example(
            query=queries[[query]][0],
            documents=tuple(corpus[rows]),
            query_id=queries.id(query),
            document_ids=tuple(corpus.ids(rows)),
            scores=None,
            known_positives=self._known[index],
            known_texts=frozenset(corpus.content[self._judged[index]].tolist()),
        )

    def shortfall(self, negatives: int) -> int:
        """How many queries have fewer than `negatives` in their window and are topped up from the corpus at random."""
        return sum(len(window) < negatives for window in self._windows)

    def describe(self) -> dict[str, Any]:
        """What was asked for, how many queries are left, and how many were left out for what reason.

        `window` has the least, the median and the largest number of negatives in a query's window, `not_in_run` the
        number of queries without one; `shortfall` how many queries are topped up for 1, 7, 15, 31 or 63 negatives.
        """
        facts = {**self._facts, "examples": len(self), "left_out": dict(self._counts)}
        for name in (
            "not_in_run",
            *(() if "positive_depth" in self._facts else ("positives_not_found", "no_positive_found")),
        ):
            facts["left_out"].pop(name)
        facts["positives"] = sum(map(len, self._positives))
        if "ranks" in self._facts:
            sizes = np.array([len(window) for window in self._windows])
            facts["window"] = [int(sizes.min()), int(np.median(sizes)), int(sizes.max())]
            facts["not_in_run"] = self._counts["not_in_run"]
            facts["shortfall"] = {str(count): self.shortfall(count) for count in (1, 7, 15, 31, 63)}
        return facts

    def _add(
        self,
        query: str,
        judged: dict[str, int],
        run: Run | None,
        ranks: tuple[int, int],
        min_grade: int,
        positive_depth: int | None,
    ) -> None:
        collection, row = self._collection, self._collection.queries.row(query)
        relevant = [document for document, grade in judged.items() if grade > 0]
        known = collection.corpus.find(relevant)
        usable = known[[judged[document] >= min_grade for document in relevant]] if relevant else known
        self._counts["unknown_positives"] += int((usable < 0).sum())
        usable = usable[usable >= 0]
        full = collection.corpus.characters[usable] > 0
        self._counts["empty_positives"] += int((~full).sum())
        usable = usable[full]
        hits = run.get(query) if run is not None else None
        if not collection.queries.characters[row]:
            self._counts["empty_query"] += 1
        elif not len(usable):
            self._counts["without_positive"] += 1
        else:
            if positive_depth is not None:
                found = collection.corpus.find(hits.ids[:positive_depth] if hits is not None else ())
                self._counts["positives_not_found"] += int((~np.isin(usable, found)).sum())
                usable = usable[np.isin(usable, found)]
                if not len(usable):
                    self._counts["no_positive_found"] += 1
                    return
            known = known[known >= 0]
            self._counts["not_in_run"] += run is not None and hits is None
            self._queries.append(row)
            self._positives.append(usable)
            self._judged.append(known)
            self._known.append(frozenset(relevant))
            self._windows.append(self._negatives.window(hits, ranks, known))

    def _content(self) -> str:
        digest = hashlib.sha256(np.array(self._queries, dtype=np.int64).tobytes())
        for known, positives, window in zip(self._known, self._positives, self._windows):
            for part in ("\n".join(sorted(known)).encode(), positives.tobytes(), window.tobytes()):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()
