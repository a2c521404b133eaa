"""Source: anything that can be read as a collection; and `prepare`, which streams one into a Collection, checked.

A source only reads. Every check of ids, texts and judgements is made here, once, for all of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from colbert_lab.artifact import Builder, build, finished, key_of
from colbert_lab.data.collection import Collection, qrels_file
from colbert_lab.data.texts import DuplicateId, Texts, write_texts
from colbert_lab.errors import DataError
from colbert_lab.progress import Progress, progress

Title = Literal["prepend", "drop"]
UnknownDocuments = Literal["count", "error"]
# Part of every key: raised when prepare would write something else from the same source.
LAYOUT = 1


@dataclass(frozen=True)
class Record:
    """A document or a query as a source has it; `where` is the place to look at when it is wrong ("file:line")."""

    id: str
    title: str
    text: str
    where: str


@dataclass(frozen=True)
class Judgement:
    """One judged pair; grade 0 is "judged, not relevant"."""

    query: str
    document: str
    grade: int
    where: str


class Unavailable(DataError):
    """A source whose files are neither here nor can be fetched: `what` is missing, and where it goes.

    `advice` mends it where the source is one that the user chose himself; a suite, which chose it, knows another way.
    """

    def __init__(self, what: str, advice: str):
        super().__init__(f"{what}\ntry: {advice}")
        self.what = what


class Source(Protocol):
    """What `prepare` reads. Iterating twice gives the same records in the same order.

    `title` says what becomes of titles: "prepend" makes the text "<title> <text>", "drop" leaves them out.
    `unknown_documents` says whether judgements of documents outside the corpus are counted and kept, as trec_eval does
    (they count in the ideal ranking), or an "error".
    """

    name: str
    title: Title
    unknown_documents: UnknownDocuments

    def fingerprint(self, memo: Path | None = None) -> str:
        """A hash of the content that would be read; `memo` is a file to keep hashes of large files in."""
        ...

    def documents(self) -> Iterator[Record]:
        """All documents."""
        ...

    def queries(self) -> Iterator[Record]:
        """The queries of all splits together."""
        ...

    def splits(self) -> tuple[str, ...]:
        """The names of the splits, possibly none."""
        ...

    def qrels(self, split: str) -> Iterator[Judgement]:
        """The judgements of a split."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON facts about what was read, for the manifest."""
        ...


def prepare(
    source: Source, root: Path, title: Title | None = None, unknown_documents: UnknownDocuments | None = None
) -> Collection:
    """The collection of `source` under `root`/collections, made if it is not there yet.

    `title` and `unknown_documents` are the source's own where None. Raises DataError, with the place, for an id that is
    empty or repeated, a text that is no valid Unicode, a judgement of an unknown query, a grade that is no integer, a
    pair judged twice with different grades, and an empty corpus.
    """
    root = Path(root).expanduser().absolute()
    rules = {
        "title": _choice("title", title or source.title, ("prepend", "drop")),
        "unknown_documents": _choice(
            "unknown_documents", unknown_documents or source.unknown_documents, ("count", "error")
        ),
    }
    fingerprint = source.fingerprint(root / "fingerprints.json")
    key = key_of("prepare", {"layout": LAYOUT, "name": source.name, **rules}, {"source": fingerprint})
    path = root / "collections" / f"{source.name.replace('/', '-')}-{key[:10]}"
    if not finished(path, key):
        config = {"name": source.name, **rules, "source": source.describe()}
        with build(path, kind="collection", key=key, inputs={"source": fingerprint}, config=config) as work:
            _write(source, work, rules["title"], rules["unknown_documents"] == "error")
    return Collection.open(path)


def report(collection: Collection) -> list[str]:
    """What was read, and anything odd about it that a user should know; one line each."""
    counts, config = collection.artifact.manifest["counts"], collection.artifact.manifest["config"]
    lines = [f"{collection.name}: {counts['documents']:,} documents, {counts['queries']:,} queries"]
    if counts["titles"]:
        done = "put before the texts" if config["title"] == "prepend" else "left out"
        lines.append(f"  {counts['titles']:,} documents have a title; titles are {done}")
    for key, what in (
        ("empty_documents", "documents have no text"),
        ("empty_queries", "queries have no text"),
        ("duplicate_documents", "documents repeat the text of another"),
    ):
        if counts[key]:
            shown = ", ".join(map(repr, counts.get(f"{key}_shown", [])))
            lines.append(f"  {counts[key]:,} {what}" + (f": {shown}" if shown else ""))
    for split, found in counts["splits"].items():
        lines.append(f"  {split}: {found['queries']:,} queries, {found['judgements']:,} judgements")
        for key, what in (
            ("queries_without_positive", "queries have no relevant document and are left out of averages"),
            ("unknown_documents", "judgements name documents outside the corpus; they stay in the ideal ranking"),
            ("repeated", "judgements were there twice"),
        ):
            if found[key]:
                lines.append(f"    {found[key]:,} {what}")
    return lines


def _write(source: Source, work: Builder, title: Title, strict: bool) -> None:
    counts = work.counts
    with progress("documents", None, "documents") as bar:
        corpus, empty = _write_texts(source.documents, work.path / "corpus", title, bar, counts)
    if not len(corpus):
        raise DataError(f"{source.name} has no documents")
    counts.update(documents=len(corpus), empty_documents=len(empty), empty_documents_shown=empty[:5])
    counts["duplicate_documents"] = len(corpus) - len(np.unique(corpus.content)) - max(len(empty) - 1, 0)
    with progress("queries", None, "queries") as bar:
        queries, empty = _write_texts(source.queries, work.path / "queries", "drop", bar, {})
    counts.update(queries=len(queries), empty_queries=len(empty), empty_queries_shown=empty[:5])
    counts["splits"] = {}
    (work.path / "qrels").mkdir(exist_ok=True)
    for split in source.splits():
        with progress(f"judgements of {split}", None, "judgements") as bar:
            file = qrels_file(work.path, split)
            counts["splits"][split] = _write_qrels(source.qrels(split), file, corpus, queries, strict, bar)


def _write_texts(
    records: Callable[[], Iterable[Record]], path: Path, title: Title, bar: Progress, counts: dict[str, Any]
) -> tuple[Texts, list[str]]:
    """Write the records as Texts; returns these and the ids of the empty ones, and counts titles in `counts`."""
    empty: list[str] = []
    counts["titles"] = 0

    def pairs() -> Iterator[tuple[str, str]]:
        for record in records():
            counts["titles"] += bool(record.title)
            text = f"{record.title} {record.text}".strip() if title == "prepend" and record.title else record.text
            _check(record, text)
            if not text.strip():
                empty.append(record.id)
                text = ""
            bar.advance()
            yield record.id, text

    try:
        write_texts(path, pairs())
    except DuplicateId as duplicate:
        # The places are not kept for millions of records; for this one message the source is read again.
        first, second = (next(islice(records(), row, None)).where for row in duplicate.rows)
        raise DataError(f"{second}: the id {duplicate.id!r} was there before, at {first}") from duplicate
    return Texts(path, f"the {path.name}"), empty


def _check(record: Record, text: str) -> None:
    if not isinstance(record.id, str) or not record.id:
        raise DataError(f"{record.where}: the id must be a string that is not empty, not {record.id!r}")
    try:
        record.id.encode("utf-8")
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{record.where}: {record.id!r} has half a surrogate pair, which is no text: {error}"
        ) from error


def _write_qrels(
    judgements: Iterable[Judgement], file: Path, corpus: Texts, queries: Texts, strict: bool, bar: Progress
) -> dict[str, int]:
    found: dict[str, dict[str, int]] = {}
    counts = {"queries": 0, "judgements": 0, "queries_without_positive": 0, "unknown_documents": 0, "repeated": 0}
    for judgement, known in _with_known(judgements, corpus):
        bar.advance()
        _add(judgement, known, strict, queries, found, counts)
    counts["queries"] = len(found)
    counts["judgements"] = sum(map(len, found.values()))
    counts["queries_without_positive"] = sum(max(judged.values()) <= 0 for judged in found.values())
    with file.open("w", encoding="utf-8", newline="\n") as handle:
        for query, judged in found.items():
            for document, grade in judged.items():
                handle.write(json.dumps([query, document, grade], ensure_ascii=False) + "\n")
    return counts


def _with_known(judgements: Iterable[Judgement], corpus: Texts) -> Iterator[tuple[Judgement, bool]]:
    """Each judgement with whether its document is in the corpus, looked up many at a time."""
    judgements = iter(judgements)
    while batch := list(islice(judgements, 4096)):
        yield from zip(batch, (corpus.find([judgement.document for judgement in batch]) >= 0).tolist())


def _add(
    judgement: Judgement,
    known: bool,
    strict: bool,
    queries: Texts,
    found: dict[str, dict[str, int]],
    counts: dict[str, int],
) -> None:
    query, document, grade, where = judgement.query, judgement.document, judgement.grade, judgement.where
    if not isinstance(grade, int) or isinstance(grade, bool):
        raise DataError(f"{where}: a grade is an integer, not {grade!r}")
    if query not in found and query not in queries:
        raise DataError(f"{where}: the query {query!r} is judged, but is not among the queries")
    judged = found.setdefault(query, {})
    if document in judged:
        if judged[document] != grade:
            raise DataError(
                f"{where}: query {query!r}, document {document!r} has grade {grade}, but had {judged[document]} before"
            )
        counts["repeated"] += 1
        return
    if not known and strict:
        raise DataError(
            f"{where}: the document {document!r} is judged, but is not in the corpus; "
            "unknown_documents=count keeps such judgements"
        )
    counts["unknown_documents"] += not known
    judged[document] = grade


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise DataError(f"{name}={value} must be one of {', '.join(choices)}")
    return value
