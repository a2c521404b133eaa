"""Sections: the runs themselves, where their configurations differ, what they ran on, how to run them, what failed."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from colbert_lab.report.markup import (
    Cell,
    Column,
    Html,
    duration,
    facts,
    folded,
    is_number,
    markup,
    number_cell,
    table,
    tag,
)
from colbert_lab.report.records import Findings, RunRecord

# Keys that name a run or its place and change nothing of what it does.
UNTOLD = ("name", "verb", "overrides", "root", "run_dir", "tracking", "derived", "threads", "dry_run")
# More runs than these stand as rows, the keys as columns.
_COLUMNS = 6


def runs(findings: Findings) -> Html | None:
    """Every run and artifact: what it is, how it ended, its headline numbers, what it was made of."""
    figures = _headlines(findings.runs)
    columns = [Column(name, number=False) for name in ("run", "kind", "state")] + [Column("objective")]
    columns += [Column(name) for name in figures]
    columns += [Column("took"), Column("started", told="UTC"), Column("made of", number=False)]
    labels = {run.place: run.label for run in findings.runs}
    rows = []
    for run in findings.runs:
        cells = [
            Cell(run.label, run.label, told=f"{run.place} {(run.digest or '')[:12]}".strip()),
            Cell(run.kind, run.kind),
            Cell(run.state, run.state, "" if run.state == "finished" else "bad"),
            number_cell(run.objective),
            *(number_cell(run.summary.get(name)) for name in figures),
            Cell("–") if run.seconds is None else Cell(duration(run.seconds), run.seconds),
            Cell("–") if run.started is None else Cell(_time(run.started), run.started),
            _inputs(run, labels),
        ]
        rows.append((run.key, cells))
    return table(columns, rows, f"{len(rows)} runs", "runs", True) if rows else None


def configuration(findings: Findings) -> Html | None:
    """For the runs of each kind the keys that differ, and folded the keys that they share: together all of them."""
    kinds: dict[str, list[RunRecord]] = {}
    for run in findings.runs:
        if run.config:
            kinds.setdefault(run.kind, []).append(run)
    told = {
        run.key: {k: v for k, v in run.config.items() if k.partition(".")[0] not in UNTOLD}
        for some in kinds.values()
        for run in some
    }
    everywhere, _ = _split(list(told.values()))
    parts = []
    for kind, some in kinds.items():
        given = [told[run.key] for run in some]
        shared, differing = _split(given)
        rest = [key for key in shared if key not in set(everywhere)]
        if not differing and not rest:
            continue
        head = _count(len(some), f"{kind}: 1 run", f"{kind}: {{}} runs")
        head += _count(len(differing), ", 1 key differs", ", {} keys differ") if differing else ""
        inner = [_differences(kind, some, given, differing) if differing else None]
        inner.append(_keys(_count(len(rest), "1 key of all of them", "{} keys of all of them"), given[0], rest))
        parts.append(folded(head, inner, opened=bool(differing) and kind in ("model", "cross_encoder")))
    if everywhere:
        head = _count(len(everywhere), "1 key that is the same in all runs", "{} keys that are the same in all runs")
        parts.append(_keys(head, next(iter(told.values())), everywhere))
    return markup(parts) if parts else None


def environment(findings: Findings) -> Html | None:
    """Packages, commit and machine; where runs differ, each value with how many runs had it."""
    found: dict[str, dict[str, int]] = {}
    for run in findings.runs:
        for name, value in run.environment.items():
            values = found.setdefault(name, {})
            values[_text(value)] = values.get(_text(value), 0) + 1
    if not found:
        return None
    pairs = []
    for name, values in found.items():
        if len(values) == 1:
            pairs.append((name, next(iter(values))))
        else:
            pairs.append((name, "; ".join(f"{value} ({count} runs)" for value, count in values.items())))
    return facts(pairs)


def commands(findings: Findings) -> Html | None:
    """The command lines that made the runs, each once, with what it made."""
    found: dict[str, list[str]] = {}
    for run in findings.runs:
        if run.command:
            found.setdefault(run.command, []).append(run.label)
    lines = []
    for command, made in found.items():
        shown = ", ".join(made[:6]) + (f" and {len(made) - 6} more" if len(made) > 6 else "")
        lines.append(markup(tag("span", f"# {shown}", class_="soft"), f"\n{command}"))
    return tag("pre", tag("code", Html("\n\n".join(lines))), tabindex="0") if lines else None


def failures(findings: Findings) -> Html | None:
    """Runs that did not finish, with their errors, and logs that cannot be read."""
    bad = [run for run in findings.runs if run.state not in ("finished", "running") or run.problem]
    parts = [
        tag(
            "article",
            tag("h3", run.label, " ", tag("span", run.state, class_="bad")),
            tag("p", run.place, class_="soft"),
            tag("pre", run.problem) if run.problem else None,
            tag("pre", run.error) if run.error else None,
        )
        for run in bad
    ]
    for sweep in findings.sweeps:
        for job, run in zip(sweep.jobs, sweep.runs):
            if job["state"] == "failed" and not any(one.key == run for one in bad):
                head = tag("h3", " ".join(job["overrides"]), " ", tag("span", job["state"], class_="bad"))
                parts.append(tag("article", head, tag("pre", str(job.get("error") or "no error is recorded"))))
    return markup(parts) if parts else None


def _headlines(some: Sequence[RunRecord], most: int = 4) -> list[str]:
    """The summary's names that most runs have, the shortest list that tells: those of eval first, then of val."""
    counts: dict[str, int] = {}
    for run in some:
        for name, value in run.summary.items():
            if name != "objective" and is_number(value):
                counts[name] = counts.get(name, 0) + 1
    told = [name for name in counts if name.rpartition("/")[2].endswith(("ndcg_10", "mrr_10", "recall_100"))]
    return sorted(told, key=lambda name: (-counts[name], name))[:most]


def _differences(kind: str, some: Sequence[RunRecord], given: Sequence[Mapping], keys: Sequence[str]) -> Html:
    name = "".join(c if c.isalnum() else "-" for c in kind)
    if len(some) > _COLUMNS:
        columns = [Column("run", number=False), *(Column(key, number=False) for key in keys)]
        rows = [
            (run.key, [Cell(run.label, run.label), *(_value(one, key) for key in keys)])
            for run, one in zip(some, given)
        ]
    else:
        columns = [Column("key", number=False), *(Column(run.label, number=False) for run in some)]
        rows = [(None, [Cell(key, key), *(_value(one, key) for one in given)]) for key in keys]
    return table(columns, rows, f"{kind}: keys that differ", f"config-{name}", len(rows) > 12)


def _split(given: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Keys with the same value in all of these, and the others, which some lack or have another value for."""
    keys = list(dict.fromkeys(key for one in given for key in one))
    absent = object()
    differing = [
        key
        for key in keys
        if len({_text(v) if (v := one.get(key, absent)) is not absent else absent for one in given}) > 1
    ]
    return [key for key in keys if key not in set(differing)], differing


def _keys(head: str, given: Mapping[str, Any], keys: Sequence[str]) -> Html | None:
    return folded(head, tag("pre", "\n".join(f"{key}: {_text(given[key])}" for key in keys))) if keys else None


def _count(count: int, one: str, many: str) -> str:
    return one if count == 1 else many.format(count)


def _value(given: Mapping[str, Any], key: str) -> Cell:
    if key not in given:
        return Cell("–", told="this run has no such key")
    value = given[key]
    return Cell(_text(value), value if is_number(value) else _text(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inputs(run: RunRecord, labels: Mapping[str, str]) -> Cell:
    """The first inputs; a pointer on the cell is told all of them."""
    made = [f"{role}: {labels.get(place, place)}" for role, place in run.inputs if place]
    if not made:
        return Cell("–")
    shown = ", ".join(made[:2]) + (f" and {len(made) - 2} more" if len(made) > 2 else "")
    return Cell(shown, shown, "soft", "\n".join(made))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
