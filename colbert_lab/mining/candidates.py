"""Candidates: for every query its known positives and the documents of a run that may be its negatives.

    candidates.arrow    query, documents, ranks, grades; one row a query (see QueryCandidates)

What may not be a negative is dropped here, once, and counted: everything later only chooses among the candidates.
"""

from collections import Counter
from collections.abc import Collection as AnyCollection
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.rows import Rows, write_rows
from colbert_lab.mining.tally import Counted, Tally, spread
from colbert_lab.run import Run

_SCHEMA = pa.schema(
    {
        "query": pa.string(),
        "documents": pa.list_(pa.string()),
        "ranks": pa.list_(pa.int32()),
        "grades": pa.list_(pa.int32()),
    }
)
_UNJUDGED = -1


@dataclass(frozen=True)
class Mining:
    """Which documents of a run become candidates.

    `ranks` are the first and last rank, both included, counted from 1 over the run's whole list, positives and all;
    of these the first `depth` that may be negatives are kept. A document of grade `min_grade` or more is a positive
    wherever it ranks; at most `positives` of them are kept, best grade first (None: all). `unjudged` also mines for
    the queries of the run that have no judgements. ConfigError for values that make no sense.
    """

    depth: int = 100
    ranks: tuple[int, int] = (1, 1000)
    min_grade: int = 1
    positives: int | None = None
    unjudged: bool = False

    def __post_init__(self):
        problems = []
        if self.depth < 1:
            problems.append(f"depth={self.depth} must be 1 or more\ntry: depth=100")
        if len(self.ranks) != 2 or not 1 <= self.ranks[0] <= self.ranks[1]:
            shown = ",".join(map(str, self.ranks))
            problems.append(
                f"ranks=[{shown}] must be first and last rank, counted from 1, both included\ntry: ranks=[1,1000]"
            )
        if self.min_grade < 1:
            problems.append(f"min_grade={self.min_grade} must be 1 or more: grade 0 is judged not relevant")
        if self.positives is not None and self.positives < 1:
            problems.append(f"positives={self.positives} must be 1 or more, or null for all")
        if problems:
            raise ConfigError(problems, "mining")


@dataclass(frozen=True)
class QueryCandidates:
    """A query's documents: its positives (by grade, best first, then rank, then id), then the others by rank.

    `ranks` are those in the run, counted from 1; 0 is a positive that the run did not bring. `grades` are the
    judgements'; 0 is "judged, not relevant" (judgements below 0 too), -1 "not judged".
    """

    query: str
    documents: tuple[str, ...]
    ranks: tuple[int, ...]
    grades: tuple[int, ...]

    @property
    def positives(self) -> int:
        """How many of the documents, the first so many, are positives."""
        return sum(grade > 0 for grade in self.grades)


def mine(
    run: Run, qrels: Qrels, collection: Collection, mining: Mining, kept: AnyCollection[str] = ()
) -> Counted[QueryCandidates]:
    """The candidates of the queries of `qrels` (then of `run`, with `unjudged`), in that order; and JSON counts.

    They are found as they are iterated, so that those of one query are in memory at a time.

    `kept` are queries that are kept for judging: they may be without judgements in `qrels` and have some elsewhere, so
    that those of them which the run has are never mined as unjudged, but counted as kept_for_judging.

    Never a candidate negative, and counted under `dropped` by the first of these reasons that holds:

        outside_window     a rank before the first or after the last
        beyond_depth       `depth` negatives were found before it
        below_min_grade    judged relevant, but of a grade below `min_grade`: neither positive nor negative
        self               the query's own id, or exactly its text (a query that is a document of the collection)
        empty              no text; positives without text are counted here too
        copy_of_positive   the text of a document that is judged relevant, under another id
        copy_of_earlier    the text of a negative that ranks before it

    Positives are dropped as surplus_positive (beyond `positives`) or unknown_positive (judged, not in the corpus).
    `short` counts queries that have fewer than `depth` negatives. DataError, with the id, where the run names a
    document, or a mined query, that is not in the collection.
    """
    return Counted(_Miner(run, collection, mining).rows(qrels, kept))


def contaminated(training: Iterable[str], test: Iterable[str], collection: Collection) -> list[tuple[str, str]]:
    """Pairs (training query, test query) that are one query: by id, or by text without letter case and spacing.

    They are reported, not left out: which side to take them from is for the user to decide. In the order of
    `training`, then of `test`. DataError for an unknown id.
    """
    training, test = list(training), list(test)
    texts = [[" ".join(text.casefold().split()) for text in collection.queries.get(ids)] for ids in (training, test)]
    by_text: dict[str, list[str]] = {}
    for query, text in zip(test, texts[1]):
        by_text.setdefault(text, []).append(query)
    there = set(test)
    found = []
    for query, text in zip(training, texts[0]):
        same = by_text.get(text, []) if text else []
        # An id has one text, so a query that is in both is among those of its text, unless that is empty.
        found += [(query, other) for other in same or ([query] if query in there else [])]
    return found


class Candidates:
    """The candidates of a file, memory-mapped: `candidates[i]`, iteration, and the documents alone, in row order."""

    def __init__(self, file: Path):
        self._rows = Rows(file, _SCHEMA)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> QueryCandidates:
        return _unpacked(self._rows[index])

    def __iter__(self) -> Iterator[QueryCandidates]:
        return map(_unpacked, self._rows)

    def queries(self) -> Iterator[str]:
        """The queries' ids, in row order."""
        return (row["query"] for row in self._rows.columns("query"))

    def groups(self) -> Iterator[tuple[str, list[str]]]:
        """Each query's id and its documents', row by row: the order of a teacher's scores of all P pairs."""
        for row in self._rows.columns("query", "documents"):
            yield row["query"], row["documents"]

    @property
    def total(self) -> int:
        """P, the number of pairs."""
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> np.ndarray:
        """[len + 1] int64: the pairs of row i are offsets[i] .. offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self._rows.lengths("documents"))]).astype(np.int64)

    def __reduce__(self):
        # The map is opened anew by the process that receives this, not copied to it.
        return Candidates, (self._rows.file,)


def write_candidates(file: str | Path, rows: Iterable[QueryCandidates]) -> None:
    """Write the file that read_candidates reads; equal rows make equal bytes."""
    write_rows(Path(file), _SCHEMA, map(vars, rows))


def read_candidates(file: str | Path) -> Candidates:
    """The candidates in a file; ArtifactError where it is missing or holds something else."""
    return Candidates(Path(file))


class _Miner:
    def __init__(self, run: Run, collection: Collection, mining: Mining):
        self._run, self._mining = run, mining
        self._corpus, self._queries = collection.corpus, collection.queries
        self._left_out = Counter({"empty_query": 0, "nothing_found": 0, "kept_for_judging": 0})
        self._not_in_run = 0
        self._negatives_of: list[int] = []
        self._sums = Counter({"pairs": 0, "positives": 0, "positives_not_found": 0, "without_positive": 0})
        self._dropped = Tally(
            *("outside_window", "beyond_depth", "below_min_grade", "self", "empty"),
            *("copy_of_positive", "copy_of_earlier", "surplus_positive", "unknown_positive"),
        )

    def rows(self, qrels: Qrels, kept: AnyCollection[str]) -> Generator[QueryCandidates, None, dict[str, Any]]:
        others = [query for query in self._run if query not in qrels] if self._mining.unjudged else []
        queries = [*qrels, *(query for query in others if query not in kept)]
        self._left_out["kept_for_judging"] = len(qrels) + len(others) - len(queries)
        for query in queries:
            row = self._row(query, qrels.get(query, {}))
            if row is not None:
                yield row
        return self._counts()

    def _row(self, query: str, judged: dict[str, int]) -> QueryCandidates | None:
        own = self._queries.row(query)
        if not self._queries.characters[own]:
            self._left_out["empty_query"] += 1
            return None
        hits = self._run.get(query)
        self._not_in_run += hits is None
        found = hits.ids if hits is not None else ()
        dropped: Counter[str] = Counter()
        positives = self._positives(found, judged, dropped)
        negatives = self._negatives(query, int(self._queries.content[own]), found, judged, dropped)
        self._dropped.add(dropped)
        if not positives and not negatives:
            self._left_out["nothing_found"] += 1
            return None
        documents, ranks = zip(*positives, *negatives)
        grades = tuple(max(judged[document], 0) if document in judged else _UNJUDGED for document in documents)
        self._negatives_of.append(len(negatives))
        self._sums["pairs"] += len(documents)
        self._sums["positives"] += len(positives)
        self._sums["positives_not_found"] += sum(rank == 0 for _, rank in positives)
        self._sums["without_positive"] += not positives
        return QueryCandidates(query, documents, ranks, grades)

    def _positives(self, found: tuple[str, ...], judged: dict[str, int], dropped: Counter) -> list[tuple[str, int]]:
        ids = [document for document, grade in judged.items() if grade >= self._mining.min_grade]
        rows = self._corpus.find(ids)
        dropped["unknown_positive"] += int((rows < 0).sum())
        known = [document for document, row in zip(ids, rows.tolist()) if row >= 0]
        full = self._corpus.characters[rows[rows >= 0]] > 0
        dropped["empty"] += int((~full).sum())
        rank = {document: position for position, document in enumerate(found, 1)}
        usable = sorted(
            (document for document, some in zip(known, full.tolist()) if some),
            key=lambda document: (-judged[document], rank.get(document, np.inf), document),
        )
        kept = usable[: self._mining.positives]
        dropped["surplus_positive"] += len(usable) - len(kept)
        return [(document, rank.get(document, 0)) for document in kept]

    def _negatives(
        self, query: str, own: int, found: tuple[str, ...], judged: dict[str, int], dropped: Counter
    ) -> list[tuple[str, int]]:
        rows = self._corpus_rows(query, found)
        content, characters = self._corpus.content[rows].tolist(), self._corpus.characters[rows].tolist()
        relevant = self._corpus.find([document for document, grade in judged.items() if grade > 0])
        relevant = set(self._corpus.content[relevant[relevant >= 0]].tolist())
        (first, last), depth = self._mining.ranks, self._mining.depth
        kept: dict[int, tuple[str, int]] = {}
        for rank, (document, text, length) in enumerate(zip(found, content, characters), 1):
            grade = judged.get(document, _UNJUDGED)
            if grade >= self._mining.min_grade:
                continue
            if not first <= rank <= last:
                dropped["outside_window"] += 1
            elif len(kept) == depth:
                dropped["beyond_depth"] += 1
            elif grade > 0:
                dropped["below_min_grade"] += 1
            elif document == query or text == own:
                dropped["self"] += 1
            elif not length:
                dropped["empty"] += 1
            elif text in relevant:
                dropped["copy_of_positive"] += 1
            elif text in kept:
                dropped["copy_of_earlier"] += 1
            else:
                kept[text] = (document, rank)
        return list(kept.values())

    def _corpus_rows(self, query: str, found: tuple[str, ...]) -> np.ndarray:
        try:
            return self._corpus.rows(found)
        except DataError as error:
            raise DataError(
                f"the run's result for query {query!r}: {error}; it was made on another collection"
            ) from error

    def _counts(self) -> dict[str, Any]:
        return {
            "queries": len(self._negatives_of),
            **self._sums,
            "negatives": sum(self._negatives_of),
            "negatives_per_query": spread(self._negatives_of),
            "short": sum(count < self._mining.depth for count in self._negatives_of),
            "not_in_run": self._not_in_run,
            "left_out": dict(self._left_out),
            "dropped": self._dropped.summary(),
        }


def _unpacked(row: dict[str, Any]) -> QueryCandidates:
    return QueryCandidates(row["query"], *(tuple(row[name]) for name in ("documents", "ranks", "grades")))
