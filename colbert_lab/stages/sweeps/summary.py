"""The end of a sweep: its configurations best first, seeds averaged, tested against the default, and what mattered.

sweep.json: {"verb", "folder", "kind", "objective", "counts", "fixed", "swept", "rows": [ROW], "baseline_is_default",
"tested", "importance": {parameter: share}, "importance_rest", "importance_method", "best": {"overrides", "params",
"artifact"}, "command" (of the best), "failed", "pruned", "left_out" (ran under another configuration)}, where ROW =
{"params", "mean", "deviation", "seeds", "n", "figures", "artifacts", "test", "baseline"}.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.artifact import write_atomic
from colbert_lab.errors import DataError
from colbert_lab.stages.overrides import shown
from colbert_lab.stages.sweeps.importance import is_full_factorial, main_effects
from colbert_lab.stages.sweeps.queries import PerQuery, against, per_query
from colbert_lab.stages.table import PLAN, current_jobs

SUMMARY = "sweep.json"
_SEED = "seed"


def conclude(folder: Path) -> tuple[str, bool]:
    """Write sweep.json and report.html of the sweep in `folder`; its text, and whether a job failed."""
    from colbert_lab.stages.report import report_of
    from colbert_lab.stages.sweeps.text import text_of

    summary = summarise(folder)
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False).encode())
    text = text_of(summary)
    try:
        page = report_of([folder], folder / "report.html", f"{summary['verb']}: {', '.join(summary['swept'])}")
        told = f"report: {page}"
    except Exception as error:
        # The table is what hours went into; a page can be made again.
        told = f"no report: {type(error).__name__}: {error}\ntry: colbert-lab report runs={folder}"
    return f"{text}{told}\n", bool(summary["failed"])


def summarise(folder: Path) -> dict[str, Any]:
    """What the jobs of a sweep came to, in plain values; see the module. DataError where no job has ended.

    Jobs that ran under a configuration which conf/ has not any more count for nothing but their number.
    """
    jobs, left_out = current_jobs(folder)
    if not jobs:
        earlier = f", but {len(left_out):,} under another configuration" if left_out else ""
        raise DataError(f"no job of the sweep {folder} has ended yet{earlier}")
    plan = _plan(folder)
    jobs.sort(key=lambda job: job["number"])
    finished = [job for job in jobs if job["state"] == "finished"]
    scored = [job for job in finished if job["objective"] is not None]
    objective = next((job["objective_name"] for job in scored if job["objective_name"]), "objective")
    groups = _grouped(finished)
    rows = [_row(group) for group in groups]
    baseline, is_default = _baseline(rows, plan["default"])
    found, tested = _tested(groups, baseline, objective)
    for row, test in zip(rows, found):
        row["test"] = test
    for number, row in enumerate(rows):
        row["baseline"] = number == baseline
    best = max(scored, key=lambda job: (_mean_of(rows, job), job["objective"])) if scored else None
    shares, rest, method = _importance(folder, plan, scored)
    counts = {state: sum(job["state"] == state for job in jobs) for state in ("finished", "failed", "pruned")}
    return {
        "verb": plan["verb"],
        "folder": str(folder),
        "kind": plan["kind"],
        "objective": objective,
        "counts": {**counts, "asked": plan["jobs"] or plan["options"]["trials"]},
        "fixed": plan["fixed"],
        "swept": plan["swept"],
        "rows": sorted(rows, key=lambda row: -np.inf if row["mean"] is None else row["mean"], reverse=True),
        "baseline_is_default": is_default,
        "tested": tested,
        "importance": shares,
        "importance_rest": rest,
        "importance_method": method,
        "best": best and _kept(best),
        "command": best and command_of(plan["program"], best["overrides"]),
        "left_out": [_kept(job) for job in left_out],
        "pruned": [_kept(job) | {"step": job.get("step")} for job in jobs if job["state"] == "pruned"],
        "failed": [_kept(job) | {"error": job["error"]} for job in jobs if job["state"] == "failed"],
    }


def command_of(program: str, overrides: Sequence[str]) -> str:
    """The command line of a run, quoted for a shell."""
    return " ".join([program, *map(shlex.quote, overrides)])


def _plan(folder: Path) -> dict[str, Any]:
    file = folder / PLAN
    if not file.is_file():
        raise DataError(f"{folder} is no sweep: it has no {PLAN}")
    return json.loads(file.read_text(encoding="utf-8"))


def _without_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != _SEED}


def _grouped(jobs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The jobs that differ in nothing but the seed together, in the order of their first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(shown(_without_seed(job["params"])), []).append(job)
    return list(groups.values())


def _row(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [job["objective"] for job in group if job["objective"] is not None]
    names = dict.fromkeys(name for job in group for name in job["figures"])
    figures = {name: [job["figures"][name] for job in group if name in job["figures"]] for name in names}
    return {
        "params": _without_seed(group[0]["params"]),
        "mean": float(np.mean(values)) if values else None,
        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "n": len(values),
        "seeds": [job["params"][_SEED] for job in group if _SEED in job["params"]],
        "figures": {name: float(np.mean(several)) for name, several in figures.items()},
        "artifacts": [job["artifact"] for job in group],
    }


def _baseline(rows: Sequence[Mapping[str, Any]], default: Mapping[str, Any]) -> tuple[int, bool]:
    """Which row the others are held against: the one with the configuration's own values, else the first."""
    own = _without_seed(default)
    number = next((n for n, row in enumerate(rows) if row["params"] == own), None)
    return (0, False) if number is None else (number, True)


def _tested(
    groups: Sequence[Sequence[Mapping[str, Any]]], baseline: int, objective: str
) -> tuple[list[dict[str, Any] | None], str]:
    if len(groups) < 2:
        return [None] * len(groups), "there is nothing to test against"
    values: list[dict[Any, PerQuery]] = []
    for group in groups:
        found = {job["params"].get(_SEED): per_query(Path(job["artifact"] or ""), objective) for job in group}
        values.append({seed: one for seed, one in found.items() if one is not None})
    return against(values, baseline)


def _importance(
    folder: Path, plan: Mapping[str, Any], scored: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float], float | None, str]:
    """Parameter -> share, the share of none of them, and what a share is; or no shares, and why."""
    if plan["kind"] == "bayes":
        from colbert_lab.stages.sweeps.bayes import STUDY
        from colbert_lab.stages.sweeps.trials import importance

        shares, method = importance(folder / STUDY)
        return shares, None, method
    if len(scored) < 2:
        return {}, None, "two finished runs at least are needed"
    params = [job["params"] for job in scored]
    try:
        shares, rest = main_effects(params, [job["objective"] for job in scored])
    except ValueError as error:
        return {}, None, str(error)
    method = "share of the variance over all combinations (ANOVA, main effects; the rest: interactions and noise)"
    if not is_full_factorial(params):
        method = "share of the variance lost without it, by least squares, as some combinations are missing"
    return shares, rest, method


def _mean_of(rows: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> float:
    return next(row["mean"] for row in rows if row["params"] == _without_seed(job["params"]))


def _kept(job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: job.get(key) for key in ("number", "params", "overrides", "objective", "artifact", "seconds")}
