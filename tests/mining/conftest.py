"""Collections of a few documents, written down by a test."""

import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from colbert_lab.data.beir import BeirFolder
from colbert_lab.data.collection import Collection
from colbert_lab.data.source import prepare
from colbert_lab.data.texts import Texts, write_texts
from colbert_lab.mining.pairs import Pairs


@pytest.fixture
def make(tmp_path_factory) -> Callable[..., Collection]:
    """make(documents, queries, [(query, document, grade), ...]) -> Collection, the judgements as the split train."""

    def made(documents: dict[str, str], queries: dict[str, str], qrels=()) -> Collection:
        root: Path = tmp_path_factory.mktemp("collection") / "toy"
        (root / "qrels").mkdir(parents=True)
        for name, texts in (("corpus", documents), ("queries", queries)):
            lines = (json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.items())
            (root / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        judged = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in qrels)
        (root / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
        return prepare(BeirFolder(str(root)), root.parent)

    return made


@pytest.fixture(scope="session")
def pairs_of(tmp_path_factory) -> Callable[..., Pairs]:
    """pairs_of([(query id, document id), ...], queries, documents) -> Pairs of texts {id: text}, as a collection's."""
    root, number = tmp_path_factory.mktemp("texts"), count()

    def texts(given: dict[str, str], name: str) -> Texts:
        place = root / f"{next(number)}"
        write_texts(place, given.items())
        return Texts(place, name)

    def made(ids: Sequence[tuple[str, str]], queries: dict[str, str], documents: dict[str, str]) -> Pairs:
        collection = SimpleNamespace(queries=texts(queries, "the queries"), corpus=texts(documents, "the corpus"))
        return Pairs.of(collection, ((query, [document]) for query, document in ids))

    return made
