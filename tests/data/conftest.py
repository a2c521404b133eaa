"""A source in memory, and collections made of one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from colbert_lab.artifact import hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.data.source import Judgement, Record, prepare


class Memory:
    """What a test writes down: documents and queries as id -> text or (id, title, text), qrels as split -> triples."""

    name = "memory"
    title = "prepend"
    unknown_documents = "count"

    def __init__(self, documents, queries, qrels):
        self._documents, self._queries, self._qrels = documents, queries, qrels

    def fingerprint(self, memo=None):
        return hash_json([self._rows(self._documents), self._rows(self._queries), self._qrels])

    def documents(self):
        return (Record(*row, f"docs:{n}") for n, row in enumerate(self._rows(self._documents), 1))

    def queries(self):
        return (Record(*row, f"queries:{n}") for n, row in enumerate(self._rows(self._queries), 1))

    def splits(self):
        return tuple(self._qrels)

    def qrels(self, split):
        return (Judgement(*row, f"{split}:{n}") for n, row in enumerate(self._qrels[split], 1))

    def describe(self):
        return {"source": "memory"}

    @staticmethod
    def _rows(entries):
        return [(id, "", text) for id, text in entries.items()] if isinstance(entries, dict) else list(entries)


@pytest.fixture
def memory() -> type[Memory]:
    return Memory


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Collection]:
    """make(documents, queries, qrels, title=..., unknown_documents=...) -> Collection."""

    def made(documents, queries=None, qrels=None, **rules) -> Collection:
        return prepare(Memory(documents, queries or {}, qrels or {}), tmp_path, **rules)

    return made


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared test collections; skips where they are not there."""
    folder = Path(__file__).parents[2].parent / "shared" / "collections"
    if not folder.is_dir():
        pytest.skip("the shared test collections are not here")
    return folder
