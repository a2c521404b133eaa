"""Collections of a few documents, written down by a test."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from colbert_lab.data.beir import BeirFolder
from colbert_lab.data.collection import Collection
from colbert_lab.data.source import prepare


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
