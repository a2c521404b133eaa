"""Local runs: what lies below a directory, and one run's log and manifest read into a plain record."""

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from colbert_lab.artifact import LOG, MANIFEST
from colbert_lab.errors import DataError, LabError
from colbert_lab.report.records import Curve, RunRecord
from colbert_lab.stages.launch import VERBS
from colbert_lab.stages.table import JOBS, read_jobs
from colbert_lab.tracking import read
from colbert_lab.tracking.log import STATE
from colbert_lab.tracking.names import RESERVED

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PARTIAL = ".partial"
# What a process cannot say that gets no time to: by SIGKILL, as the system does where memory runs out, or a power cut.
_KILLED = "the process ended without a word (killed, or out of memory)\ntry: the same command, which goes on with it"


@dataclass(frozen=True)
class Found:
    """Directories of runs and of sweeps, each once, in the order of their paths."""

    runs: list[Path] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)


def find(places: Sequence[str | Path]) -> Found:
    """The runs (artifacts, and unfinished ones that have a log) and sweeps at `places` and below them.

    A sweep brings the artifacts of its jobs with it. DataError for a place that does not exist.
    """
    runs: dict[Path, None] = {}
    sweeps: dict[Path, None] = {}
    for given in places:
        place = Path(given).expanduser().absolute()
        if not place.is_dir():
            raise DataError(f"{place} is no directory\ntry: runs=<directory of an artifact or a sweep, or their root>")
        for directory, is_sweep in _walk(place):
            (sweeps if is_sweep else runs)[directory] = None
    return Found(sorted(runs), sorted(sweeps))


def is_run(place: Path) -> bool:
    """Whether this directory is an artifact, or the making of one."""
    return (place / MANIFEST).is_file() or (place / LOG / STATE).is_file()


def lineage(runs: Sequence[Path]) -> list[Path]:
    """The runs, and everything that they were made of, as far as it is still where it was; sorted."""
    known: set[Path] = set()
    open_ = list(runs)
    while open_:
        place = open_.pop()
        if place in known:
            continue
        known.add(place)
        open_ += [Path(path) for _, path in inputs(place) if path and is_run(Path(path))]
    return sorted(known)


def inputs(place: Path) -> list[tuple[str, str]]:
    """(role, path) of what an artifact was made of; the path is empty where only a digest is known."""
    manifest = manifest_of(place)
    if manifest:
        # A manifest names a few inputs by their digest alone, as a text.
        given = manifest.get("inputs", {}).items()
        return [(role, _where(one.get("path", ""), place) if isinstance(one, Mapping) else "") for role, one in given]
    if not (place / LOG / STATE).is_file():
        return []
    used = [one for one in read.artifacts(place / LOG) if one.get("used", True)]
    return [(one.get("role", "input"), _where(one["path"], place)) for one in used]


def record(place: Path, key: str = "") -> RunRecord:
    """One run as a record; what of its log cannot be read is said in `problem` and left out."""
    manifest = manifest_of(place)
    log = place / LOG
    one = RunRecord(
        key=key,
        label=_label(place, manifest),
        place=short(place),
        kind=manifest.get("kind") or _kind(place),
        state="finished" if manifest else "unknown",
        digest=manifest.get("digest"),
        counts=manifest.get("counts") or {},
        environment=leaves(manifest.get("versions") or {}),
        config=leaves(manifest.get("config") or {}),
        command=command_of(manifest.get("command")),
        inputs=[(role, short(Path(path)) if path else "") for role, path in inputs(place)],
    )
    if not (log / STATE).is_file():
        return one
    problems = []
    for part in (_ending, _given, _measured):
        try:
            one = replace(one, **part(log, one))
        except (LabError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            problems.append(f"{error}")
    return replace(one, problem="\n".join(problems) or None)


def manifest_of(place: Path) -> dict[str, Any]:
    """The manifest, unverified; empty where there is none that can be read."""
    try:
        value = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def short(place: Path) -> str:
    """The last two parts of a path: models/scifact-s0-84f5b14d58."""
    return "/".join(place.parts[-2:])


def command_of(given: Sequence[str] | None) -> str | None:
    """The command line as a person types it, from what a process was started with; None without one of ours."""
    if not given:
        return None
    script, arguments = Path(given[0]), list(given[1:])
    if script.name == "colbert-lab":
        start = "colbert-lab"
    elif script.suffix == ".py" and script.parent.name in ("experiments", "scripts"):
        start = f"python {script.parent.name}/{script.name}"
    else:
        return None
    return " ".join([start, *(shlex.quote(argument) for argument in arguments)])


def _where(path: str, place: Path) -> str:
    """Where an input of the artifact at `place` lies now: as noted, or, where everything was moved, beside it."""
    moved = place.parent.parent / short(Path(path))
    return str(moved) if path and not Path(path).is_dir() and moved.is_dir() else path


def _walk(place: Path) -> Iterator[tuple[Path, bool]]:
    for directory, below, files in os.walk(place):
        here = Path(directory)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if is_run(here):
            yield here, False
            below.clear()
        elif JOBS in files:
            yield here, True
            for job in read_jobs(here):
                artifact = Path(job["artifact"]) if job.get("artifact") else None
                if artifact is not None and is_run(artifact):
                    yield artifact, False


def _label(place: Path, manifest: Mapping[str, Any]) -> str:
    """The artifact's name without its key, which says nothing to a person."""
    name = place.name.removesuffix(_PARTIAL)
    # An unfinished artifact keeps its key in a file.
    begun = place / "key"
    key = manifest.get("key") or (begun.read_text() if begun.is_file() else "")
    return name.removesuffix(f"-{key[:10]}") if key else name


def _kind(place: Path) -> str:
    """An unfinished run's kind is known by where it lies: models/x.partial is to be a model."""
    folder = place.parent.name
    if folder == "indexes":
        return "index"
    alike = ("metrics", "candidates", "scores", "tuples", "rounds", "fidelity")
    return folder if folder in alike else folder.removesuffix("s")


def _ending(log: Path, one: RunRecord) -> dict[str, Any]:
    # Before its word is read: a run that ends in between has said so by then.
    goes_on = read.is_running(log)
    told = read.state(log)
    state, error = told["state"], told.get("error")
    if state == "running" and not goes_on:
        state, error = "killed", _KILLED
    started = told["segments"][0]["started"]
    return {"state": state, "error": error, "started": started, "seconds": read.seconds(log)}


def _given(log: Path, one: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    config = log / "config.yaml"
    if config.is_file():
        given = yaml.load(config.read_text(encoding="utf-8"), Loader=_YAML) or {}
        found["config"] = leaves(given)
        found["notes"] = (given.get("tracking") or {}).get("notes")
        # A stage has not always a verb of its own; the overrides are the verb's that it was a part of.
        verb = given.get("verb") or read.identity(log).get("job_type")
        if one.command is None and given.get("overrides") is not None and verb in VERBS:
            found["command"] = " ".join(["colbert-lab", verb, *map(shlex.quote, given["overrides"])])
    found["notes"] = read.identity(log).get("notes") or found.get("notes")
    surroundings = log / "environment.json"
    if surroundings.is_file():
        told = json.loads(surroundings.read_text(encoding="utf-8"))
        found["environment"] = leaves({k: v for part in told.values() for k, v in part.items()})
    return found


def _measured(log: Path, one: RunRecord) -> dict[str, Any]:
    points: dict[str, list[tuple[float, float]]] = {}
    axes: dict[str, str] = {}
    skipped: dict[str, int] = {}
    histograms: dict[str, list[Mapping[str, Any]]] = {}
    for line in read.read_lines(log):
        if line.get("event") == "histogram":
            histograms.setdefault(line["name"], []).append(line)
        if "event" in line:
            continue
        for name, value in line.items():
            if name in RESERVED:
                continue
            axes.setdefault(name, line["axis"])
            points.setdefault(name, [])
            if isinstance(value, int | float) and math.isfinite(value):
                points[name].append((line["step"], value))
            else:
                skipped[name] = skipped.get(name, 0) + 1
    curves = {name: Curve(axes[name], found, skipped.get(name, 0)) for name, found in points.items() if found}
    return {"curves": curves, "summary": read.summary(log), "histograms": _histograms(histograms)}


def _histograms(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Histograms at their first and last step; two whose names differ in positive and negative alone go together."""
    groups: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for name, course in found.items():
        side = next((word for word in ("positive", "negative") if word in name), "")
        stem = name.replace(f"{side}_", "").replace(f"_{side}", "") if side else name
        groups.setdefault(stem, {})[side or name.rpartition("/")[2]] = course
    told = []
    for stem, sides in groups.items():
        steps = sorted({one["step"] for course in sides.values() for one in course})
        for step in dict.fromkeys((steps[0], steps[-1])):
            at = {side: one for side, course in sides.items() for one in course if one["step"] == step}
            parts = {side: (one["edges"], one["counts"]) for side, one in at.items()}
            told.append({"title": f"{stem}, step {step}", "parts": parts, "label": "score"})
    return told


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones; an empty dictionary is a value."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, child in value.items() for k, v in leaves(child, f"{path}.{key}".lstrip(".")).items()}
    return {path: value} if path else {}
