"""A suite: collections with what a published figure on each of them depends on, judged one after the other.

A collection's split, its headline metric and the lengths that the papers cut its texts at belong together: a number
measured with others is another number (pitfalls: ArguAna's queries are whole documents, Touché has two versions).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from colbert_lab.errors import ConfigError
from colbert_lab.evaluation.metrics import parse_metrics

_SOURCES = ("id", "hub", "folder")


@dataclass(frozen=True)
class Entry:
    """One collection of a suite.

    data: what `data=` would name, as a node with `_target_`. headline: its metric in the suite's table. query_length,
    document_length: ids with special ones; None for the model's own. drop_self: a query is a document of the collection
    and does not count among its results. relevance_level: the grade from which on binary metrics take a document as
    relevant.
    """

    name: str
    data: dict[str, Any]
    split: str
    headline: str
    query_length: int | None = None
    document_length: int | None = None
    drop_self: bool = False
    relevance_level: int = 1


# What an entry may say besides where its data are: its own value in the place of the suite's.
_OWN = {field.name for field in fields(Entry)} - {"name", "data"}
_KEYS = {*_OWN, *_SOURCES, "splits"}


@dataclass(frozen=True)
class Suite:
    """Collections by name, and what holds for those that say nothing of their own.

    entries: name -> {id: of ir_datasets, splits: its sets | hub: of Hugging Face, in NanoBEIR's layout | folder: below
        root} with split, headline, query_length, document_length, drop_self, relevance_level where they differ.
    folders: BEIR folders that are collections too, under their own names. root: a directory that holds a BEIR folder
        NAME for every entry, read instead of ir_datasets or the hub. only: the names to judge; None: all.
    """

    name: str
    entries: Mapping[str, Mapping[str, Any]]
    headline: str = "ndcg_10"
    split: str = "test"
    query_length: int | None = None
    document_length: int | None = None
    drop_self: bool = False
    relevance_level: int = 1
    folders: Sequence[str] = ()
    root: str | None = None
    only: Sequence[str] | None = None

    def __post_init__(self):
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if found := self.problems(**values):
            raise ConfigError(found, f"the suite {self.name}")

    @staticmethod
    def problems(**values: Any) -> list[str]:
        """What is wrong with a suite, in words; empty when nothing is."""
        entries, folders = values.get("entries") or {}, list(values.get("folders") or ())
        root, only = values.get("root"), values.get("only")
        names = [*entries, *(Path(folder).name for folder in folders)]
        found = [] if names else ["it has no collection\ntry: benchmark.folders=[DIR,...]"]
        if only is not None and not only:
            found.append("only=[] leaves no collection\ntry: benchmark.only=null")
        found += [
            f"only={name} is none of {', '.join(names)}\ntry: benchmark.only=[{names[0]}]"
            for name in only or ()
            if names and name not in names
        ]
        found += [f"two collections are called {name}" for name in sorted({n for n in names if names.count(n) > 1})]
        for name, entry in entries.items():
            unknown = sorted(set(entry) - _KEYS)
            if unknown:
                found.append(f"entries.{name}: {', '.join(unknown)} is none of {', '.join(sorted(_KEYS))}")
            sources = [source for source in _SOURCES if source in entry]
            if len(sources) != 1 or (sources == ["folder"] and root is None):
                found.append(
                    f"entries.{name} says where its data are by one of id (ir_datasets), hub (Hugging Face), or folder "
                    "with benchmark.root=DIR"
                )
        try:
            parse_metrics([values.get("headline", "ndcg_10"), *_given(entries, "headline")])
        except ConfigError as error:
            found += error.problems
        return found

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all collections, also of those that are not judged: what an average called `name` is over."""
        return (*self.entries, *(Path(folder).name for folder in self.folders))

    @property
    def headlines(self) -> tuple[str, ...]:
        """The headline metrics of all its collections, each once."""
        return tuple(dict.fromkeys(entry.get("headline", self.headline) for entry in self._all().values()))

    def chosen(self) -> list[Entry]:
        """The entries to judge, in the suite's order."""
        return [self._entry(*one) for one in self._all().items() if self.only is None or one[0] in self.only]

    def _all(self) -> dict[str, Mapping[str, Any]]:
        folders = {Path(folder).name: str(Path(folder).expanduser().absolute()) for folder in self.folders}
        return {**self.entries, **{name: {"folder": folder} for name, folder in folders.items()}}

    def _entry(self, name: str, entry: Mapping[str, Any]) -> Entry:
        common = {key: getattr(self, key) for key in _OWN}
        return Entry(name, self._data(name, entry), **{**common, **{key: entry[key] for key in _OWN & set(entry)}})

    def _data(self, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        if self.root is not None or "folder" in entry:
            folder = Path(self.root or "").expanduser() / entry.get("folder", name)
            return {"_target_": "colbert_lab.data.beir.BeirFolder", "root": str(folder), "name": name}
        if "id" in entry:
            splits = entry.get("splits")
            more = {"splits": dict(splits)} if splits else {}
            return {"_target_": "colbert_lab.data.ir_datasets.IrDatasets", "id": entry["id"], **more}
        table = {"path": entry["hub"], "split": "train"}
        return {
            "_target_": "colbert_lab.data.huggingface.HuggingFace",
            "name": name,
            "corpus": {**table, "name": "corpus"},
            "queries": {**table, "name": "queries"},
            "qrels": {entry.get("split", self.split): {**table, "name": "qrels"}},
        }


def _given(entries: Mapping[str, Mapping[str, Any]], key: str) -> list[Any]:
    return [entry[key] for entry in entries.values() if key in entry]
