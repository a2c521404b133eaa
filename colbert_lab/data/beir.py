"""A BEIR folder as a source: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, each plain or .gz."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colbert_lab.artifact import hash_json
from colbert_lab.data.fingerprint import hash_files
from colbert_lab.data.lines import json_id, numbered_lines, parse_json
from colbert_lab.data.source import Judgement, Record, Title, UnknownDocuments
from colbert_lab.errors import DataError


class BeirFolder:
    """The collection in the folder `root`; called `name`, or else as the folder is. The splits are the qrels files."""

    def __init__(
        self,
        root: str,
        name: str | None = None,
        title: Title = "prepend",
        unknown_documents: UnknownDocuments = "count",
    ):
        self.root = Path(root).expanduser().absolute()
        self.name = name or self.root.name
        self.title = title
        self.unknown_documents = unknown_documents
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder; expected one with corpus.jsonl, queries.jsonl and qrels/*.tsv")

    def fingerprint(self, memo: Path | None = None) -> str:
        """A hash over the names of the splits and the content of the files."""
        texts = hash_files([self._file("corpus"), self._file("queries")], memo)
        qrels = {split: hash_files([file], memo)[file.name] for split, file in self._qrels_files().items()}
        return hash_json({"source": "beir", "texts": texts, "qrels": qrels})

    def documents(self) -> Iterator[Record]:
        """corpus.jsonl: "_id", "text", and "title" where there is one."""
        return _records(self._file("corpus"))

    def queries(self) -> Iterator[Record]:
        """queries.jsonl: "_id" and "text"."""
        return _records(self._file("queries"))

    def splits(self) -> tuple[str, ...]:
        """The stems of qrels/*.tsv, sorted."""
        return tuple(self._qrels_files())

    def qrels(self, split: str) -> Iterator[Judgement]:
        """qrels/<split>.tsv: query id, document id, grade, separated by tabs; a line of column names may come first."""
        file = self._qrels_files()[split]
        for number, (where, line) in enumerate(numbered_lines(file)):
            columns = line.split("\t")
            if len(columns) != 3:
                raise DataError(
                    f"{where}: expected 3 columns separated by tabs (query-id, corpus-id, score), "
                    f"found {len(columns)}: {line[:80]!r}"
                )
            try:
                grade = int(columns[2])
            except ValueError as error:
                if number == 0:
                    continue
                raise DataError(f"{where}: the grade {columns[2]!r} is not an integer") from error
            yield Judgement(columns[0], columns[1], grade, where)

    def describe(self) -> dict[str, Any]:
        """Where it was read from."""
        return {"source": "beir", "root": str(self.root)}

    def _file(self, stem: str) -> Path:
        for file in (self.root / f"{stem}.jsonl", self.root / f"{stem}.jsonl.gz"):
            if file.is_file():
                return file
        there = ", ".join(sorted(p.name for p in self.root.iterdir())) or "nothing"
        raise DataError(f"{self.root} has neither {stem}.jsonl nor {stem}.jsonl.gz; it holds: {there}")

    def _qrels_files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for file in sorted((self.root / "qrels").glob("*.tsv*")):
            if file.name.endswith((".tsv", ".tsv.gz")):
                split = file.name.removesuffix(".gz").removesuffix(".tsv")
                if split in files:
                    raise DataError(f"{files[split]} and {file.name} are the same split; remove one of them")
                files[split] = file
        return files


def _records(file: Path) -> Iterator[Record]:
    for where, line in numbered_lines(file):
        entry = parse_json(line, where)
        if not isinstance(entry, dict):
            raise DataError(f'{where}: expected a JSON object with "_id" and "text", found {line[:80]!r}')
        for key in ("_id", "text"):
            if key not in entry:
                raise DataError(f'{where}: "{key}" is missing; there are: {", ".join(entry) or "no keys"}')
        title = entry.get("title") or ""
        for key, value in (("text", entry["text"]), ("title", title)):
            if not isinstance(value, str):
                raise DataError(f'{where}: "{key}" must be a string, not {value!r:.80}')
        yield Record(json_id(entry["_id"], where, '"_id"'), title, entry["text"], where)
