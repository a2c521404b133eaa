"""Examples out of a file of ids, one a line, the positive first; read where they lie, however large the file.

    [qid, pid+, pid-, pid-, ...]                   JSON
    [qid, [pid+, score], [pid-, score], ...]       JSON, with a teacher's scores
    qid \\t pid+ \\t pid-                            columns

Ids may be integers. All lines of a file have the same of these forms.
"""

from typing import Any, NamedTuple

import numpy as np

from colbert_lab.artifact import hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.data.examples import Example, check_pick, choose, texts_of
from colbert_lab.data.lines import Lines, json_id, parse_json
from colbert_lab.errors import DataError


class Tuples:
    """One example for each line of `file`, whose ids are those of `collection`.

    `pick` says which of a line's negatives are taken where fewer are wanted: a "sample" of them or the "first", as
    Stanford's ColBERT does. `qrels`, where given, add to the known positives of a query, which are otherwise its
    line's. When made, the form of every line is checked, and the ids of the first `checked` lines (None: all); an
    unknown id beyond these is a DataError when it is drawn. DataErrors name file and line.
    """

    def __init__(
        self,
        collection: Collection,
        file: str,
        qrels: Qrels | None = None,
        pick: str = "sample",
        checked: int | None = None,
    ):
        self._collection = collection
        self._qrels = qrels or {}
        self._pick = check_pick(pick)
        check = _Check(collection, checked)
        self._lines = Lines(file, check.visit)
        if not len(self._lines):
            raise DataError(f"{self._lines.path} is empty")
        check.look_up()
        self._form, self.limit, self._most = check.form, check.least, check.most
        positives = sorted(
            (q, sorted(d for d, grade in judged.items() if grade > 0)) for q, judged in self._qrels.items()
        )
        facts = {"file": self._lines.digest, "pick": pick, "positives": positives}
        self.fingerprint = hash_json(["tuples", collection.digest, facts])

    def __len__(self) -> int:
        return len(self._lines)

    def sample(self, index: int, rng: np.random.Generator, negatives: int) -> Example:
        """Line number `index` (from 0, blank ones not counted) with `negatives` of its negatives."""
        where, line = self._lines[index]
        entry = _parse(where, line, self._form)
        taken = [0, *(1 + i for i in choose(len(entry.documents) - 1, negatives, rng, where, self._pick))]
        ids = tuple(entry.documents[i] for i in taken)
        try:
            query, texts = self._collection.queries.get([entry.query])[0], self._collection.corpus.get(ids)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        judged = self._qrels.get(entry.query, {})
        known = frozenset([ids[0], *(document for document, grade in judged.items() if grade > 0)])
        return Example(
            query=query,
            documents=tuple(texts),
            query_id=entry.query,
            document_ids=ids,
            scores=tuple(entry.scores[i] for i in taken) if entry.scores else None,
            known_positives=known,
            known_texts=texts_of(self._collection.corpus, known),
        )

    def describe(self) -> dict[str, Any]:
        """The file, its SHA-256, its form and size, and how many negatives its lines have (least and most)."""
        return {
            "file": str(self._lines.path),
            "sha256": self._lines.digest,
            "form": self._form,
            "pick": self._pick,
            "examples": len(self),
            "negatives": [self.limit, self._most],
        }


class _Tuple(NamedTuple):
    query: str
    documents: list[str]
    scores: list[float] | None


def _form(where: str, line: str) -> str:
    if not line.lstrip().startswith("["):
        return "columns"
    entry = parse_json(line, where)
    return "scored" if len(entry) > 1 and isinstance(entry[1], list) else "ids"


def _parse(where: str, line: str, form: str) -> _Tuple:
    if form == "columns":
        columns = line.split("\t")
        if len(columns) != 3:
            raise DataError(
                f"{where}: expected 3 columns separated by tabs (query, positive, negative), "
                f"found {len(columns)}: {line[:80]!r}"
            )
        return _Tuple(columns[0], columns[1:], None)
    entry = parse_json(line, where)
    if not isinstance(entry, list) or len(entry) < 2:
        raise DataError(f"{where}: expected a list of a query and its documents, found {line[:80]!r}")
    query, documents = json_id(entry[0], where, "query id"), entry[1:]
    if any(isinstance(document, list) != (form == "scored") for document in documents):
        raise DataError(f"{where}: lines with and without scores are mixed (the first line has form {form!r})")
    scores = None
    if form == "scored":
        scores = [_score(pair, where) for pair in documents]
        documents = [pair[0] for pair in documents]
    ids = [json_id(document, where, "document id") for document in documents]
    if len(set(ids)) != len(ids):
        raise DataError(f"{where}: a document is there twice: {line[:80]!r}")
    return _Tuple(query, ids, scores)


def _score(pair: list, where: str) -> float:
    if len(pair) != 2:
        raise DataError(f"{where}: expected [document, score], found {pair!r:.80}")
    score = pair[1]
    if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
        raise DataError(f"{where}: expected [document, score] with a score that is a number, found {pair!r:.80}")
    return float(score)


class _Check:
    """Looks at the lines of a file one after the other: their form, their sizes, and many ids at a time."""

    def __init__(self, collection: Collection, checked: int | None):
        if checked is not None and checked < 0:
            raise DataError(f"checked={checked} must be a number of lines, or null for all")
        self.form = ""
        self.least, self.most = 2**62, 0
        self._collection = collection
        self._remaining = checked
        self._waiting: list[tuple[str, _Tuple]] = []

    def visit(self, where: str, line: str) -> None:
        self.form = self.form or _form(where, line)
        entry = _parse(where, line, self.form)
        count = len(entry.documents) - 1
        self.least, self.most = min(self.least, count), max(self.most, count)
        if self._remaining == 0:
            return
        if self._remaining is not None:
            self._remaining -= 1
        self._waiting.append((where, entry))
        if len(self._waiting) == 1024:
            self.look_up()

    def look_up(self) -> None:
        """Look up the ids of the lines that wait for it; DataError for the first that is unknown."""
        queries = [(entry.query, where) for where, entry in self._waiting]
        documents = [(document, where) for where, entry in self._waiting for document in entry.documents]
        self._waiting = []
        for texts, found in ((self._collection.queries, queries), (self._collection.corpus, documents)):
            unknown = np.flatnonzero(texts.find([id for id, _ in found]) < 0)
            if len(unknown):
                id, where = found[int(unknown[0])]
                # A teacher's scores are decimals; ids that look so were most likely exchanged with them.
                swapped = "; the order is [document, score]" if "." in id and self.form == "scored" else ""
                raise DataError(f"{where}: {id!r} is no id in {texts.name}{swapped}")
