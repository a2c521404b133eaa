"""report: one self-contained HTML page of what runs came to, made of their local logs and artifacts alone."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from colbert_lab.artifact import write_atomic
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.report.page import page
from colbert_lab.report.records import Findings, Results, RunRecord, Sweep
from colbert_lab.report.sections_sweep import job_label, varied
from colbert_lab.stages.local_runs import find, lineage, manifest_of, record
from colbert_lab.stages.table import current_jobs

SWEEP = "sweep.json"


def run(cfg: DictConfig) -> str:
    """Write the page of cfg.runs to cfg.out, by default below the root's reports/, and say where it is."""
    if not cfg.runs:
        raise ConfigError(
            "nothing is given to report on\ntry: runs=<directories of artifacts or sweeps, or their root>"
        )
    places = [Path(place) for place in (cfg.runs if isinstance(cfg.runs, ListConfig) else [cfg.runs])]
    named = places[0].expanduser().absolute().name
    out = Path(cfg.out) if cfg.out else report_path(Path(cfg.root), named)
    return f"report: {report_of(places, out, cfg.title or named)}"


def report_path(root: Path, name: str) -> Path:
    """Where the report called `name` lies: beside the artifacts, in none of them, since theirs are sealed."""
    return root.expanduser().absolute() / "reports" / f"{name}.html"


def report_of(places: Sequence[Path], out: Path, title: str) -> Path:
    """Write the page of everything that lies at `places` to `out` (its directory is made) and return `out`.

    A place is an artifact, a sweep, an unfinished run, or a directory of such; of an artifact its inputs are told too.
    DataError where there is nothing to tell. No model is loaded; equal places give equal bytes.
    """
    found = findings(places, title)
    out = Path(out).expanduser().absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page(found).encode())
    return out


def findings(places: Sequence[Path], title: str) -> Findings:
    """What the page tells, read from everything at `places`."""
    found = find(places)
    everything = lineage(found.runs)
    if not everything and not found.sweeps:
        shown = ", ".join(str(place) for place in places)
        raise DataError(f"there is no run and no sweep at {shown}\ntry: runs=<directory of an artifact, or their root>")
    read = [(place, record(place)) for place in everything]
    read.sort(key=lambda one: (one[1].started is None, one[1].started or 0.0, one[1].place))
    sweeps = [(place, current_jobs(place)[0]) for place in found.sweeps]
    labels = _job_labels(sweeps)
    runs = _named([(place, replace(one, key=f"r{i}")) for i, (place, one) in enumerate(read)], labels)
    keys = {place: one.key for (place, _), one in zip(read, runs)}
    return Findings(
        title=title,
        runs=runs,
        results=[one for (place, _), run in zip(read, runs) for one in _results(place, run)],
        suites=_told(read, runs, "suite"),
        rounds=_told(read, runs, "rounds"),
        fidelity=_told(read, runs, "fidelity"),
        sweeps=[_sweep(place, jobs, keys) for place, jobs in sweeps],
    )


def _named(runs: Sequence[tuple[Path, RunRecord]], labels: Mapping[Path, str]) -> list[RunRecord]:
    """The runs with labels that set them apart: what a sweep varied, or the name, with the kind and a piece of the key
    where others have the same."""
    given = [labels.get(place, one.label) for place, one in runs]
    apart = [
        lambda label, one: f"{label} {one.kind}",
        lambda label, one: f"{label} ({one.place.removesuffix('.partial')[-4:]})",
    ]
    for more in apart:
        counts = Counter(given)
        given = [more(label, one) if counts[label] > 1 else label for (_, one), label in zip(runs, given)]
    return [replace(one, label=label) for (_, one), label in zip(runs, given)]


def _job_labels(sweeps: Sequence[tuple[Path, Sequence[Mapping[str, Any]]]]) -> dict[Path, str]:
    return {
        Path(job["artifact"]): job_label(job, names)
        for _, jobs in sweeps
        for names in [varied(jobs)]
        for job in jobs
        if job.get("artifact") and names
    }


def _sweep(place: Path, jobs: Sequence[Mapping[str, Any]], keys: Mapping[Path, str]) -> Sweep:
    runs = [keys.get(Path(job["artifact"])) if job.get("artifact") else None for job in jobs]
    summary = _json(place / SWEEP)
    counts = Counter(job["state"] for job in jobs)
    told = summary.get("counts") or {}
    # Made at a sweep's end: of one that goes on again it is an earlier word, not to be mixed with what jobs say now.
    stale = any(told.get(state, counts[state]) != counts[state] for state in ("finished", "failed", "pruned"))
    return Sweep(place.name, jobs, runs, {"stale": True} if stale else summary)


def _told(read: Sequence[tuple[Path, RunRecord]], runs: Sequence[RunRecord], kind: str) -> list[tuple[str, dict]]:
    found = [(one.label, _json(place / f"{kind}.json")) for (place, _), one in zip(read, runs) if one.kind == kind]
    return [(label, told) for label, told in found if told]


def _results(place: Path, one: RunRecord) -> list[Results]:
    """What a metrics or a comparison artifact found; nothing for another. The metric is nDCG@10, or the first."""
    file = {"metrics": "metrics.json", "comparison": "comparison.json"}.get(one.kind)
    told = _json(place / file) if file else {}
    if not told.get("systems"):
        return []
    options = manifest_of(place).get("config", {}).get("evaluate") or {}
    systems, tests = told["systems"], told.get("tests", [])
    shared = [m for m in next(iter(systems.values()))["means"] if all(m in s["means"] for s in systems.values())]
    metric = "ndcg_10" if "ndcg_10" in shared else next(iter(shared), None)
    counts = next(iter(systems.values())).get("counts") or {}
    # Those with a positive, which is what averages are over; the others are counted apart.
    queries = told.get("queries") or counts.get("judged")
    differences = _json(place / "differences.json")
    return [
        Results(
            label=one.label,
            collection=told["collection"],
            split=told["split"],
            systems=systems,
            tests=tests,
            baseline=told.get("baseline") or (tests[0]["baseline"] if tests else None),
            test=told.get("test") or options.get("test"),
            queries=queries,
            corpus=told.get("corpus"),
            relevance_level=told.get("relevance_level") or options.get("relevance_level"),
            published=told.get("published") or (),
            guards=told.get("guards") or {},
            truncation=told.get("truncation") or {},
            differences=differences if isinstance(differences, list) else [differences] if differences else (),
            per_query=_per_query(place / "per_query.jsonl", metric),
            metric=metric,
        )
    ]


def _per_query(file: Path, metric: str | None) -> dict[str, dict[str, float]]:
    """system -> query -> value; the mean over the seeds where there are several."""
    found: dict[str, dict[str, list[float]]] = {}
    if metric is not None and file.is_file():
        with file.open(encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row.get(metric) is not None:
                    found.setdefault(row["system"], {}).setdefault(row["query"], []).append(row[metric])
    return {s: {q: sum(some) / len(some) for q, some in queries.items()} for s, queries in found.items()}


def _json(file: Path) -> Any:
    """A file's content; empty where there is none. DataError where it is broken."""
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from error
