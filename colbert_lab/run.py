"""Run: what a search found, for every query its documents with scores in a stated order; TREC files in and out.

The order is by score, descending; equal scores by document id, ascending. A Run read from a file can instead keep the
file's order among equal scores, or take trec_eval's (single precision, equal scores by document id, descending).

In a TREC file blanks separate the columns. A line whose ids hold blanks is written with both ids percent-encoded and
says so by a `%` at the end of its tag; every other id is written, and read, as it is (DBpedia's hold percent signs).
"""

import contextlib
import gzip
import io
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, get_args
from urllib.parse import quote, unquote

import numpy as np

from colbert_lab.errors import ConfigError, DataError

Ties = Literal["id", "file", "trec_eval"]
_ESCAPED = "%"


@dataclass(frozen=True, eq=False)
class Hits:
    """The documents found for one query, best first: ids and scores (float64) of equal length, ids unique."""

    ids: tuple[str, ...]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.ids, self.scores.tolist())

    def __eq__(self, other: object) -> bool:
        # The comparison a dataclass would generate fails on arrays: they compare element by element.
        if not isinstance(other, Hits):
            return NotImplemented
        return self.ids == other.ids and np.array_equal(self.scores, other.scores)

    def cut(self, k: int) -> "Hits":
        """The best k."""
        return Hits(self.ids[:k], self.scores[:k])

    def without(self, ids: set[str]) -> "Hits":
        """All but these documents, in the same order."""
        keep = [i for i, document in enumerate(self.ids) if document not in ids]
        return Hits(tuple(self.ids[i] for i in keep), self.scores[keep])


class Run(Mapping[str, Hits]):
    """Query id -> Hits, in the order in which the queries were given; `depth` is how many were asked for a query."""

    def __init__(self, hits: Mapping[str, Hits], depth: int | None = None):
        self._hits = dict(hits)
        self.depth = max((len(h) for h in self._hits.values()), default=0) if depth is None else depth

    def __getitem__(self, query: str) -> Hits:
        return self._hits[query]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hits)

    def __len__(self) -> int:
        return len(self._hits)

    def cut(self, k: int) -> "Run":
        """The best k of every query."""
        return Run({query: hits.cut(k) for query, hits in self.items()}, min(k, self.depth))


def rank(ids: Sequence[str], scores: Sequence[float] | np.ndarray, ties: Ties = "id") -> Hits:
    """Hits of unsorted ids and scores; DataError for a repeated id or a score that is no number."""
    if ties not in get_args(Ties):
        raise ConfigError(f"ties is {ties!r}, it can be {', '.join(get_args(Ties))}", "the order of results")
    scores = np.asarray(scores, dtype=np.float64)
    if len(ids) != len(scores):
        raise DataError(f"{len(ids)} document ids, but {len(scores)} scores")
    if np.isnan(scores).any():
        raise DataError(f"the score of document {ids[int(np.isnan(scores).argmax())]!r} is not a number")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        repeated = next(i for i in ids if i in seen or seen.add(i))
        raise DataError(f"document {repeated!r} appears twice in the results of one query")
    if ties == "file":
        order = np.argsort(-scores, kind="stable")
    else:
        # Sorting by the second key first, then stably by the first.
        by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=ties == "trec_eval"), dtype=np.int64)
        with np.errstate(over="ignore"):  # beyond single precision all scores are equally infinite, as in trec_eval
            compared = scores.astype(np.float32) if ties == "trec_eval" else scores
        order = by_id[np.argsort(-compared[by_id], kind="stable")]
    return Hits(tuple(ids[i] for i in order), scores[order])


def read_trec(path: str | Path, ties: Ties = "id", depth: int | None = None) -> Run:
    """Read `qid Q0 docid rank score tag` lines (.gz too); the rank column is not trusted, scores decide.

    `depth` is how many results a query was asked for, by default the most that one has. A result takes 16 bytes: its
    score, and a reference to an id that all queries share; up to 20 while the file is read. DataError, with file and
    line, for a line without six columns or a score that is no number; with the query, for a repeated document.
    """
    path = Path(path)
    found: dict[str, tuple[list[str], array]] = defaultdict(lambda: ([], array("d")))
    known: dict[str, str] = {}
    for number, line in numbered_lines(path):
        columns = line.split()
        if not columns:
            continue
        if len(columns) != 6:
            raise DataError(f"{path}:{number}: a run line has 6 columns, this one {len(columns)}: {line.strip()!r}")
        query, _, document, _, score, tag = columns
        if tag.endswith(_ESCAPED):
            query, document = unquote(query), unquote(document)
        ids, scores = found[query]
        try:
            scores.append(float(score))
        except ValueError as error:
            raise DataError(f"{path}:{number}: the score {score!r} is not a number") from error
        ids.append(known.setdefault(document, document))
    hits = {}
    for query in list(found):
        # Taken out, so that no query's results are held twice.
        ids, scores = found.pop(query)
        try:
            hits[query] = rank(ids, scores, ties)
        except DataError as error:
            raise DataError(f"{path}: query {query!r}: {error}") from error
    return Run(hits, depth)


def write_trec(run: Run, path: str | Path, tag: str = "colbert_lab") -> None:
    """Write the TREC format (.gz too), ranks from 1, scores with all digits of a double.

    Equal runs make equal files, byte for byte. A query without results leaves no line. DataError for an empty id;
    ConfigError for a tag with blanks or a `%` at its end.
    """
    if _breaks_columns(tag) or tag.endswith(_ESCAPED):
        raise ConfigError(f"the tag {tag!r} must be one word that does not end in {_ESCAPED}", "a run file")
    with create_text(Path(path)) as handle:
        for query, hits in run.items():
            for position, (document, score) in enumerate(hits, 1):
                if not query or not document:
                    raise DataError(f"{path}: query {query!r}, document {document!r}: an empty id leaves no column")
                if _breaks_columns(query) or _breaks_columns(document):
                    columns = (quote(query, safe=_SAFE), "Q0", quote(document, safe=_SAFE), tag + _ESCAPED)
                else:
                    columns = (query, "Q0", document, tag)
                handle.write(f"{' '.join(columns[:3])} {position} {score!r} {columns[3]}\n")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file (.gz too), numbered from 1; DataError, with the line, where it cannot be read."""
    number = 0
    with open_text(path) as handle:
        try:
            for number, line in enumerate(handle, 1):
                yield number, line
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise DataError(f"{path}:{number + 1}: cannot be read: {error}") from error


def open_text(path: Path) -> TextIO:
    """A text file, plain or .gz, as UTF-8 lines that end at a newline only; DataError where it is missing."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    opener = gzip.open if path.suffix == ".gz" else open
    # utf-8-sig: a byte order mark must not become part of the first id.
    return opener(path, "rt", encoding="utf-8-sig", newline="\n")


@contextlib.contextmanager
def create_text(path: Path) -> Iterator[TextIO]:
    """A new UTF-8 text file to write to, compressed where it ends in .gz; equal content makes equal bytes."""
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(path.open("wb"))
        if path.suffix == ".gz":
            # By default gzip would store the name and the time, and no two artifacts would have the same digest.
            raw = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0))
        yield stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"))


def _breaks_columns(text: str) -> bool:
    # By str.split, which separates the columns when they are read: it knows more blanks than one would list.
    return text.split() != [text] or "\ufeff" in text


_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
