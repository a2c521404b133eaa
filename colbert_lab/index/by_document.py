"""Any index, holding passages and finding documents: a document's score is the best of its passages'.

Passage n of document D has the id `D#n`: which document a passage is of is said by its id, whatever D looks like, and
there is nothing beside the index to keep in step with it. A document's passages are committed together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index.base import Index, IndexKind, IndexWriter
from colbert_lab.index.files import Files
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run, rank
from colbert_lab.scoring.maxsim import Similarity

# How many times k passages are asked for at first, and how many times more where these were not enough.
_FIRST, _MORE = 2, 4


@dataclass(frozen=True)
class Pieces:
    """N documents as P passages end to end, embeddings or texts; `counts` [N] says how many each has, at least one."""

    passages: Ragged | Sequence[str]
    counts: Sequence[int]


class PassageIndexKind:
    """An index of passages in an index of this `kind`; takes what that takes, as Pieces, and is probed like it."""

    # Of the class, for those who ask before there is an instance: it can stand in for no index of whole documents.
    takes: str = "passages"

    def __init__(self, kind: IndexKind):
        self.kind, self.takes, self.probe = kind, kind.takes, kind.probe

    def writer(self, directory: Path, *shape: Any) -> "PassageWriter":
        """Begin, or go on with, the index in this directory."""
        return PassageWriter(self.kind.writer(directory, *shape), directory)

    def open(self, directory: Path) -> "PassageIndex":
        """The finished index in this directory."""
        return PassageIndex(self.kind.open(directory))


class PassageWriter:
    """An index of passages in the making, counted by documents."""

    def __init__(self, writer: IndexWriter, directory: Path):
        self._writer = writer
        self._documents = len(set(map(document_of, Files.open(directory, finished=False).strings("ids"))))

    @property
    def documents(self) -> int:
        """How many documents are committed, each with all its passages."""
        return self._documents

    def append(self, ids: Sequence[str], documents: Pieces) -> None:
        """Add documents with their passages and commit them."""
        self._writer.append(passage_ids(ids, documents.counts), documents.passages)
        self._documents += len(ids)

    def finish(self) -> None:
        """Complete the index; DataError for a document that came twice."""
        self._writer.finish()


class PassageIndex:
    """An index of passages as one of documents."""

    def __init__(self, index: Index):
        self._index = index
        if hasattr(index, "resolved"):
            self.resolved = self._resolved

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""
        return list(self._passages)

    def __len__(self) -> int:
        return len(self._passages)

    @property
    def similarity(self) -> Similarity:
        """How its vectors are compared."""
        return self._index.similarity

    def stats(self) -> dict[str, Any]:
        """What the index of passages says of itself, with documents and passages told apart."""
        facts = self._index.stats()
        return {**facts, "documents": len(self), "passages": facts["documents"]}

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""
        self._index.verify()

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged | Sequence[str],
        k: int,
        only: Sequence[str] | None = None,
        probe: Any = None,
    ) -> Run:
        """The best min(k, N) documents of every query by their best passage, equal scores by id.

        Where the index of passages is exact, so is this: passages are asked for until no other document's can be among
        the first k, for the queries that need it all of them. `only` names documents.
        """
        if k < 1:
            raise ConfigError(f"k={k}, but at least one document must be asked for\ntry: search.k=1000")
        passages = None if only is None else self._of(only)
        total = len(self._index) if passages is None else len(passages)
        asked = self._asked(k, total, len(self) if only is None else len(set(only)))
        hits: dict[str, Hits] = {}
        left = list(range(len(query_ids)))
        while left:
            names = [query_ids[i] for i in left]
            found = self._index.search(names, _select(queries, left), asked, only=passages, probe=probe)
            unsure = []
            for i, name in zip(left, names, strict=True):
                best = best_passages(found[name])
                # A document that ties with the last passage may have a better place by its id than the k-th.
                sure = len(best) >= k and best.scores[k - 1] > found[name].scores[-1]
                if sure or len(found[name]) < asked or asked >= total:
                    hits[name] = best.cut(k)
                else:
                    unsure.append(i)
            left, asked = unsure, min(total, _MORE * asked)
        return Run({name: hits[name] for name in query_ids}, depth=k)

    def add(self, ids: Sequence[str], documents: Pieces) -> None:
        """Add documents; all are there when it returns, or none. DataError for an id that is there already."""
        present = [i for i in ids if i in self._passages]
        if present:
            raise DataError(f"{len(present)} documents are in the index already, {present[0]!r} is the first")
        self._index.add(passage_ids(ids, documents.counts), documents.passages)
        self._forget()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents, all or none; DataError for an id that is not there."""
        self._index.delete(self._of(ids))
        self._forget()

    def update(self, ids: Sequence[str], documents: Pieces) -> None:
        """Put other passages in the place of these documents' own, in two commits: deleted, then added.

        Not all or none, therefore: between the two the documents are not there.
        """
        self.delete(ids)
        self.add(ids, documents)

    def _asked(self, k: int, passages: int, documents: int) -> int:
        """How many passages to ask for first: all where all documents are wanted."""
        return max(1, passages if k >= documents else min(passages, _FIRST * k))

    def _resolved(self, k: int, probe: Any) -> Any:
        return self._index.resolved(self._asked(k, len(self._index), len(self)), probe)

    def _of(self, documents: Sequence[str]) -> list[str]:
        """The passages of these documents; DataError for one that is not in the index."""
        unknown = [i for i in documents if i not in self._passages]
        if unknown:
            raise DataError(f"{len(unknown)} documents are not in the index, {unknown[0]!r} is the first")
        return [passage for document in documents for passage in self._passages[document]]

    @cached_property
    def _passages(self) -> dict[str, list[str]]:
        """Document -> its passages, in the order of the index."""
        found: dict[str, list[str]] = {}
        for passage in self._index.ids:
            found.setdefault(document_of(passage), []).append(passage)
        return found

    def _forget(self) -> None:
        self.__dict__.pop("_passages", None)


def passage_ids(documents: Sequence[str], counts: Sequence[int]) -> list[str]:
    """The ids of the documents' passages; ValueError for a document without one, which nothing could find."""
    if min(counts, default=1) < 1:
        raise ValueError("every document has at least one passage")
    return [f"{document}#{n}" for document, count in zip(documents, counts, strict=True) for n in range(count)]


def document_of(passage: str) -> str:
    """The document that a passage is of: a number has no `#`, so that the last one ends the document's id."""
    return passage.rpartition("#")[0]


def best_passages(hits: Hits) -> Hits:
    """Hits of passages as hits of documents, each with the score of its best passage, equal scores by id."""
    best: dict[str, float] = {}
    for passage, score in hits:
        best.setdefault(document_of(passage), score)
    return rank(list(best), list(best.values()))


def _select(queries: Ragged | Sequence[str], rows: Sequence[int]) -> Ragged | Sequence[str]:
    if len(rows) == len(queries):
        return queries
    return queries.select(rows) if isinstance(queries, Ragged) else [queries[i] for i in rows]
