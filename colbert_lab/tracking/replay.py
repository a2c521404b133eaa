"""Replay: tell a run that has ended to a sink, from its local log alone, as one whole run; once.

An offline run lacks what W&B does only online (inputs), and one that was taken up lies in several pieces of which W&B
would keep the last. The local log has all of it, without what a restart has superseded. A run that went on after it was
replayed is told again as a whole, in its old place. Nobody is alerted of what failed long ago.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from colbert_lab.artifact import write_atomic
from colbert_lab.errors import DataError
from colbert_lab.tracking import read
from colbert_lab.tracking.log import STATE, RunLog, told_segments
from colbert_lab.tracking.tracker import RunIdentity, Sink

# Beside the log: {"id", "projects": {project: when and where the run was replayed to it, and how far it had come}}.
REPLAYED = "replayed.json"
_AXES = {"time", "axis", "step", "event"}


class Replayed(NamedTuple):
    """What came of one run: told now, told before, or left because it is still running.

    `online`: W&B has it; else it lies in files, to be uploaded. `replaced` counts the files of an earlier replay that
    this one has taken the place of.
    """

    directory: Path
    state: Literal["told", "done", "online", "running"]
    id: str
    online: bool = False
    replaced: int = 0


def logs_below(place: Path) -> list[Path]:
    """The logs of runs at `place`: a log, an artifact, finished or not, or a directory of any depth; the oldest first.

    DataError where there is none.
    """
    place = Path(place).expanduser().absolute()
    found = [one for one in (place, place / "log") if (one / STATE).is_file()]
    if not found:
        found = [file.parent for file in place.rglob(f"log/{STATE}")]
    if not found:
        raise DataError(f"{place} holds no log of a run\ntry: runs=<the directory of an artifact, or their root>")
    # Producers before consumers, so that a lineage is told from its beginning.
    return sorted(found, key=lambda log: (_started(log), str(log)))


def replay(log: Path, sink: Callable[[], Sink], out: Path, again: bool = False, project: str | None = None) -> Replayed:
    """Tell the run in `log` to a new sink, whose own files go below `out`, and note that beside the log.

    It is told to the project that it ran in, or to another `project`. What that was told before, online to its end or
    by a replay of all that there is, it is not told twice (`again`: it is, in its old place: W&B replaces a run by a
    new one with its id). A replay into files that nobody has uploaded is none to a sink that goes online: it is told
    there, and the files are removed. What the sink raises is raised: the run is not noted as replayed then.
    """
    log = Path(log)
    goes_on, known = read.is_running(log), read.state(log)
    own = _identity(log)
    identity = replace(own, project=project or own.project)
    if known["state"] == "running" and goes_on:
        return Replayed(log, "running", identity.id)
    reached = {"segments": len(known["segments"]), "ended": known["ended"]}
    marks = _marks(log)
    mark = marks.get(identity.project, {})
    began, told = time.time(), sink()
    uploaded = bool(mark.get("online")) or _uploaded(mark.get("files", []))
    if not again and reached.items() <= mark.items() and (uploaded or not told.wants_online):
        return Replayed(log, "done", identity.id, uploaded)
    if not again and identity.project == own.project and told_segments(log) == reached["segments"]:
        return Replayed(log, "online", identity.id, True)
    retell(log, told, out, identity)
    files = [str(one) for one in _records(out, identity.id, began)]
    replaced = _remove([one for one in mark.get("files", []) if one not in files])
    marks[identity.project] = {**reached, "online": told.online, "time": time.time(), "out": str(out), "files": files}
    write_atomic(log / REPLAYED, json.dumps({"id": identity.id, "projects": marks}, indent=1).encode())
    return Replayed(log, "told", identity.id, told.online, replaced)


def retell(log: Path, sink: Sink, out: Path, identity: RunIdentity) -> None:
    """Tell the run in `log` to `sink`, whose own files go below `out`, as the run `identity`; nothing is noted.

    What the sink raises is raised, once it is closed.
    """
    out.mkdir(parents=True, exist_ok=True)
    code = read.state(log)["exit_code"]
    try:
        sink.open(out, identity, _config(log))
        _tell(log, sink)
    except BaseException:
        sink.close(1)
        raise
    # A process that was killed could not say so.
    sink.close(137 if code is None else code)


def _tell(log: Path, sink: Sink) -> None:
    for role in read.artifacts(log):
        if role["used"]:
            sink.artifact(role["role"], role["kind"], Path(role["path"]), role["key"], True)
    for line in read.read_lines(log):
        if line.get("event") == "histogram":
            sink.histogram(line["name"], line["counts"], line["edges"], line["step"], line["axis"])
        elif "event" not in line:
            values = {name: value for name, value in line.items() if name not in _AXES}
            sink.log(values, line["step"], line["axis"])
    for name, by in read.tables(log).items():
        sink.table(name, read.read_table(log, name), by)
    sink.summary(read.summary(log))
    for role in read.artifacts(log):
        if not role["used"]:
            sink.artifact(role["role"], role["kind"], Path(role["path"]), role["key"], False)


def _marks(log: Path) -> dict[str, dict[str, Any]]:
    """What was noted of earlier replays, by project."""
    file = log / REPLAYED
    return json.loads(file.read_text(encoding="utf-8")).get("projects", {}) if file.exists() else {}


def _records(out: Path, id: str, since: float) -> list[Path]:
    """W&B's offline records of this run below `out` that were written to since then."""
    found = (out / "wandb").glob(f"offline-run-*-{id}")
    return sorted(one for one in found if any(file.stat().st_mtime >= since for file in one.iterdir()))


def _uploaded(records: list[str]) -> bool:
    """Whether `wandb sync` has uploaded what an earlier replay left: it puts a mark beside W&B's file."""
    return any(any(Path(one).glob("*.wandb.synced")) for one in records)


def _remove(records: list[str]) -> int:
    """Remove what an earlier replay left to be uploaded, since `wandb sync` of both may end with the older; how many
    were there."""
    there = [Path(one) for one in records if Path(one).is_dir()]
    for one in there:
        shutil.rmtree(one)
    return len(there)


def _started(log: Path) -> float:
    """When the run began; of a log that cannot be read, which whoever reads it will say, the beginning of time."""
    try:
        return read.state(log)["started"]
    except (DataError, KeyError, OSError):
        return 0.0


def _identity(log: Path) -> RunIdentity:
    held = read.identity(log)
    names = {field.name for field in fields(RunIdentity)} - {"id", "anew"}
    given: dict[str, Any] = {name: value for name, value in held.items() if name in names}
    if not held:
        config = _yaml(log / "config.yaml")
        tracking = config.get("tracking") or {}
        given = {"group": tracking.get("group") or config.get("name"), "name": log.parent.name}
    given["tags"] = tuple(given.get("tags", ()))
    return RunIdentity(**given, id=RunLog(log).id, anew=True)


def _config(log: Path) -> dict[str, Any]:
    """What the run was given, with `derived` beside it, as a Tracker tells it."""
    config = _yaml(log / "config.yaml")
    surroundings = json.loads((log / "environment.json").read_text(encoding="utf-8"))
    return config | {"derived": config.get("derived", {}) | read.derived(log) | surroundings}


def _yaml(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
