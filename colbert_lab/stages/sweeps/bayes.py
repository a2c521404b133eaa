"""Running a Bayesian search: a process a trial, whose log is read as it grows and which is stopped when it is weak."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

from colbert_lab.artifact import LOG
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.stages.making import say, say_once
from colbert_lab.stages.sweeps.grid import Told, ended_job, pool_of, start
from colbert_lab.stages.sweeps.plan import Job, Plan
from colbert_lab.stages.sweeps.pool import Pool
from colbert_lab.stages.sweeps.trials import Asked, Trials, space_of, texts_of
from colbert_lab.stages.table import add_job, base_record
from colbert_lab.tracking.log import STATE
from colbert_lab.tracking.read import history, is_settled, state

STUDY = "study.jsonl"
# Seconds between two looks at the trials' logs.
_LOOK = 1.0


@dataclass
class _Run:
    """A trial that runs: what was asked for, where its log is once that is known, how much of it was read."""

    asked: Asked
    since: float
    log: Path | None = None
    read: int = 0
    pruned_at: tuple[int, float] | None = None


def run_bayes(plan: Plan) -> None:
    """Run trials until there are as many as asked for, counting those of earlier calls."""
    if plan.kind.pruner != "none" and plan.verb not in ("train", "pipeline", "teacher"):
        raise ConfigError(
            f"a trial of {plan.verb} has no one curve of {plan.kind.follow} that it could be stopped by\n"
            "try: sweep.pruner=none"
        )
    space = space_of(plan.swept)
    _check_corners(plan, space)
    trials = Trials(plan.folder / STUDY, plan.kind, space, plan.default)
    total, left = plan.kind.trials, trials.left
    say(f"{plan.verb}: {total} trials, {total - left} of them done before, in {plan.folder}")
    told = Told(plan.folder, total, total - left, left)
    running: dict[int, _Run] = {}
    with pool_of(plan) as pool:
        while running or trials.left > 0:
            while pool.free and trials.left > 0:
                asked = trials.ask()
                overrides = _overrides(plan, asked.values)
                try:
                    job = plan.job(asked.place, overrides)
                except ConfigError as error:
                    _refused(plan, trials, asked, overrides, told, error)
                    continue
                running[job.number] = _Run(asked, time.time())
                start(pool, job, plan.folder, told)
            for ended in pool.wait(_LOOK):
                record = _ended(plan, trials, running.pop(ended.key.number), ended)
                told.ended(ended.key, record, ended.seconds)
            _look(plan, trials, pool, running)


def _check_corners(plan: Plan, space: Mapping[str, BaseDistribution]) -> None:
    """ConfigError with what is wrong at the ends of each range, or at each choice, the others at their first."""
    ends = {key: texts_of(distribution) for key, distribution in space.items()}
    first = {key: texts[0] for key, texts in ends.items()}
    problems: dict[str, None] = {}
    for key, texts in ends.items():
        for text in texts:
            try:
                plan.job(0, _overrides(plan, first | {key: text}))
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems), f"the sweep of {plan.verb}")


def _overrides(plan: Plan, values: Mapping[str, str]) -> list[str]:
    return [f"{key}={values[key]}" if key in values else one.input_line for key, one in plan.texts.items()]


def _refused(plan: Plan, trials: Trials, asked: Asked, overrides: list[str], told: Told, error: ConfigError) -> None:
    """Close a trial at values that do not go together, and note it as a failed job: the search goes on."""
    job = Job(asked.place, plan.verb, overrides, dict(asked.values), "")
    record = base_record(job) | {"state": "failed", "error": str(error), "seconds": 0.0}
    add_job(plan.folder, record)
    trials.tell(asked, None)
    told.ended(job, record, 0.0)


def _look(plan: Plan, trials: Trials, pool: Pool, running: dict[int, _Run]) -> None:
    """Report what the running trials have reached, and stop those that shall be."""
    for job, pid in pool.running.items():
        run = running[job.number]
        if run.pruned_at is None:
            run.log = run.log or _log_of(plan, pid, run.since)
            if run.log is not None and _report(plan, trials, run):
                pool.stop(job)


def _report(plan: Plan, trials: Trials, run: _Run) -> bool:
    """Report the new points of a trial's curve, each by itself; whether one of them says that it shall be stopped.

    Point by point, so that what is stopped depends on the values and not on how soon they were read.
    """
    points = _curve(run.log, plan.kind.follow, settled=True)
    while run.read < len(points):
        step, value = points[run.read]
        run.read += 1
        if trials.report(run.asked, step, value):
            run.pruned_at = (step, value)
            return True
    return False


def _ended(plan: Plan, trials: Trials, run: _Run, ended: Any) -> dict[str, Any]:
    """Close a trial whose process has ended, and note it among the jobs."""
    job: Job = ended.key
    record = ended_job(plan.folder, ended)
    if run.log is None:
        # It was quick, or its artifact was there: what it reached counts as if it had been watched.
        run.log = _log_of(plan, ended.pid, run.since) or (record.get("artifact") and Path(record["artifact"]) / LOG)
    if run.pruned_at is None and run.log is not None:
        _report(plan, trials, run)
        if plan.kind.pruner != "none" and not _curve(run.log, plan.kind.follow):
            say_once(f"sweep.follow={plan.kind.follow} is no curve of this run, so that nothing can be stopped early")
    if run.pruned_at is not None:
        trials.prune(run.asked)
        step, value = run.pruned_at
        instead = {"state": "pruned", "objective": value, "objective_name": plan.kind.follow, "step": step}
        return ended_job(plan.folder, ended, **instead, figures={}, artifact=None, error=None)
    value = record.get("objective") if record["state"] == "finished" else None
    if record["state"] == "finished" and value is None:
        record = ended_job(plan.folder, ended, state="failed", error=f"{job.label} ended without an objective")
    trials.tell(run.asked, value)
    return record


def _log_of(plan: Plan, pid: int, since: float) -> Path | None:
    """The log, with a curve to follow, of what the process `pid` makes or has made since then; None without one."""
    for file in plan.root.glob(f"*/*/log/{STATE}"):
        try:
            if file.stat().st_mtime < since:
                continue
            last = state(file.parent)["segments"][-1]
        except (OSError, DataError):
            continue  # renamed meanwhile
        if last["pid"] == pid and last["started"] >= since and _curve(file.parent, plan.kind.follow):
            return file.parent
    return None


def _curve(log: Path, name: str, settled: bool = False) -> list[tuple[int, float]]:
    """The curve `name` of the log, wherever it lies by now; empty where it has none yet.

    `settled`: and where a run that was killed and taken up has not said yet which of its points still count.
    """
    for place in (log, log.parent.with_name(log.parent.name.removesuffix(".partial")) / log.name):
        try:
            return [] if settled and not is_settled(place) else history(place).get(name, [])
        except (DataError, OSError):
            continue
    return []
