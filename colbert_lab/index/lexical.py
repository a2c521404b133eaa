"""`index=bm25`: BM25 over texts behind the interface of every index; no model is needed for it.

    ids, words        documents, and the vocabulary in the order of its numbers
    tokens, lengths   every document's words as numbers (int32), end to end; how many each has
    data, indices, indptr   what every word adds to every live document's score (search/bm25.py: Weights)
    deleted           row numbers, where there are any

Opening maps the weights; no text is tokenised again, no text is kept.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from colbert_lab.errors import ConfigError
from colbert_lab.index.files import Files
from colbert_lab.index.rows import Rows, refuse_repeated
from colbert_lab.index.store import edit_rows
from colbert_lab.run import Hits, Run
from colbert_lab.scoring.maxsim import Similarity
from colbert_lab.search.bm25 import Weights, Words, bm25_problems, check_queries, weigh


@dataclass(frozen=True)
class Bm25IndexKind:
    """`index=bm25`: k1 and b as Anserini has them for passages; stopwords a language (`en`), a list or None; stemmer a
    Snowball language or None. ConfigError for a setting out of range or unknown."""

    k1: float = 0.9
    b: float = 0.4
    stopwords: str | list[str] | None = "en"
    stemmer: str | None = "english"
    takes: ClassVar[Literal["texts"]] = "texts"
    probe: ClassVar[None] = None

    def __post_init__(self):
        if found := bm25_problems(self.k1, self.b, self.stopwords, self.stemmer):
            raise ConfigError(found, "index=bm25")

    def writer(self, directory: Path, dim: int = 0, similarity: Similarity = "cosine") -> "Bm25Writer":
        """Begin, or go on with, the index in this directory; texts have no dimension and no similarity."""
        return Bm25Writer(directory, asdict(self))

    def open(self, directory: Path) -> "Bm25Index":
        """The finished index in this directory."""
        return Bm25Index(directory)


class Bm25Writer:
    """Tokenises documents as they come; every `append` is committed before it returns."""

    def __init__(self, directory: Path, facts: dict[str, Any]):
        self._files = Files.edit(directory, facts)
        self._words = _words(self._files)

    @property
    def documents(self) -> int:
        """How many documents are committed."""
        return self._files.rows("ids")

    def append(self, ids: Sequence[str], documents: Sequence[str]) -> None:
        """Add documents by their texts."""
        if self._files.finished:
            raise ValueError("the index is finished; nothing can be appended")
        try:
            _stage(self._files, self._words, ids, documents)
            self._files.commit()
        except BaseException:
            self._words = _words(self._files)  # without what it learnt of documents that were not taken
            raise

    def finish(self) -> None:
        """Weigh all words of all documents, in memory; DataError for an id that came twice."""
        if not self._files.finished:
            refuse_repeated(self._files.strings("ids"))
            _replace_weights(self._files, _tokens(self._files), len(self._words))
            self._files.commit(finished=True)


class Bm25Index:
    """BM25's weights, mapped, and the vocabulary. Every edit weighs all documents anew: how rare a word is has changed.

    So an edited index scores as one made anew of the same documents does.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._load()

    def _load(self) -> None:
        files = self._files = Files.open(self._directory)
        self._rows = Rows(files.strings("ids"), files.array("deleted") if "deleted" in files else None)
        self._words = _words(files)
        self._weights = Weights(files.array("data"), files.array("indices"), files.array("indptr"), len(self._rows))

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""
        return self._rows.ids

    def __len__(self) -> int:
        return len(self._rows)

    def stats(self) -> dict[str, Any]:
        """Documents, different words, words of all documents, the parameters, and bytes of all files."""
        lengths = self._files.array("lengths")[self._rows.live] if len(self._rows) else np.zeros(1, np.int32)
        counts = {"documents": len(self), "words": len(self._words), "tokens": int(lengths.sum())}
        return {**self._files.facts, **counts, "bytes": self._files.bytes()}

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""
        self._files.verify()

    def search(
        self,
        query_ids: Sequence[str],
        queries: Sequence[str],
        k: int,
        only: Sequence[str] | None = None,
        probe: None = None,
    ) -> Run:
        """The best k documents of every query, given as text, equal scores by id.

        Unlike a search by vectors it finds no others than documents that share a word with the query, so that there
        may be fewer than min(k, N): filled up, a run would owe some of its recall to the order of ids. `only` takes
        documents out, and leaves the weights those of the whole collection. ConfigError where `probe` is given.
        """
        if k < 1:
            raise ConfigError(f"k={k}, but at least one document must be asked for\ntry: search.k=1000")
        if probe is not None:
            raise ConfigError(f"BM25 has nothing to probe, {type(probe).__name__} was given\ntry: probe=auto")
        check_queries(query_ids, queries)
        live = np.flatnonzero(self._rows.live)
        allowed = self._rows.allowed(only)[live]
        numbers = self._words.numbers(queries)
        return Run({query: self._best(n, live, allowed, k) for query, n in zip(query_ids, numbers)}, depth=k)

    def add(self, ids: Sequence[str], documents: Sequence[str]) -> None:
        """Add documents; all are there when it returns, or none. DataError for an id that is there already."""
        self._edit(added=ids, documents=documents)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; DataError for an unknown id."""
        self._edit(removed=ids)

    def update(self, ids: Sequence[str], documents: Sequence[str]) -> None:
        """Put other texts in the place of these documents' own; DataError for an unknown id."""
        self._edit(added=ids, documents=documents, replace=True)

    def _edit(self, removed=(), added=(), documents: Sequence[str] = (), replace: bool = False) -> None:
        with Files.edit(self._directory, seen=self._files) as files:
            edit_rows(files, self._rows, removed, added, replace)
            gone = self._rows.of([*removed, *(added if replace else ())])
            if not len(gone) and not len(added):
                return
            live = self._rows.live.copy()
            live[gone] = False
            tokens = _tokens(files)
            words = _words(files)
            coming = _stage(files, words, added, documents)
            kept = [tokens[row] for row in np.flatnonzero(live)]
            _replace_weights(files, kept + coming, len(words))
            files.commit()
        self._load()

    def _best(self, numbers: list[int], live: np.ndarray, allowed: np.ndarray, k: int) -> Hits:
        scores = self._weights.scores(numbers)
        found = np.flatnonzero((scores > 0) & allowed)
        return self._rows.best(scores[found], live[found], k)


def _words(files: Files) -> Words:
    return Words(files.facts["stopwords"], files.facts["stemmer"], files.strings("words"))


def _stage(files: Files, words: Words, ids: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
    """Stage documents behind those in `files`; their words as numbers."""
    if len(ids) != len(texts):
        raise ValueError(f"{len(ids)} ids for {len(texts)} documents")
    before = len(words)
    tokens = words.learn(texts)
    files.append("tokens", np.asarray([number for document in tokens for number in document], dtype=np.int32))
    files.append("lengths", np.asarray([len(document) for document in tokens], dtype=np.int32))
    files.append_strings("words", words.known[before:])
    files.append_strings("ids", ids)
    return tokens


def _tokens(files: Files) -> list[list[int]]:
    """The words of every committed document, those of deleted ones as well."""
    if not files.rows("ids"):
        return []
    ends = np.cumsum(files.array("lengths"), dtype=np.int64)[:-1]
    return [part.tolist() for part in np.split(files.array("tokens"), ends)]


def _replace_weights(files: Files, tokens: list[list[int]], words: int) -> None:
    weights = weigh(tokens, words, files.facts["k1"], files.facts["b"])
    for name in ("data", "indices", "indptr"):
        files.replace(name, getattr(weights, name))
