"""Collection: a corpus, queries and judgements, as an artifact that `colbert_lab.data.source.prepare` made.

corpus/, queries/     Texts
qrels/<split>.jsonl   [query id, document id, grade], one a line
"""

import json
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from colbert_lab.artifact import Artifact
from colbert_lab.data.texts import Texts
from colbert_lab.errors import DataError

# Query id -> document id -> grade. Grade 0 is "judged, not relevant"; a document that is absent was not judged.
Qrels = dict[str, dict[str, int]]


class Collection:
    """A finished collection: `corpus` and `queries` are Texts, memory-mapped; `qrels(split)` is read when asked for."""

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
        self.name: str = artifact.manifest["config"]["name"]
        self.corpus = Texts(artifact.path / "corpus", f"the corpus of {self.name}")
        self.queries = Texts(artifact.path / "queries", f"the queries of {self.name}")
        self.splits: tuple[str, ...] = tuple(artifact.manifest["counts"]["splits"])

    @classmethod
    def open(cls, path: str | Path) -> "Collection":
        """The collection at `path`; ArtifactError where there is none, or where it was changed."""
        return cls(Artifact.open(path, kind="collection"))

    @property
    def digest(self) -> str:
        """The artifact's digest: equal digests mean equal texts, ids and judgements."""
        return self.artifact.digest

    def qrels(self, split: str) -> Qrels:
        """The judgements of a split, in the source's order; DataError, with the splits there are, for another name."""
        if split not in self.splits:
            there = ", ".join(self.splits) or "none at all"
            raise DataError(f"{self.name} has no split {split!r}; it has: {there}")
        found: Qrels = {}
        with qrels_file(self.artifact.path, split).open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                query, document, grade = json.loads(line)
                found.setdefault(query, {})[document] = grade
        return found

    def __repr__(self) -> str:
        return f"Collection({self.name}: {len(self.corpus)} documents, {len(self.queries)} queries, {self.splits})"


def qrels_file(root: Path, split: str) -> Path:
    """Where the judgements of a split lie in a collection's directory; any name of a split is a legal file name."""
    return root / "qrels" / f"{quote(split, safe='')}.jsonl"


def holdout(qrels: Qrels, queries: int, seed: int) -> tuple[Qrels, Qrels]:
    """(rest, held out): takes `queries` of the queries with a positive out of `qrels`, for want of a dev split.

    Which ones is decided by a hash of seed and query id, so it does not depend on order or on what else is there.
    DataError where nothing would be left.
    """
    if queries < 0:
        raise DataError(f"{queries} queries cannot be held out; 0 or more can")
    positive = [query for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())]
    if queries >= max(len(positive), 1):
        raise DataError(f"{queries} queries cannot be held out of {len(positive)} with a relevant document")
    drawn = sorted(positive, key=lambda query: (blake2b(f"{seed}\n{query}".encode(), digest_size=8).digest(), query))
    taken = set(drawn[:queries])
    rest = {query: judged for query, judged in qrels.items() if query not in taken}
    return rest, {query: judged for query, judged in qrels.items() if query in taken}
