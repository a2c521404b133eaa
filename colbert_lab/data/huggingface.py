"""Data sets of the Hugging Face hub, or files of theirs on disk, as a source. No code of theirs is run.

Three tables are needed: documents, queries, and for each split the judgements. A table is described by

    path        a data set's name on the hub, a file format (json, csv, parquet) with `data_files`, or a directory
                that `save_to_disk` wrote
    name        its configuration, split: its split, data_files: its files, revision: its commit, where they apply
    id, text, title                columns of documents and queries; `title` may be missing
    query, document, grade         columns of judgements; without `grade` every pair counts as relevant (grade 1)
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colbert_lab.artifact import hash_json
from colbert_lab.data.fingerprint import hash_files
from colbert_lab.data.lines import json_id
from colbert_lab.data.source import Judgement, Record, Title, Unavailable, UnknownDocuments
from colbert_lab.errors import DataError

_LOCATION = ("path", "name", "split", "data_files", "revision")
_RECORD = {"id": "_id", "text": "text", "title": "title"}
_JUDGEMENT = {"query": "query-id", "document": "corpus-id", "grade": "score"}


class HuggingFace:
    """Documents from `corpus`, queries from `queries`, judgements from `qrels` (split -> table); see the module.

    Columns that a table does not name have BEIR's names: _id, title, text; query-id, corpus-id, score.
    """

    def __init__(
        self,
        name: str,
        corpus: Mapping[str, Any],
        queries: Mapping[str, Any],
        qrels: Mapping[str, Mapping[str, Any]],
        title: Title = "prepend",
        unknown_documents: UnknownDocuments = "count",
    ):
        self.name = name
        self.title = title
        self.unknown_documents = unknown_documents
        self._corpus = _Table("corpus", corpus, _RECORD)
        self._queries = _Table("queries", queries, _RECORD)
        self._qrels = {split: _Table(f"qrels.{split}", table, _JUDGEMENT) for split, table in qrels.items()}

    def fingerprint(self, memo: Path | None = None) -> str:
        """A hash over the Arrow files that the tables are read from, and the names of the columns."""
        tables = {
            table.label: table.fingerprint(memo) for table in (self._corpus, self._queries, *self._qrels.values())
        }
        return hash_json({"source": "huggingface", "tables": tables, "splits": list(self._qrels)})

    def documents(self) -> Iterator[Record]:
        """The rows of the table of documents."""
        return self._corpus.records()

    def queries(self) -> Iterator[Record]:
        """The rows of the table of queries; a title is left out."""
        return self._queries.records()

    def splits(self) -> tuple[str, ...]:
        """The names in `qrels`."""
        return tuple(self._qrels)

    def qrels(self, split: str) -> Iterator[Judgement]:
        """The rows of a table of judgements."""
        return self._qrels[split].judgements()

    def describe(self) -> dict[str, Any]:
        """The tables as they were described."""
        return {
            "source": "huggingface",
            "corpus": self._corpus.spec,
            "queries": self._queries.spec,
            "qrels": {split: table.spec for split, table in self._qrels.items()},
        }


class _Table:
    def __init__(self, label: str, spec: Mapping[str, Any], columns: Mapping[str, str]):
        self.label = label
        self.spec = {key: _plain(value) for key, value in spec.items() if value is not None}
        unknown = sorted(set(self.spec) - {*_LOCATION, *columns})
        if unknown or "path" not in self.spec:
            wrong = f"unknown: {', '.join(unknown)}" if unknown else "path is missing"
            raise DataError(f"data.{label}: {wrong}; a table has {', '.join((*_LOCATION, *columns))}")
        self._columns = {key: self.spec.get(key, default) for key, default in columns.items()}
        self._loaded: Any = None

    def fingerprint(self, memo: Path | None) -> str:
        files = [Path(file["filename"]) for file in self._rows().cache_files]
        named = {key: self.spec.get(key) for key in ("split", "name")}
        hashes = [hash_files([file], memo)[file.name] for file in files] or [self._rows()._fingerprint]
        return hash_json({"files": hashes, "columns": self._columns, **named})

    def records(self) -> Iterator[Record]:
        id, text, title = (self._columns[key] for key in ("id", "text", "title"))
        rows = self._rows()
        self._need(id, text, *([title] if "title" in self.spec else []))
        for number, row in enumerate(rows, 1):
            where = f"{self.spec['path']} ({self.label}):{number}"
            body, head = row[text], row.get(title) or ""
            if not isinstance(body, str) or not isinstance(head, str):
                raise DataError(f"{where}: text and title must be strings, not {body!r:.80} and {head!r:.80}")
            yield Record(json_id(row[id], where), head, body, where)

    def judgements(self) -> Iterator[Judgement]:
        query, document, grade = (self._columns[key] for key in ("query", "document", "grade"))
        rows = self._rows()
        self._need(query, document, *([grade] if "grade" in self.spec else []))
        graded = grade in rows.column_names
        for number, row in enumerate(rows, 1):
            where = f"{self.spec['path']} ({self.label}):{number}"
            value = _integer(row[grade], where) if graded else 1
            yield Judgement(json_id(row[query], where), json_id(row[document], where), value, where)

    def _need(self, *columns: str) -> None:
        there = self._rows().column_names
        missing = [column for column in columns if column not in there]
        if missing:
            raise DataError(
                f"data.{self.label}: {self.spec['path']} has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, there))}; name the right one: data.{self.label}.<id|text|query|...>=<column>"
            )

    def _rows(self) -> Any:
        if self._loaded is None:
            self._loaded = _load(self.label, self.spec)
        return self._loaded


def _load(label: str, spec: Mapping[str, Any]) -> Any:
    import datasets

    location = {key: spec[key] for key in _LOCATION if key in spec}
    try:
        if (folder := Path(location["path"]).expanduser()).is_dir() and (
            (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()
        ):
            loaded = datasets.load_from_disk(str(folder))
            if "split" in location and isinstance(loaded, datasets.DatasetDict):
                loaded = loaded[location["split"]]
        else:
            loaded = datasets.load_dataset(**location)
    except (OSError, ValueError, LookupError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
        raise Unavailable(
            f"data.{label}: {location} cannot be loaded ({told}). A name on the hub is fetched once, with "
            f"HF_HUB_OFFLINE not set, and kept below {datasets.config.HF_DATASETS_CACHE}",
            f"data.{label}.path=<a name on the hub, a directory of save_to_disk, or json|csv|parquet with data_files>",
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if len(loaded) != 1:
            raise DataError(f"data.{label}: say which split of {location['path']}: split={'|'.join(loaded)}")
        loaded = next(iter(loaded.values()))
    return loaded


def _integer(value: Any, where: str) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(f"{where}: a grade is an integer, not {value!r}")


def _plain(value: Any) -> Any:
    """Containers of a configuration library as lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [_plain(entry) for entry in value]
