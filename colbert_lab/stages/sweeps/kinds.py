"""sweep: many runs of a verb by one command, a process each; `-m`, or a file of conf/sweep.

python experiments/train.py -m loss=hinge,softmax optim.lr=1e-5,3e-5 seed=0,1 sweep.jobs=2
python experiments/train.py -m sweep=losses data=beir data.root=DIR
python experiments/train.py -m sweep=bayes data=beir data.root=DIR sweep.trials=30

The same command goes on where it was stopped, in the same folder. A mistake in any job is told before one starts.
"""

import contextlib
import fcntl
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from colbert_lab.errors import ConfigError
from colbert_lab.stages.making import say
from colbert_lab.stages.table import JOBS, add_job, base_record, read_jobs
from colbert_lab.tracking.sigterm import exit_on_sigterm


@dataclass(frozen=True)
class Grid:
    """Every combination of the values in `params` (key -> list, or text in Hydra's sweep syntax).

    jobs: processes at once; null for one a GPU, without GPUs one for every eight cores. Several at once share the
    cores: each gets its part of the threads, and sums in another number of threads may differ in their last bits.
    """

    params: dict[str, Any] = field(default_factory=dict)
    jobs: int | None = None

    @staticmethod
    def problems(**values: Any) -> list[str]:
        """What is wrong with these values, in words; empty when nothing is."""
        jobs = values.get("jobs")
        found = [] if jobs is None or jobs >= 1 else [f"jobs={jobs} must be at least 1, or null"]
        empty = [key for key, value in values.get("params", {}).items() if value in ([], "")]
        return found + [f"params: '{key}' has no values" for key in empty]


@dataclass(frozen=True)
class Bayes:
    """`trials` runs, each at values of `params` that the ones before make promising (TPE); weak ones are stopped.

    params: key -> list, or text: a,b; range(1,9,2); interval(0,1); int(interval(1,9)); tag(log,interval(1e-6,1e-3)).
    The first trial has the configuration's own values where all of them lie in `params`. startup: trials that must have
    ended, at random values but for the first, before the sampler learns. pruner: stops a trial whose best `follow` so
    far is below the median, or not in the best `percentile`, of the others' values at that step (Optuna's rule; that of
    Golovin et al., KDD 2017, takes their running means); not in its first `warmup` steps, and not before `after` trials
    came to their end. jobs: as for a grid; only one at once repeats bit for bit.
    """

    params: dict[str, Any] = field(default_factory=dict)
    trials: int = 20
    seed: int = 0
    startup: int = 5
    pruner: Literal["median", "percentile", "none"] = "median"
    percentile: float = 25.0
    warmup: int = 0
    after: int = 5
    follow: str = "val/ndcg_10"
    jobs: int | None = None

    @staticmethod
    def problems(**values: Any) -> list[str]:
        """What is wrong with these values, in words; empty when nothing is."""
        least = {"trials": 1, "startup": 1, "warmup": 0, "after": 1}
        found = [
            f"{name}={values[name]} must be at least {bound}"
            for name, bound in least.items()
            if values.get(name, bound) < bound
        ]
        if not 0 < values.get("percentile", 1) < 100:
            found.append(f"percentile={values['percentile']} must lie between 0 and 100")
        return found + Grid.problems(**{key: values[key] for key in ("params", "jobs") if key in values})


def sweep(verb: str, overrides: Sequence[str]) -> int:
    """Run the sweep that `overrides` of `verb` ask for, tell how it ended and return the exit code.

    0 where every job finished or was pruned, 1 where one failed. ConfigError, with all mistakes of all jobs, before
    anything is started.
    """
    from colbert_lab.stages.sweeps.plan import plan_of
    from colbert_lab.stages.sweeps.summary import conclude

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a sweep starts its jobs itself, one process each\ntry: the same command without torchrun")
    plan = plan_of(verb, overrides)
    with exit_on_sigterm(), _alone(plan.folder):
        plan.write()
        if plan.launcher:
            _on_a_cluster(plan)
        elif isinstance(plan.kind, Bayes):
            from colbert_lab.stages.sweeps.bayes import run_bayes

            run_bayes(plan)
        else:
            from colbert_lab.stages.sweeps.grid import run_grid

            run_grid(plan)
        text, failed = conclude(plan.folder)
    print(f"\n{text}", end="")
    return 1 if failed else 0


def check_launcher(choice: str) -> None:
    """Raise a ConfigError that says what to install, where Hydra's launcher `choice` is of a plugin that is missing."""
    if choice.startswith("submitit") and not _installed("hydra_plugins.hydra_submitit_launcher"):
        raise ConfigError(
            f'hydra/launcher={choice} needs the package hydra-submitit-launcher\ntry: pip install "colbert-lab[slurm]"'
        )


def _installed(module: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(module) is not None
    return False


def _on_a_cluster(plan: Any) -> None:
    """Hydra's own multirun with the launcher that was chosen; the jobs themselves note how they ended."""
    from colbert_lab.stages.launch import multirun
    from colbert_lab.stages.sweeps.grid import finished_jobs

    if isinstance(plan.kind, Bayes):
        raise ConfigError(
            f"sweep=bayes chooses each trial by the ones before and runs them on this machine, but "
            f"hydra/launcher={plan.launcher} is given\ntry: without it, or a grid"
        )
    done = finished_jobs(plan.folder, plan.jobs)
    todo = [job for job in plan.jobs if job.number not in done]
    for job in plan.jobs:
        job.write(plan.folder)
    before = f", {len(done)} of them done before" if done else ""
    say(f"{plan.verb}: {len(plan.jobs)} jobs by {plan.launcher}{before}, told in {plan.folder}")
    if not todo:
        return
    known = _by_number(plan.folder)
    ending = "it left no word"
    try:
        multirun(plan.verb, plan.arguments, plan.folder)
    except SystemExit as left:
        # Hydra's way to say that something failed: a job that was killed, of which the others' ends are no less worth.
        if left.code != 1:
            raise
        ending = f"it left no word, and {plan.launcher} failed, as told above"
    now = _by_number(plan.folder)
    for job in todo:
        if now.get(job.number) == known.get(job.number):
            add_job(plan.folder, base_record(job) | {"state": "failed", "error": f"the job has no end: {ending}"})


def _by_number(folder: Path) -> dict[int, Any]:
    """The record of each job that has ended; those of two calls differ in their process at least."""
    return {one["number"]: one for one in read_jobs(folder)} if (folder / JOBS).is_file() else {}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the sweep in `folder` against a second call; the system lets go of it when this process ends, however."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another process runs this very sweep, in {folder}; wait for it, or stop it") from None
        yield
