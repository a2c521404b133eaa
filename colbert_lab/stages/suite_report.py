"""What a suite comes to: a table of its collections with averages named by their list, published ones beside them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.evaluation.averages import Average, average
from colbert_lab.evaluation.published import Conditions, held_against
from colbert_lab.evaluation.published_lists import common, over_list
from colbert_lab.evaluation.suite import Entry, Suite
from colbert_lab.evaluation.table import plain_table, results_table
from colbert_lab.stages.comparison.table import published_lines
from colbert_lab.stages.making import Outcome, make
from colbert_lab.tracking.names import leaves
from colbert_lab.tracking.tracker import Tracker

# Lists whose collections are no full ones, as papers call them.
_CORPORA = {"Nano-13": "nano"}

Told = Mapping[str, Mapping[str, Any]]


def conclude(cfg: DictConfig, suite: Suite, entries: Sequence[Entry], done: Mapping[str, Artifact]) -> Outcome:
    """The suite artifact of the comparisons `done`, by entry: suite.json, table.txt, and its page beside them."""
    told = {name: json.loads((made.path / "comparison.json").read_text()) for name, made in done.items()}
    values: dict[str, dict[str, float]] = {}
    for entry in entries:
        for system, one in told[entry.name]["systems"].items():
            if entry.headline in one["means"]:
                values.setdefault(system, {})[entry.name] = one["means"][entry.headline]
    # A mean of MRR and nDCG would be neither.
    averages: dict[str, Average] = {}
    if len(suite.headlines) == 1 and len(suite.members) > 1:
        found = {system: average(suite.name, row, suite.members) for system, row in values.items()}
        averages = {system: one for system, one in found.items() if one is not None}
    missing = [name for name in suite.members if name not in done]
    published = _published_means(suite, told, averages)
    figures = _published_figures(entries, told, published)
    table = _table(suite, entries, told, values, averages, missing, figures, published)
    record = {
        "suite": suite.name,
        "headlines": list(suite.headlines),
        "entries": [_record(entry, told[entry.name], done[entry.name]) for entry in entries],
        "missing": missing,
        "systems": values,
        "averages": {
            system: {"label": one.label, "value": one.value, "members": list(one.members), "missing": list(one.missing)}
            for system, one in averages.items()
        },
        "published": published,
        "figures": figures,
    }

    reference = told[entries[0].name]["baseline"]
    reference = reference if reference in values else next(iter(values))

    def work(builder: Builder, tracker: Tracker) -> None:
        (builder.path / "suite.json").write_text(json.dumps(record, indent=1))
        (builder.path / "table.txt").write_text(table)
        builder.counts.update(collections=len(entries), missing=len(missing), systems=len(values))
        called = leaves(averages)
        tracker.summary({f"suite/{called[system]}": one.value for system, one in averages.items()})
        # Of a part of the suite it would be another figure under the name of the whole's.
        if reference in averages and not averages[reference].missing:
            tracker.summary({f"eval/mean_{suite.headlines[0]}": averages[reference].value})

    content = {"suite": suite.name, "headlines": {entry.name: entry.headline for entry in entries}, "missing": missing}
    content["published"] = [published, figures]
    made = make(cfg, "suite", "suite", f"{_slug(suite.name)}-{cfg.name}", dict(done), content, work, cfg.run_dir)
    page = _page(made)
    if reference in averages:
        objective, name = averages[reference].value, averages[reference].label
    else:
        name, objective = next(iter(values[reference].items()))
    shown = {f"{system}_{entry}": value for system, row in values.items() for entry, value in row.items()}
    return Outcome(made, f"{table}\n{made.path}\nreport: {page}", objective, name, shown)


def _page(made: Artifact) -> Path:
    """The page beside the suite, with those of its collections in it; a later version can write it anew."""
    from colbert_lab.stages.report import report_of

    return report_of([made.path], made.path / "report.html", made.path.name)


def _record(entry: Entry, told: Mapping[str, Any], made: Artifact) -> dict[str, Any]:
    keys = ("name", "split", "headline", "query_length", "document_length", "drop_self", "relevance_level")
    own = {key: getattr(entry, key) for key in keys}
    measured = {"collection": told["collection"], "queries": told["queries"], "path": str(made.path)}
    return {**own, **measured, "conditions": _line(entry, told)}


def _published_means(suite: Suite, told: Told, averages: Mapping[str, Average]) -> list[dict[str, Any]]:
    """Published means over the members of our averages, each beside the system here that is most like it."""
    entries = []
    for label, members in dict.fromkeys((one.label, one.members) for one in averages.values()):
        alike = {system: one for system, one in averages.items() if (one.label, one.members) == (label, members)}
        pairs = [(told[member]["collection"], told[member]["split"]) for member in members]
        whole = next(iter(alike.values())).label == suite.name
        figures = over_list(suite.name, pairs, suite.headlines[0], whole)
        measured = {system: {suite.headlines[0]: one.value} for system, one in alike.items()}
        protocols = {system: _conditions(suite, [told[member] for member in members], system) for system in alike}
        entries += [{**one, "list": label} for one in held_against(figures, measured, protocols)]
    return entries


def _conditions(suite: Suite, told: Sequence[Mapping[str, Any]], system: str) -> Conditions:
    several = common([Conditions(**(one["systems"][system].get("conditions") or {})) for one in told])
    return replace(several, corpus=_CORPORA[suite.name]) if suite.name in _CORPORA else several


def _published_figures(
    entries: Sequence[Entry], told: Told, means: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Published rows as ours: system, source, and its values by collection and, where it has all of them, by list."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for entry in entries:
        for one in told[entry.name].get("published") or ():
            if one["metric"] == entry.headline:
                rows.setdefault((one["system"], one["source"]), {}).setdefault(entry.name, one["value"])
    for one in means:
        rows.setdefault((one["system"], one["source"]), {})[one["list"]] = one["value"]
    return [{"system": system, "source": source, "values": row} for (system, source), row in rows.items()]


def _table(
    suite: Suite,
    entries: Sequence[Entry],
    told: Told,
    values: Mapping[str, Mapping[str, float]],
    averages: Mapping[str, Average],
    missing: Sequence[str],
    figures: Sequence[Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]],
) -> str:
    one = len(suite.headlines) == 1
    column = {entry.name: entry.name if one else f"{entry.name} {entry.headline}" for entry in entries}
    rows = {system: {column[name]: value for name, value in row.items()} for system, row in values.items()}
    for system, mean in averages.items():
        rows[system][mean.label] = mean.value
    notes = [_line(entry, told[entry.name]) for entry in entries]
    lists = {mean.label: mean.members for mean in averages.values()}
    for label, members in lists.items():
        notes.append(f"{label}: the mean over {', '.join(members)}")
    if missing:
        notes.append(f"not judged: {', '.join(missing)}")
    if figures:
        sources = {source: i for i, source in enumerate(dict.fromkeys(one["source"] for one in figures), 1)}
        elsewhere = {
            f"{row['system']} [{sources[row['source']]}]": {column.get(n, n): v for n, v in row["values"].items()}
            for row in figures
        }
        notes += ["", "published elsewhere", "", *plain_table(elsewhere, [*column.values(), *lists])]
        notes += published_lines([{**row, "metric": row["list"]} for row in published], sources)
        notes += [f"[{number}] {source}" for source, number in sources.items()]
    queries = sum(told[entry.name]["queries"] for entry in entries)
    title = suite.headlines[0] if one else "headline metrics"
    return results_table(rows, suite.name, title, queries, notes=["", *notes])


def _line(entry: Entry, told: Mapping[str, Any]) -> str:
    """What a collection's number was measured with: split names and query counts tell the same names apart."""
    rules = ", a query is not among its own results" if entry.drop_self else ""
    level = f", relevant from grade {entry.relevance_level}" if entry.relevance_level != 1 else ""
    pool = ", a pool" if told.get("corpus") == "pool" else ""
    split = f"{entry.name}: {entry.split}, {told['queries']:,} queries, {entry.headline}"
    return f"{split}{_lengths(entry, told)}{rules}{level}{pool}"


def _lengths(entry: Entry, told: Mapping[str, Any]) -> str:
    """The lengths that texts were cut at, of the systems that cut any by a suite's rule; nothing where none does."""
    used: dict[tuple[int, int], list[str]] = {}
    for system, one in told["systems"].items():
        conditions = one.get("conditions") or {}
        if conditions.get("document_length") is not None:
            used.setdefault((conditions["query_length"], conditions["document_length"]), []).append(system)
    if not used:
        return ""
    if entry.query_length is None and entry.document_length is None:
        return ", the models' own lengths"
    said = [f"queries {query} and documents {document} ids" for query, document in used]
    if len(used) > 1:
        said = [f"{one} ({', '.join(systems)})" for one, systems in zip(said, used.values())]
    return f", {'; '.join(said)}"


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
