"""table: the runs of a sweep side by side, best first; and jobs.jsonl, the record of how its jobs ended."""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError, DataError

JOBS = "jobs.jsonl"
# Beside it, what the latest call of the sweep was to run.
PLAN = "plan.json"


def run(cfg: DictConfig) -> str:
    """The table of the sweep at cfg.sweep_dir."""
    from colbert_lab.stages.sweeps.summary import summarise
    from colbert_lab.stages.sweeps.text import text_of

    if cfg.sweep_dir is None:
        raise ConfigError("no sweep is given\ntry: sweep=<directory of a sweep>")
    return text_of(summarise(Path(cfg.sweep_dir).expanduser().absolute()))


def add_job(sweep: Path, record: dict[str, Any]) -> None:
    """Note how a job of a sweep ended; a later record of the same job takes the place of an earlier one.

    Several processes may, on several machines where the folder's file system has locks.
    """
    sweep.mkdir(parents=True, exist_ok=True)
    with (sweep / JOBS).open("ab+") as lines:
        fcntl.lockf(lines, fcntl.LOCK_EX)
        # A kill may have cut the last line short; on a line of its own it spoils nothing.
        if lines.seek(0, os.SEEK_END) and (lines.seek(-1, os.SEEK_END), lines.read())[1] != b"\n":
            lines.write(b"\n")
        lines.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def base_record(job: Any) -> dict[str, Any]:
    """What the record of a sweep's Job says of it, however it ended."""
    return {"number": job.number, "overrides": job.overrides, "params": job.params, "config": job.config}


def read_jobs(sweep: Path) -> list[dict[str, Any]]:
    """The latest record of every job, in the order in which jobs first ended; DataError where there is no sweep."""
    file = sweep / JOBS
    if not file.is_file():
        raise DataError(f"{sweep} is no sweep: it has no {JOBS}")
    latest: dict[Any, dict[str, Any]] = {}
    with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            # A line that a kill cut short belongs to a job that is run again.
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                number = record.get("number")
                latest[tuple(record["overrides"]) if number is None else number] = record
    return list(latest.values())


def current_jobs(sweep: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of `read_jobs` that are of the sweep as it was last called, and those of another configuration.

    A grid's folder is that of its command line: where conf/ changed behind it, a job counts once it has run again.
    """
    jobs, file = read_jobs(sweep), sweep / PLAN
    configs = json.loads(file.read_text(encoding="utf-8")).get("configs") if file.is_file() else None
    if configs is None:
        return jobs, []
    current = [job for job in jobs if job["config"] in configs[job["number"] : job["number"] + 1]]
    return current, [job for job in jobs if job not in current]
