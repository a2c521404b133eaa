"""What others have published, beside what was measured here, with what differs between the two."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import FAMILIES

KINDS = (
    "lexical",
    "learned_sparse",
    "single_vector",
    "term_interaction",
    "cross_encoder",
    "late_interaction",
    "fusion",
)
_FILE = Path(__file__).with_name("published.yaml")
_SPLITS = ("train", "dev", "test", "validation")
# Which of our indexes stands for a figure that names none: the one nearest to scoring everything.
_NEAREST = ("exact", "residual", "ivfpq")
_QUALITY = tuple(f"{family}_" for family in FAMILIES) + ("map",)


@dataclass(frozen=True)
class Conditions:
    """How a figure came about; None where that is not known or does not apply, which counts as no difference.

    kind: one of KINDS. model: its name or Hugging Face id. corpus: "full", "pool" or "nano". candidates: "all" where
    everything was searched, else what was re-ranked ("official BM25 top 1000"). query_length, document_length: in ids.
    index: "exact", "ivfpq", "residual", ... queries: how many. note: anything else that is worth knowing, which is
    repeated among the differences.
    """

    kind: str | None = None
    model: str | None = None
    corpus: str | None = None
    candidates: str | None = None
    query_length: int | None = None
    document_length: int | None = None
    index: str | None = None
    queries: int | None = None
    note: str | None = None

    def __post_init__(self):
        """ConfigError for a kind that is none of KINDS."""
        if self.kind is not None and self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}, it can be {', '.join(KINDS)}", "a published figure")

    def differences(self, ours: "Conditions") -> list[str]:
        """What differs between these and our conditions, one sentence each, and the note."""
        told = []
        for field in fields(self):
            theirs, mine = getattr(self, field.name), getattr(ours, field.name)
            if field.name not in ("kind", "note") and None not in (theirs, mine) and theirs != mine:
                told.append(f"{field.name.replace('_', ' ')}: {_shown(theirs)}, ours {_shown(mine)}")
        return told + ([self.note] if self.note else [])


@dataclass(frozen=True)
class Published:
    """One figure: quality in 0-1 under our metric names, cost in the unit that its name tells (latency_ms, index_gib).

    split is None where the collection has only one. table and row say where in published.yaml it stands.
    """

    system: str
    collection: str
    split: str | None
    metric: str
    value: float
    source: str
    protocol: Conditions
    table: str
    row: str


def published(collection: str | None = None, split: str | None = None) -> list[Published]:
    """All figures in published.yaml, or those of a collection, by any of its names, and of a split."""
    figures = _read()[0]
    if collection is not None:
        collection, named = canonical(collection)
        split = split or named
        # Queries that papers have under a name of their own: split dl19 of MS MARCO is TREC DL 2019.
        if (own := _read()[1].get(f"{collection}/{split}")) is not None:
            collection, split = own, None
        figures = [figure for figure in figures if figure.collection == collection]
    split = split and split.removesuffix("_full")
    return [figure for figure in figures if split is None or figure.split in (None, split)]


def canonical(collection: str) -> tuple[str, str | None]:
    """The name that published.yaml has for a collection, and the split that was in the name given.

    "scifact", "beir/scifact/test", "irds:beir/scifact" and "BeIR/SciFact" are one; a name that is not known is only
    tidied. "beir/msmarco/test" is what it is in BEIR: the queries of TREC DL 2019.
    """
    name = collection.strip().lower().replace("_", "-").removeprefix("irds:").strip("/")
    if name == "beir/msmarco/test":
        return "trec-dl-2019", None
    parts = name.removeprefix("beir/").split("/")
    split = next((part for part in parts[1:] if part in _SPLITS), None)
    name = "/".join([parts[0], *(part for part in parts[1:] if part not in _SPLITS)])
    return _read()[1].get(name, name), split


def beside(
    collection: str,
    split: str,
    measured: Mapping[str, Mapping[str, float]],
    protocols: Mapping[str, Conditions],
) -> list[dict[str, Any]]:
    """The published figures of this collection and split in the metrics measured, each beside one of ours.

    `measured` is system -> metric -> value, `protocols` how each of these systems was measured. A figure is held
    against the system of its kind that is nearest to it, or none: measured and difference are None then. Nearest is the
    very model, then one that re-ranks, or searches everything, as the figure does, then one of the nearest depth, then
    the nearest index, then the one whose protocol differs in least; the first of several. Entries: system, metric,
    value, source, collection, ours (the system's name), measured, difference (measured - value), protocol (what
    differs, one sentence each). DataError for a system without a protocol.
    """
    return held_against(published(collection, split), measured, protocols)


def held_against(
    figures: Sequence[Published], measured: Mapping[str, Mapping[str, float]], protocols: Mapping[str, Conditions]
) -> list[dict[str, Any]]:
    """These figures in the metrics measured, each beside one of ours as `beside` says."""
    if missing := [name for name in measured if name not in protocols]:
        raise DataError(f"it is not said how {', '.join(missing)} came about, so nothing can be held against them")
    metrics = {metric for means in measured.values() for metric in means}
    entries = []
    for figure in figures:
        if figure.metric not in metrics:
            continue
        alike = [
            (_distance(figure.protocol, protocols[name], len(differences)), name, differences)
            for name, means in measured.items()
            if figure.metric in means and protocols[name].kind == figure.protocol.kind
            for differences in [figure.protocol.differences(protocols[name])]
        ]
        *_, ours, differences = min(alike, key=lambda one: one[0], default=(None, figure.protocol.differences(_NONE)))
        mine = None if ours is None else float(measured[ours][figure.metric])
        entries.append(
            {
                "system": figure.system,
                "metric": figure.metric,
                "value": figure.value,
                "source": figure.source,
                "collection": figure.collection,
                "ours": ours,
                "measured": mine,
                "difference": None if mine is None else mine - figure.value,
                "protocol": differences,
            }
        )
    return entries


def averages(table: str, over: str) -> dict[str, float]:
    """System -> mean of its figures (0-1) in one table of published.yaml over one of the lists of collections there.

    ConfigError for an unknown table or list; DataError where a row has no figure, or several, for one of the list.
    """
    figures, _, lists, tables = _read()
    problems = []
    if table not in tables:
        problems.append(f"there is no table {table!r}; tables: {', '.join(tables)}")
    if over not in lists:
        problems.append(f"there is no list {over!r}; lists: {', '.join(lists)}")
    if problems:
        raise ConfigError(problems, "the published figures")
    means = {}
    for row in dict.fromkeys(figure.row for figure in figures if figure.table == table):
        values = []
        for collection in lists[over]:
            found = [f.value for f in figures if (f.table, f.row, f.collection) == (table, row, collection)]
            if len(found) != 1:
                raise DataError(f"{table}: {row} has {len(found)} figures for {collection}, its mean needs one")
            values += found
        means[row] = sum(values) / len(values)
    return means


def digest() -> str:
    """A hash of all that published.yaml says: what is held against it is another thing when it changes."""
    return sha256(_FILE.read_bytes()).hexdigest()


_NONE = Conditions()


def _distance(theirs: Conditions, ours: Conditions, differences: int) -> tuple[bool, bool, int, int, int]:
    """How far a system of ours is from what a figure is of; the smaller, the nearer."""
    end_to_end, depth, own = theirs.candidates == "all", _depth(theirs.candidates), _depth(ours.candidates)
    stage = None not in (theirs.candidates, ours.candidates) and end_to_end != (ours.candidates == "all")
    if own is None:
        away = 0
    elif end_to_end:
        away = -own  # the deepest comes nearest to everything
    else:
        away = 0 if depth is None else abs(depth - own)
    index = 0
    if ours.index is not None and (theirs.index or "").partition(",")[0] != ours.index:
        index = 1 + (_NEAREST.index(ours.index) if ours.index in _NEAREST else len(_NEAREST))
    return ours.model != theirs.model, stage, away, index, differences


def _depth(candidates: str | None) -> int | None:
    """1000 of "official BM25 top 1000"; None where no depth is named."""
    found = re.search(r"\btop ([\d,]+)", candidates or "")
    return None if found is None else int(found[1].replace(",", ""))


@cache
def _read() -> tuple[list[Published], dict[str, str], dict[str, list[str]], list[str]]:
    """The figures, name of a collection -> its name here, the lists of collections, the names of the tables."""
    told = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    names = {
        name: collection
        for collection, facts in told["collections"].items()
        for name in (collection, *facts.get("names", ()))
    }
    figures = []
    for table, content in told["tables"].items():
        for row, given in content["rows"].items():
            given = given if isinstance(given, dict) else {"values": given}
            for column, value in zip(content["columns"], given["values"], strict=True):
                column = column if isinstance(column, dict) else {"collection": column}
                if value is not None:
                    figures.append(_figure(told, table, row, given, column, float(value)))
    return figures, names, told["lists"], list(told["tables"])


def _figure(
    told: Mapping[str, Any], table: str, row: str, given: Mapping[str, Any], column: Mapping[str, Any], value: float
) -> Published:
    content = told["tables"][table]
    collection, system = column["collection"], given.get("system", row)
    split = column.get("split", content.get("split"))
    metric = column.get("metric") or content["metric"]
    known = {
        # The count of a collection is that of its one usual split.
        "queries": told["collections"][collection].get("queries"),
        "model": system,
        **content["protocol"],
        **column.get("protocol", {}),
        **told["systems"][system],
        **given.get("protocol", {}),
        **given.get("at", {}).get(collection, {}),
    }
    if metric.startswith(_QUALITY):
        value /= content["scale"]
    return Published(system, collection, split, metric, value, content["source"], Conditions(**known), table, row)


def _shown(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value
