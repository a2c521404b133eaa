"""Reading a run's local log back: its effective history, summary, state and tables."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from colbert_lab.errors import DataError
from colbert_lab.locks import being_made
from colbert_lab.tracking.log import ARTIFACTS, DERIVED, IDENTITY, METRICS, STATE, SUMMARY
from colbert_lab.tracking.names import RESERVED

# What may stand after a line that a killed process left unfinished: the mark of a new start.
_STARTS = ("started", "resumed")


class Histogram(NamedTuple):
    """How values were distributed at a step: `counts` [b] of those between `edges` [b + 1]."""

    step: int
    counts: list[int]
    edges: list[float]
    axis: str = "trainer/step"


def read_metrics(directory: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that count, events left out: {"time", "axis", "step", name: value, ...}.

    Errors as in `read_lines`.
    """
    return [line for line in read_lines(directory) if "event" not in line]


def read_lines(directory: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that count: metrics, and the events "histogram" and "table", in their order.

    A resumed event takes back the lines before it on its axis with a greater step. A line cut short is passed over
    where a process was killed: at the end of the file or before a new start. DataError, with file and line, for any
    other broken line, and where there is no log.
    """
    file = Path(directory) / METRICS
    if not file.is_file():
        if (Path(directory) / STATE).is_file():
            return []
        raise DataError(f"{directory} holds no log of a run (neither {METRICS} nor {STATE})")
    history: list[dict[str, Any]] = []
    broken: tuple[int, str] | None = None
    for number, raw in enumerate(file.read_bytes().split(b"\n"), 1):
        if not raw:
            continue
        line, problem = _parse(raw)
        if broken and not (line and line.get("event") in _STARTS):
            raise DataError(f"{file}:{broken[0]}: {broken[1]}")
        if line is not None and "event" not in line and not {"axis", "step"} <= line.keys():
            raise DataError(f"{file}:{number}: a line of metrics has 'axis' and 'step': {raw[:60]!r}")
        broken = (number, problem) if line is None else None
        if line and line.get("event") == "resumed":
            axis, step = line.get("axis", "trainer/step"), line["step"]
            history = [kept for kept in history if kept.get("axis") != axis or kept["step"] <= step]
        elif line and line.get("event", "table") in ("table", "histogram"):
            history.append(line)
    return history


def history(directory: str | Path) -> dict[str, list[tuple[int, float]]]:
    """For each metric its curve: (step, value) in the order of logging. Errors as in `read_metrics`."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(directory):
        for name, value in line.items():
            if name not in RESERVED:
                curves.setdefault(name, []).append((line["step"], value))
    return curves


def histograms(directory: str | Path) -> dict[str, list[Histogram]]:
    """For each histogram its course, in the order of logging. Errors as in `read_lines`."""
    found: dict[str, list[Histogram]] = {}
    for line in read_lines(directory):
        if line.get("event") == "histogram":
            one = Histogram(line["step"], line["counts"], line["edges"], line["axis"])
            found.setdefault(line["name"], []).append(one)
    return found


def summary(directory: str | Path) -> dict[str, Any]:
    """The headline values; empty where the run set none."""
    return _object(Path(directory) / SUMMARY)


def derived(directory: str | Path) -> dict[str, Any]:
    """What the run noted about itself beyond its configuration; empty where it noted nothing."""
    return _object(Path(directory) / DERIVED)


def state(directory: str | Path) -> dict[str, Any]:
    """The run's state, exit code, error, times (seconds since 1970) and segments; DataError where there is no log."""
    file = Path(directory) / STATE
    if not file.is_file():
        raise DataError(f"{directory} holds no log of a run (no {STATE})")
    return _object(file)


def is_running(directory: str | Path) -> bool:
    """Whether a process still makes the artifact that the log in `directory` lies in, finished or not.

    By its lock, not by its process's id, which another process may have by now, or one on another machine.
    """
    artifact = Path(directory).absolute().parent
    return being_made(artifact.with_name(artifact.name.removesuffix(".partial")))


def is_settled(directory: str | Path) -> bool:
    """Whether the last start of the run has said from where it goes on: until then its lines may yet be taken back."""
    file = Path(directory) / METRICS
    lines = [_parse(raw)[0] for raw in file.read_bytes().splitlines() if b'"event"' in raw] if file.is_file() else []
    starts = [line["event"] for line in lines if line and line.get("event") in _STARTS]
    return not starts or starts[-1] == "resumed"


def identity(directory: str | Path) -> dict[str, Any]:
    """How the run is found among others: project, group, job_type, name, tags, notes; empty for an old log."""
    return _object(Path(directory) / IDENTITY)


def artifacts(directory: str | Path) -> list[dict[str, Any]]:
    """The artifacts that the run used and made: {"role", "kind", "path", "key", "used"}, each once."""
    file = Path(directory) / ARTIFACTS
    lines = [_parse(raw)[0] for raw in file.read_bytes().splitlines()] if file.is_file() else []
    # A run that was taken up notes its inputs again; and what a kill cut short is noted again as well.
    return list({(line["role"], line["key"]): line for line in lines if line and "key" in line}.values())


def tables(directory: str | Path) -> dict[str, str | None]:
    """The names of the run's tables, each with the column whose lowest rows are the ones to look at, or None."""
    return {line["name"]: line["by"] for line in read_lines(directory) if line.get("event") == "table"}


def seconds(directory: str | Path, running: bool = False) -> float:
    """Seconds that the run took, over all its starts; one that was killed counts up to the last line of it.

    `running` says that its last start goes on until now.
    """
    total = 0.0
    times = [line["time"] for line in read_metrics(directory)]
    segments = state(directory)["segments"]
    for number, segment in enumerate(segments, 1):
        until = segments[number]["started"] if number < len(segments) else float("inf")
        started, ended = segment["started"], segment["ended"]
        if ended is None and running and number == len(segments):
            ended = time.time()
        elif ended is None:
            ended = max((moment for moment in times if started <= moment < until), default=started)
        total += ended - started
    return total


def read_table(directory: str | Path, name: str) -> list[dict[str, Any]]:
    """The rows of the table `name`; DataError where it is missing or a line is broken."""
    file = Path(directory) / f"{name}.jsonl"
    if not file.is_file():
        raise DataError(f"{directory} holds no table {name!r}")
    rows = []
    for number, raw in enumerate(file.read_bytes().splitlines(), 1):
        row, problem = _parse(raw)
        if row is None:
            raise DataError(f"{file}:{number}: {problem}")
        rows.append(row)
    return rows


def _parse(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """The object on a line, or None and what is wrong with it."""
    try:
        line = json.loads(raw.decode())
    except ValueError as error:
        return None, f"not a line of JSON ({error}): {raw[:60]!r}"
    if not isinstance(line, dict):
        return None, f"not a JSON object: {raw[:60]!r}"
    return line, ""


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not a JSON object ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}: not a JSON object")
    return value
