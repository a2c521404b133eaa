"""table: the runs of a sweep side by side, best first."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError, DataError

JOBS = "jobs.jsonl"


def run(cfg: DictConfig) -> str:
    """The table of the sweep at cfg.sweep."""
    if cfg.sweep is None:
        raise ConfigError("no sweep is given\ntry: sweep=<directory of a sweep>")
    return sweep_table(Path(cfg.sweep).expanduser())


def add_job(sweep: Path, record: dict[str, Any]) -> None:
    """Note how a job of a sweep ended; a later record of the same overrides takes the place of an earlier one."""
    sweep.mkdir(parents=True, exist_ok=True)
    with (sweep / JOBS).open("ab+") as lines:
        # A kill may have cut the last line short; on a line of its own it spoils nothing.
        if lines.tell() and (lines.seek(-1, os.SEEK_END), lines.read())[1] != b"\n":
            lines.write(b"\n")
        lines.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def read_jobs(sweep: Path) -> list[dict[str, Any]]:
    """The latest record of every job, in the order in which jobs were first run; DataError where there is no sweep."""
    file = sweep / JOBS
    if not file.is_file():
        raise DataError(f"{sweep} is no sweep: it has no {JOBS}")
    latest: dict[tuple[str, ...], dict[str, Any]] = {}
    with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            # A line that a kill cut short belongs to a job that is run again.
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                latest[tuple(record["overrides"])] = record
    return list(latest.values())


def sweep_table(sweep: Path) -> str:
    """One row a job: what it changed, its objective, other figures; best first; failed ones last, with their error."""
    jobs = read_jobs(sweep)
    if not jobs:
        raise DataError(f"no job of the sweep {sweep} has ended yet")
    shared = set.intersection(*(set(job["overrides"]) for job in jobs))
    good = sorted((j for j in jobs if j["state"] == "finished"), key=_rank)
    bad = [job for job in jobs if job["state"] != "finished"]
    figures = list(dict.fromkeys(name for job in good for name in job["figures"] if name != job["objective_name"]))
    objective = next((job["objective_name"] for job in good if job["objective_name"]), "objective")
    rows = [["run", objective, *figures]]
    for job in good:
        values = [job["objective"], *(job["figures"].get(name) for name in figures)]
        rows.append([_label(job, shared), *("-" if v is None else f"{v:.4f}" for v in values)])
    rows += [[_label(job, shared), "failed", *[""] * len(figures)] for job in bad]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    head = [f"{len(jobs)} jobs in {sweep}" + (f", {len(bad)} failed" if bad else "")]
    if shared:
        head.append("all with " + " ".join(sorted(shared)))
    places = [f"best: {good[0]['artifact']}"] if good else []
    errors = [f"{_label(job, shared)}\n{job['error']}" for job in bad]
    return "\n".join([*head, "", *lines, "", *places, *errors]) + "\n"


def _rank(job: dict[str, Any]) -> float:
    return float("inf") if job["objective"] is None else -job["objective"]


def _label(job: dict[str, Any], shared: set[str]) -> str:
    return " ".join(override for override in job["overrides"] if override not in shared) or "(as configured)"
