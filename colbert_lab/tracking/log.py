"""RunLog: the lossless local record of a run, written whatever else happens; plain JSON and YAML files.

    config.yaml  overrides.json  environment.json    what the run was given
    identity.json                                    how it is found among others: project, group, job type, name, tags
    derived.json                                     facts known only later: parameters, tokens, world size
    metrics.jsonl                                    {"time":…, "axis": "trainer/step", "step": 12, "train/loss": …}
                                                     {"time":…, "event": …}: histograms, restarts, alerts, warnings
    summary.json                                     the last word on each headline number
    <name>.jsonl                                     tables, whole
    artifacts.jsonl                                  artifacts made and used
    state.json                                       running, finished, failed, preempted; one segment for each start

Numbers that are none are written NaN, Infinity and -Infinity, as Python's json reads them back.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from colbert_lab.artifact import write_atomic
from colbert_lab.tracking.environment import environment
from colbert_lab.tracking.names import check_names

State = Literal["running", "finished", "failed", "preempted", "killed"]
METRICS, SUMMARY, STATE, DERIVED, ARTIFACTS, IDENTITY = (
    "metrics.jsonl",
    "summary.json",
    "state.json",
    "derived.json",
    "artifacts.jsonl",
    "identity.json",
)
# How many of the run's starts were told to W&B online, from their beginning to their end.
ONLINE = "online.json"


class RunLog:
    """The log in `directory`, begun or taken up again; every line reaches the file before the call returns."""

    def __init__(self, directory: Path):
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """Eight letters and digits that name this run to W&B, made at the first start and kept until `call`."""
        file = self.directory / "wandb_id"
        if not file.exists():
            write_atomic(file, secrets.token_hex(4).encode())
        return file.read_text().strip()

    def call(self, id: str) -> None:
        """Give the run this name to W&B from now on."""
        write_atomic(self.directory / "wandb_id", id.encode())

    def begin(
        self, config: Mapping[str, Any], overrides: Sequence[str], identity: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write what the run is given, open a segment and return the environment.

        TypeError where the config holds more than plain values. Where an earlier segment was killed, its state is put
        right; files that differ from the earlier ones do not replace them: the old stay, as config.1.yaml and so on.
        """
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        self._keep("config.yaml", text)
        self._keep("overrides.json", _json(list(overrides)))
        surroundings = environment()
        self._keep("environment.json", _json(surroundings, indent=1))
        self._keep(IDENTITY, _json(plain(identity or {}), indent=1))
        segments = self._state().get("segments", [])
        for segment in segments:
            if segment["state"] == "running":
                segment["state"] = "killed"
        segments.append({"state": "running", "started": time.time(), "ended": None, "pid": os.getpid()})
        self._write_state(segments)
        if len(segments) > 1:
            self.event("started", segment=len(segments))
        return surroundings

    def metrics(self, values: Mapping[str, float], step: int, axis: str = "trainer/step") -> dict[str, float]:
        """Append one line; returns the values as plain numbers. ValueError for a name, TypeError for a value."""
        check_names([axis, *values])
        if axis in values:
            raise ValueError(f"{axis!r} is the axis of these metrics, it cannot be one of them as well")
        numbers = {name: _number(name, value) for name, value in values.items()}
        self._append(METRICS, {"time": time.time(), "axis": axis, "step": int(step), **numbers})
        return numbers

    def histogram(
        self, name: str, counts: Sequence[int], edges: Sequence[float], step: int, axis: str = "trainer/step"
    ) -> None:
        """Append one histogram: `counts` [b] between `edges` [b + 1]. ValueError for a name, TypeError for a value."""
        check_names([axis, name])
        numbers = {"counts": [_number(name, one) for one in counts], "edges": [_number(name, one) for one in edges]}
        self.event("histogram", axis=axis, step=int(step), name=name, **numbers)

    def resumed(self, step: int, axis: str = "trainer/step") -> None:
        """What was logged on `axis` beyond `step` is about to happen again and counts no more; -1: all of it."""
        self.event("resumed", step=int(step), axis=axis)

    def event(self, event: str, **facts: Any) -> None:
        """Append a line that is no measurement."""
        self._append(METRICS, {"time": time.time(), "event": event, **facts})

    def summary(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set these headline values, keeping the others; returns the new ones as plain values."""
        check_names(values)
        new = plain(values)
        self._merge(SUMMARY, new)
        return new

    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set facts about the run that its configuration does not say, keeping the others; returns all of them."""
        return self._merge(DERIVED, plain(values))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]], by: str | None = None) -> None:
        """Write the whole table to `<name>.jsonl`, one object a row, in place of an earlier one of that name.

        `by` is the column whose lowest rows are the ones to look at, where not all can be shown.
        """
        check_names([name])
        file = self.directory / f"{name}.jsonl"
        if file.name in (METRICS, ARTIFACTS) and "/" not in name:
            raise ValueError(f"table name {name!r} is taken by the log itself; put it into a section: 'eval/{name}'")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, "".join(_json(plain(row)) + "\n" for row in rows).encode())
        self.event("table", name=name, by=by)

    def artifact(self, role: str, kind: str, path: Path, key: str, used: bool) -> None:
        """Note an artifact that the run made or used."""
        entry = {"time": time.time(), "role": role, "kind": kind, "path": str(path), "key": key, "used": used}
        self._append(ARTIFACTS, entry)

    def told_online(self) -> None:
        """Note that W&B has heard all of this segment."""
        write_atomic(self.directory / ONLINE, _json({"segments": 1 + told_segments(self.directory)}).encode())

    def end(self, state: State, exit_code: int, error: str | None = None) -> None:
        """Close the segment and the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        segments = self._state()["segments"]
        segments[-1] |= {"state": state, "ended": time.time(), "exit_code": exit_code, "error": error}
        self._write_state(segments)

    def _state(self) -> dict[str, Any]:
        file = self.directory / STATE
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def _write_state(self, segments: list[dict[str, Any]]) -> None:
        last = segments[-1]
        state = {
            "state": last["state"],
            "exit_code": last.get("exit_code"),
            "error": last.get("error"),
            "started": segments[0]["started"],
            "ended": last["ended"],
            "segments": segments,
        }
        write_atomic(self.directory / STATE, _json(state, indent=1).encode())

    def _merge(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        file = self.directory / name
        held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if values:
            write_atomic(file, _json(held | values, indent=1).encode())
        return held | values

    def _keep(self, name: str, text: str) -> None:
        file = self.directory / name
        if file.exists():
            if file.read_text(encoding="utf-8") == text:
                return
            number = 1
            while (earlier := file.with_suffix(f".{number}{file.suffix}")).exists():
                number += 1
            os.replace(file, earlier)
        write_atomic(file, text.encode())

    def _append(self, name: str, line: dict[str, Any]) -> None:
        # One write call a line: a killed process leaves at most one line cut short, and only at the end.
        if name not in self._files:
            self._files[name] = _open_lines(self.directory / name)
        os.write(self._files[name], (_json(line) + "\n").encode())


def told_segments(directory: Path) -> int:
    """How many of the starts of the run in `directory` were told to W&B online, whole."""
    file = directory / ONLINE
    return json.loads(file.read_text(encoding="utf-8"))["segments"] if file.exists() else 0


def plain(value: Any, where: str = "") -> Any:
    """`value` as JSON and YAML know it: paths as text, tuples as lists, array scalars as numbers; else TypeError."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    with contextlib.suppress(AttributeError, ValueError, RuntimeError):
        return plain(value.item(), where)
    raise TypeError(f"{where or 'the value'} is a {type(value).__name__}, which a log cannot hold: {value!r}")


def _number(name: str, value: Any) -> float:
    number = plain(value, name)
    if not isinstance(number, int | float):
        raise TypeError(f"metric {name!r} must be a number, not {number!r}")
    return number


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _open_lines(file: Path) -> int:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    size = os.fstat(descriptor).st_size
    # A line that a killed process left unfinished is closed, so that it cannot spoil the next one.
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
    return descriptor
