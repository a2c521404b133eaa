"""Section: a sweep, its jobs as lines through their parameters, what mattered, and the table of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from colbert_lab.report.charts_bars import bar_chart
from colbert_lab.report.markup import Cell, Column, Html, is_number, markup, number_cell, significant, table, tag
from colbert_lab.report.parallel import parallel_chart
from colbert_lab.report.records import Findings, Sweep


def sweeps(findings: Findings) -> Html | None:
    """Every sweep: counts, parallel coordinates, importance, jobs, and the command of the best."""
    parts = [tag("div", *_sweep(one, number), class_="sweep") for number, one in enumerate(findings.sweeps)]
    return markup(parts) if parts else None


def job_label(job: Mapping[str, Any], varied: Sequence[str]) -> str:
    """What sets a job apart from the others of its sweep: the parameters that vary, short: `hinge lr=0.01 s0`."""
    given = parameters(job)
    return " ".join(_named(name, given[name]) for name in varied if name in given) or "(as configured)"


def parameters(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job's parameters with numbers as numbers; where none are recorded, its overrides."""
    given = job.get("params") or dict(one.lstrip("+~").partition("=")[::2] for one in job["overrides"])
    return {name: _number(value) for name, value in given.items()}


def varied(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that are not the same in all jobs, in the order of their first job."""
    given = [parameters(job) for job in jobs]
    names = dict.fromkeys(name for one in given for name in one)
    return [name for name in names if len({str(one.get(name)) for one in given}) > 1]


def _sweep(one: Sweep, number: int) -> list[Html | None]:
    names = varied(one.jobs)
    # Of the finished alone: one that was stopped has the value that it was stopped at, of the curve that was followed.
    finished = [job for job in one.jobs if job["state"] == "finished"]
    objective = next((job["objective_name"] for job in finished if job.get("objective_name")), "objective")
    good = [
        (job, run) for job, run in zip(one.jobs, one.runs) if job["state"] == "finished" and is_number(job["objective"])
    ]
    states: dict[str, int] = {}
    for job in one.jobs:
        states[job["state"]] = states.get(job["state"], 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    parts: list[Html | None] = [tag("p", f"{one.label}: {len(one.jobs)} jobs, {told}.", class_="lead")]
    if len(good) > 1 and names:
        lines = [{name: parameters(job).get(name) for name in names} | {objective: job["objective"]} for job, _ in good]
        labels = [f"{job_label(job, names)}: {objective} {job['objective']:.4f}" for job, _ in good]
        title = f"Jobs by their parameters, to {objective}"
        parts.append(parallel_chart(title, lines, [run for _, run in good], objective, labels))
    if one.summary.get("stale"):
        parts.append(tag("p", "Jobs have ended since its summary was made, which is left out.", class_="note"))
    importance = _importance(one.summary)
    if importance:
        parts.append(tag("div", bar_chart(f"What mattered for {objective}", importance, "importance"), class_="charts"))
        if one.summary.get("importance_method"):
            parts.append(tag("p", f"Importance: {one.summary['importance_method']}.", class_="note"))
    parts.append(_configurations(one, objective, number))
    parts.append(_jobs(one, names, objective, number))
    command = one.summary.get("command")
    if command:
        parts.append(tag("p", "The best again:", class_="note"))
        parts.append(tag("pre", tag("code", command if isinstance(command, str) else " ".join(map(str, command)))))
    return parts


def _configurations(one: Sweep, objective: str, number: int) -> Html | None:
    """The sweep's own table: jobs that differ in the seed alone averaged, tested against the default."""
    rows = one.summary.get("rows") or []
    if not any(row["n"] > 1 or row.get("test") for row in rows):
        return None
    names = list(dict.fromkeys(name for row in rows for name in row["params"]))
    default = "default" if one.summary.get("baseline_is_default") else "first"
    columns = [*(Column(name, number=False) for name in names), Column(objective), Column("seeds")]
    columns += [Column(f"to the {default}"), Column("p")]
    best = max((row["mean"] for row in rows if row["mean"] is not None), default=None)
    body = []
    for row in rows:
        test = row.get("test") or {}
        cells = [_parameter(row["params"].get(name)) for name in names]
        if row.get("baseline") and cells:
            cells[0] = replace(cells[0], style="baseline")
        deviation = f" ± {row['deviation']:.4f}" if is_number(row.get("deviation")) else ""
        mean = number_cell(row["mean"], style="best" if row["mean"] == best else "")
        cells += [replace(mean, shown=mean.shown + deviation), number_cell(row["n"])]
        cells.append(Cell(f"{d:+.4f}", d) if is_number(d := test.get("difference")) else Cell("–"))
        cells.append(number_cell(test.get("p"), style="best" if test and test["p"] < 0.05 else ""))
        body.append((None, cells))
    caption = "Configurations, best first, ± standard deviation over seeds"
    how = one.summary.get("tested")
    note = tag("p", f"Differences: {how}.", class_="note") if how else None
    return markup(table(columns, body, caption, f"configurations-{number}"), note)


def _jobs(one: Sweep, names: Sequence[str], objective: str, number: int) -> Html:
    figures = list(dict.fromkeys(f for job in one.jobs for f in job.get("figures") or {} if f != objective))
    order = sorted(
        range(len(one.jobs)),
        key=lambda i: (
            one.jobs[i]["state"] != "finished",
            not is_number(v := one.jobs[i].get("objective")),
            -v if is_number(v) else 0,
        ),
    )
    columns = [*(Column(name, number=False) for name in names or ["job"]), Column(objective)]
    columns += [Column(name) for name in figures] + [Column("seconds"), Column("state", number=False)]
    finished = [job for job in one.jobs if job["state"] == "finished"]
    best = max((v for job in finished if is_number(v := job.get("objective"))), default=None)
    rows = []
    for i in order:
        job = one.jobs[i]
        given = parameters(job)
        value = job.get("objective")
        cells = [_parameter(given.get(name)) for name in names] if names else [Cell("(as configured)")]
        is_best = job["state"] == "finished" and value is not None and value == best
        cells.append(number_cell(value, style="best" if is_best else ""))
        cells += [number_cell((job.get("figures") or {}).get(name)) for name in figures]
        cells += [number_cell(job.get("seconds"), 1), _state(job["state"])]
        rows.append((one.runs[i], cells))
    return table(columns, rows, "Jobs, best first", f"jobs-{number}", True)


def _importance(summary: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = summary.get("importance") or {}
    pairs = found.items() if isinstance(found, Mapping) else [(row.get("name"), row.get("importance")) for row in found]
    return sorted(((str(name), float(value)) for name, value in pairs if is_number(value)), key=lambda p: -p[1])


def _named(name: str, value: Any) -> str:
    leaf = name.rpartition(".")[2]
    if not is_number(value):
        return str(value)
    return f"s{value}" if name == "seed" else f"{leaf}={significant(value)}"


def _parameter(value: Any) -> Cell:
    if value is None:
        return Cell("–")
    return Cell(str(value), value if is_number(value) else str(value))


def _state(state: str) -> Cell:
    return Cell(state, state, "bad" if state == "failed" else "")


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value if isinstance(value, int | float) else str(value)
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
