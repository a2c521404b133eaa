"""Per-query values of a sweep's runs, and the paired test of its configurations against the default one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.artifact import LOG, read_manifest
from colbert_lab.errors import LabError
from colbert_lab.evaluation.significance import holm, paired
from colbert_lab.tracking.read import read_table

# Of the dev sample at the step whose weights were kept; see training/dev.py.
DEV_TABLE = "val/per_query"
# A sweep has many tests, none of which is a paper's last word.
_RESAMPLES = 20_000


@dataclass(frozen=True)
class PerQuery:
    """What was measured (`dev_ndcg_10`) and its value for each query."""

    name: str
    values: Mapping[str, float]


def per_query(artifact: Path, objective: str) -> PerQuery | None:
    """The per-query values behind a run's objective, as near to it as its artifact has them; None where it has none.

    Of a model those of its dev sample, of rounds those of the best round on dev, of metrics the last system's that
    is not bm25: with a pipeline, whose objective is on dev, those are the test queries'.
    """
    try:
        kind = read_manifest(artifact)["kind"]
        if kind == "model":
            return _column(read_table(artifact / LOG, DEV_TABLE), "dev", objective)
        if kind == "rounds":
            best = json.loads((artifact / "rounds.json").read_text(encoding="utf-8"))["best"]
            metrics = read_manifest(artifact)["inputs"].get("metrics_dev")
            return metrics and _of_metrics(Path(metrics["path"]), objective, best)
        return _of_metrics(artifact, objective) if kind == "metrics" else None
    except (LabError, OSError, KeyError, ValueError):
        return None


def against(groups: Sequence[Mapping[Any, PerQuery]], baseline: int) -> tuple[list[dict[str, Any] | None], str]:
    """Each group of runs (seed -> values) against the one at `baseline`, and a sentence on how, or why not at all.

    Where all runs of two groups have the same queries, seeds are a second source of chance (`significance.paired`).
    Where they differ, as dev samples drawn under the seed do, a query counts by its mean over the seeds that both
    groups have it for, and chance is that of the queries alone. Randomisation test, p by Holm.
    """
    found = [_test(group, groups[baseline]) if n != baseline else None for n, group in enumerate(groups)]
    done = [one for one in found if one is not None]
    for one, p in zip(done, holm([one["p_alone"] for one in done])):
        one["p"] = float(p)
    if not done:
        return found, "not tested: the runs keep no per-query values to be paired"
    names = {one.name for group in groups for one in group.values()}
    counts = [one["queries"] for one in done]
    queries = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    what = " and ".join(sorted(names))
    alone = any(one["queries_alone"] for one in done)
    by = "; queries alone, as each seed has its own" if alone else " and their seeds" if done[0]["seeds"] > 1 else ""
    how = f"paired over {queries} queries{by}, by {what}; randomisation test, p by Holm"
    untested = sum(one is None for one in found) - 1
    return found, how + (f"; {untested} could not be paired" if untested else "")


def _test(group: Mapping[Any, PerQuery], other: Mapping[Any, PerQuery]) -> dict[str, Any] | None:
    """A group against another; None where fewer than two queries pair."""
    if not group or not other:
        return None
    queries = sorted(next(iter(group.values())).values)
    alike = all(one.values.keys() == set(queries) for side in (group, other) for one in side.values())
    if alike:
        a, b = (np.array([[one.values[q] for q in queries] for one in side.values()]) for side in (group, other))
        seeds = min(len(a), len(b))
    else:
        differences = _by_query(group, other)
        queries = list(differences)
        a, seeds = np.array(list(differences.values())), len(group.keys() & other.keys())
        b = np.zeros_like(a)
    if len(queries) < 2:
        return None
    test = paired(a, b, "randomisation", resamples=_RESAMPLES)
    return {
        "p_alone": test.p,
        "difference": test.mean_difference,
        "low": test.low,
        "high": test.high,
        "wins": test.wins,
        "ties": test.ties,
        "losses": test.losses,
        "queries": len(queries),
        "seeds": seeds,
        "queries_alone": not alike,
    }


def _by_query(a: Mapping[Any, PerQuery], b: Mapping[Any, PerQuery]) -> dict[str, float]:
    """Query -> mean over the seeds, in which both have it, of a's value minus b's."""
    differences: dict[str, list[float]] = {}
    for seed in sorted(a.keys() & b.keys(), key=str):
        for query in sorted(a[seed].values.keys() & b[seed].values.keys()):
            differences.setdefault(query, []).append(a[seed].values[query] - b[seed].values[query])
    return {query: float(np.mean(values)) for query, values in sorted(differences.items())}


def _of_metrics(artifact: Path, objective: str, system: str | None = None) -> PerQuery | None:
    told = json.loads((artifact / "metrics.json").read_text(encoding="utf-8"))
    if system is None:
        # A sweep is over what is trained, wherever a table has its baseline.
        system = [name for name in told["systems"] if name != "bm25"] or list(told["systems"])
        system = system[-1]
    lines = (artifact / "per_query.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["system"] == system]
    return _column(rows, told["split"], objective)


def _column(rows: Sequence[Mapping[str, Any]], split: str, objective: str) -> PerQuery | None:
    """The column that the objective is the mean of, or the first metric's."""
    metrics = [name for name in rows[0] if name not in ("query", "system")] if rows else []
    if not metrics:
        return None
    metric = next((name for name in metrics if objective == name or objective.endswith(f"_{name}")), metrics[0])
    return PerQuery(f"{split}_{metric}", {row["query"]: row[metric] for row in rows})
