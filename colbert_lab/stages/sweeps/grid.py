"""Running the jobs of a grid: those that are finished are passed over, one that fails stops no other."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colbert_lab.artifact import MANIFEST
from colbert_lab.processes import visible_gpus
from colbert_lab.stages.making import say
from colbert_lab.stages.sweeps.job import command
from colbert_lab.stages.sweeps.plan import Job, Plan
from colbert_lab.stages.sweeps.pool import Ended, Pool, slots
from colbert_lab.stages.table import JOBS, add_job, base_record, read_jobs

# How much of a job's log stands for an error that it did not tell itself.
_TAIL = 20


def run_grid(plan: Plan) -> None:
    """Run every job of the plan that is not finished."""
    done = finished_jobs(plan.folder, plan.jobs)
    todo = [job for job in plan.jobs if job.number not in done]
    pool = pool_of(plan)
    with pool:
        say(_head(plan, len(plan.jobs), len(done)))
        run_jobs(todo, pool, plan.folder, Told(plan.folder, len(plan.jobs), len(done), len(todo)))


def run_jobs(
    jobs: Sequence[Job],
    pool: Pool,
    folder: Path,
    told: "Told",
    command_of: Callable[[Path, int, int], Sequence[str]] = command,
) -> None:
    """Run these jobs, as many at once as the pool takes; each leaves a record, its own or what its end says."""
    waiting = list(jobs)
    while waiting or pool.running:
        while waiting and pool.free:
            start(pool, waiting.pop(0), folder, told, command_of)
        for ended in pool.wait(1.0):
            record = ended_job(folder, ended)
            told.ended(ended.key, record, ended.seconds)


def start(
    pool: Pool,
    job: Job,
    folder: Path,
    told: "Told",
    command_of: Callable[[Path, int, int], Sequence[str]] = command,
) -> None:
    """Start one job's process."""
    job.write(folder)
    pool.start(job, command_of(folder, job.number, os.getpid()), job.log(folder))
    told.started(job)


def ended_job(folder: Path, ended: Ended, **instead: Any) -> dict[str, Any]:
    """The record of the job behind a process that ended: its own with its seconds, else what can be said from outside.

    `instead` takes the place of what the job said (a pruned trial).
    """
    job: Job = ended.key
    own = [one for one in _records(folder) if one.get("number") == job.number and one.get("pid") == ended.pid]
    record = own[-1] if own else None
    if record is None or (ended.code and record["state"] == "finished"):
        record = base_record(job) | {"state": "failed", "error": _from_outside(job.log(folder), ended.code)}
    record = record | {"seconds": round(ended.seconds, 3)} | instead
    add_job(folder, record)
    return record


def finished_jobs(folder: Path, jobs: Sequence[Job]) -> set[int]:
    """The numbers of the jobs that finished under the very configuration, and whose artifact is still there."""
    configs = {job.number: job.config for job in jobs}
    return {
        record["number"]
        for record in _records(folder)
        if record["state"] == "finished"
        and configs.get(record["number"]) == record["config"]
        and record["artifact"]
        and (Path(record["artifact"]) / MANIFEST).is_file()
    }


def pool_of(plan: Plan) -> Pool:
    """The processes that this machine is for the plan."""
    return Pool(slots(plan.kind.jobs, visible_gpus(), os.cpu_count() or 1))


class Told:
    """Lines to the person who waits: jobs as they start and end, and about how long it will take."""

    def __init__(self, folder: Path, total: int, done: int, todo: int):
        self._folder, self._total, self._done, self._todo = folder, total, done, todo
        self._start, self._ended = time.monotonic(), 0
        self._width = len(str(total))

    def started(self, job: Job) -> None:
        """A job has started."""
        say(f"{self._place(job)} {job.label}: started, told in {job.log(self._folder)}")

    def ended(self, job: Job, record: dict[str, Any], seconds: float) -> None:
        """A job has ended."""
        self._ended += 1
        how = "FAILED" if record["state"] == "failed" else _headline(record)
        state = "stopped at " if record["state"] == "pruned" else ""
        left = self._todo - self._ended
        rate = (time.monotonic() - self._start) / self._ended
        rest = f"; {left} left, about {duration(rate * left)}" if left else ""
        say(f"{self._place(job)} {job.label}: {state}{how}, {duration(seconds)}{rest}")

    def _place(self, job: Job) -> str:
        return f"[{job.number + 1:{self._width}}/{self._total}]"


def duration(seconds: float) -> str:
    """Seconds for people: 41 s, 6 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _headline(record: dict[str, Any]) -> str:
    value = record.get("objective")
    return "done" if value is None else f"{record.get('objective_name') or 'objective'} {value:.4f}"


def _head(plan: Plan, total: int, done: int) -> str:
    before = f", {done} of them done before" if done else ""
    return f"{plan.verb}: {total} jobs{before}, in {plan.folder}"


def _records(folder: Path) -> list[dict[str, Any]]:
    return read_jobs(folder) if (folder / JOBS).is_file() else []


def _from_outside(log: Path, code: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    how = f"with code {code}" if code >= 0 else f"by signal {-code}"
    how += ", as when memory runs out" if code == -9 else ""
    return "\n".join([f"the process ended {how}; the end of {log}:", *("  " + line for line in lines[-_TAIL:])])
