"""What the tests of the verbs write and read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def lines(path: Path) -> list[dict]:
    """The objects of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def beir(
    root: Path, documents: Mapping[str, str], queries: Mapping[str, str], qrels: Mapping[str, Iterable[tuple]]
) -> Path:
    """A BEIR folder of these."""
    (root / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        rows = (json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.items())
        (root / f"{name}.jsonl").write_text("".join(rows))
    for split, rows in qrels.items():
        (root / "qrels" / f"{split}.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return root


def leaves(node: Mapping, path: str = "") -> list[str]:
    """The dotted keys of all plain values in a configuration."""
    if not isinstance(node, Mapping) or not node:
        return [path]
    return [leaf for key, child in node.items() for leaf in leaves(child, f"{path}.{key}" if path else str(key))]
