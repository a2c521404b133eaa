"""A suite judged: the same systems on one collection after the other, and a table of them with named averages.

What is done on a collection is an artifact of its own, found again; one collection's failure does not cost the others.
"""

import json
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.errors import ConfigError, DataError, LabError
from colbert_lab.evaluation.averages import Average, average
from colbert_lab.evaluation.suite import Entry, Suite
from colbert_lab.evaluation.table import results_table
from colbert_lab.stages.comparison.kinds import is_artifact
from colbert_lab.stages.making import Outcome, create, make, say
from colbert_lab.stages.sections import named
from colbert_lab.tracking.tracker import Tracker

# Judges what a configuration names on one collection: a comparison artifact.
Judge = Callable[[DictConfig], Artifact]


def run_suite(cfg: DictConfig, judge_one: Judge) -> Outcome:
    """The comparisons of all of cfg.benchmark's collections, as a table; the objective is the reference's average.

    Prints the table of what could be judged and raises DataError where some could not, with the reason of each.
    """
    suite: Suite = create(cfg.benchmark)
    _refuse_ignored(cfg)
    entries = suite.chosen()
    done: dict[str, Artifact] = {}
    failed: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        say(f"[{suite.name}, {number} of {len(entries)}: {entry.name}]")
        try:
            done[entry.name] = judge_one(entry_config(cfg, entry))
        except LabError as error:
            failed[entry.name] = str(error)
        except Exception:
            failed[entry.name] = traceback.format_exc()
        if entry.name in failed:
            say(f"{entry.name} failed, the others go on: {failed[entry.name]}")
    made = _told(cfg, suite, [entry for entry in entries if entry.name in done], done) if done else None
    if failed:
        if made is not None:
            print(made.text)
        reasons = "\n".join(f"{name}: {reason}" for name, reason in failed.items())
        raise DataError(
            f"{len(failed)} of {len(entries)} collections of {suite.name} failed; those that were judged are kept, and "
            f"the same command goes on with the others\n{reasons}"
        )
    return made


def entry_config(cfg: DictConfig, entry: Entry) -> DictConfig:
    """`cfg` for one collection: its data, split, headline metric and rules, and the models at its lengths."""
    view = named(cfg, entry.name)
    with open_dict(view):
        view.benchmark = view.run_dir = None
        view.data = OmegaConf.create(entry.data)
        view.split = entry.split
        view.search.drop_self = entry.drop_self
        view.evaluate.relevance_level = entry.relevance_level
        view.evaluate.metrics = list(dict.fromkeys([entry.headline, *view.evaluate.metrics]))
        if cfg.get("model") is not None:
            view.model = _at_lengths(cfg, cfg.model, entry)
        if cfg.get("seeds") is not None:
            view.seeds = [_at_lengths(cfg, place, entry) for place in cfg.seeds]
        for system in (view.get("systems") or {}).values():
            # A system's own; a backbone's name or a bi-encoder of pooled states is cut as the verb's model is.
            place = system.get("model") if isinstance(system, DictConfig) else None
            if place is None or (system.get("kind") == "single_vector" and not is_artifact(str(place))):
                continue
            several = OmegaConf.is_list(place)
            found = [_at_lengths(cfg, one, entry) for one in (place if several else [place])]
            system.model = found if several else found[0]
    return view


def _at_lengths(cfg: DictConfig, place: str, entry: Entry) -> str:
    if entry.query_length is None and entry.document_length is None:
        return place
    from colbert_lab.stages.hub import model_at
    from colbert_lab.stages.lengths import with_lengths

    return str(with_lengths(cfg, model_at(cfg, place), entry.query_length, entry.document_length).path)


def _refuse_ignored(cfg: DictConfig) -> None:
    """ConfigError where what every collection of a suite says for itself was chosen for the whole of it."""
    settled = ("data", "split", "search.drop_self", "evaluate.relevance_level", "candidates")
    asked = [one.lstrip("+~") for one in cfg.get("overrides") or []]
    ignored = [one for one in asked if any(f"{one.partition('=')[0]}.".startswith(f"{key}.") for key in settled)]
    if ignored:
        raise ConfigError(
            f"a suite's collections say this themselves, so {' '.join(ignored)} would change nothing\n"
            "try: benchmark=null, benchmark.drop_self=true (or split, relevance_level), or "
            "+benchmark.entries.NAME.split=dev",
            "the suite",
        )


def _told(cfg: DictConfig, suite: Suite, entries: list[Entry], done: Mapping[str, Artifact]) -> Outcome:
    """The suite artifact of what was judged: suite.json and table.txt."""
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
    table = _table(suite, entries, told, values, averages, missing)
    record = {
        "suite": suite.name,
        "entries": [_record(entry, told[entry.name], done[entry.name]) for entry in entries],
        "missing": missing,
        "systems": values,
        "averages": {
            system: {"label": one.label, "value": one.value, "members": list(one.members), "missing": list(one.missing)}
            for system, one in averages.items()
        },
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        (builder.path / "suite.json").write_text(json.dumps(record, indent=1))
        (builder.path / "table.txt").write_text(table)
        builder.counts.update(collections=len(entries), missing=len(missing), systems=len(values))
        tracker.summary({f"suite/{_leaf(system)}": one.value for system, one in averages.items()})

    content = {"suite": suite.name, "headlines": {entry.name: entry.headline for entry in entries}, "missing": missing}
    made = make(cfg, "suite", "suite", f"{_slug(suite.name)}-{cfg.name}", dict(done), content, work, cfg.run_dir)
    reference = told[entries[0].name]["baseline"]
    reference = reference if reference in values else next(iter(values))
    if reference in averages:
        objective, name = averages[reference].value, averages[reference].label
    else:
        name, objective = next(iter(values[reference].items()))
    figures = {f"{system}_{entry}": value for system, row in values.items() for entry, value in row.items()}
    return Outcome(made, f"{table}\n{made.path}", objective, name, figures)


def _record(entry: Entry, told: Mapping[str, Any], made: Artifact) -> dict[str, Any]:
    keys = ("name", "split", "headline", "query_length", "document_length", "drop_self", "relevance_level")
    own = {key: getattr(entry, key) for key in keys}
    return {**own, "collection": told["collection"], "queries": told["queries"], "path": str(made.path)}


def _table(
    suite: Suite,
    entries: list[Entry],
    told: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
    averages: Mapping[str, Average],
    missing: list[str],
) -> str:
    one = len(suite.headlines) == 1
    column = {entry.name: entry.name if one else f"{entry.name} {entry.headline}" for entry in entries}
    rows = {system: {column[name]: value for name, value in row.items()} for system, row in values.items()}
    for system, mean in averages.items():
        rows[system][mean.label] = mean.value
    notes = [_line(entry, told[entry.name]) for entry in entries]
    for label, members in {mean.label: mean.members for mean in averages.values()}.items():
        notes.append(f"{label}: the mean over {', '.join(members)}")
    if missing:
        notes.append(f"not judged: {', '.join(missing)}")
    queries = sum(told[entry.name]["queries"] for entry in entries)
    title = suite.headlines[0] if one else "headline metrics"
    return results_table(rows, suite.name, title, queries, notes=["", *notes])


def _line(entry: Entry, told: Mapping[str, Any]) -> str:
    """What a collection's number was measured with: split names and query counts tell the same names apart."""
    lengths = [
        f"{side} {length}"
        for side, length in (("queries", entry.query_length), ("documents", entry.document_length))
        if length is not None
    ]
    cut = f", {' and '.join(lengths)} ids" if lengths else ", the models' own lengths"
    rules = ", a query is not among its own results" if entry.drop_self else ""
    level = f", relevant from grade {entry.relevance_level}" if entry.relevance_level != 1 else ""
    pool = ", a pool" if told.get("corpus") == "pool" else ""
    return f"{entry.name}: {entry.split}, {told['queries']:,} queries, {entry.headline}{cut}{rules}{level}{pool}"


def _leaf(system: str) -> str:
    """A system's name as a metric's: letters, digits and _, and no digit first."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in system)
    return f"_{name}" if name[:1].isdigit() else name


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
