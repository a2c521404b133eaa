"""One job of a sweep, in a process of its own: python -m colbert_lab.stages.sweeps.job FOLDER NUMBER PARENT"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colbert_lab.errors import LabError


def command(folder: Path, number: int, parent: int) -> list[str]:
    """The command that runs job `number` of the sweep in `folder` as a child of the process `parent`."""
    return [sys.executable, "-m", "colbert_lab.stages.sweeps.job", str(folder), str(number), str(parent)]


def noted(folder: Path, job: Any, run: Callable[[], Any]) -> bool:
    """Whether `run`, which returns an Outcome or None for a text, came to its end; noted among the sweep's jobs.

    An error is noted and told, and does not come out.
    """
    from colbert_lab.stages.table import add_job, base_record

    record = base_record(job) | {"pid": os.getpid()}
    try:
        outcome = run()
    except Exception as error:
        text = str(error) if isinstance(error, LabError) else traceback.format_exc()
        print(f"this job failed: {type(error).__name__}: {text}", file=sys.stderr)
        add_job(folder, record | {"state": "failed", "error": text})
        return False
    told = {"objective": None, "objective_name": None, "figures": {}, "artifact": None}
    if outcome is not None:
        told = {
            "objective": outcome.objective,
            "objective_name": outcome.objective_name,
            "figures": outcome.figures or {},
            "artifact": str(outcome.artifact.path),
        }
    add_job(folder, record | {"state": "finished", **told})
    return True


def _main(folder: str, number: str, parent: str) -> None:
    from colbert_lab.processes import die_with

    die_with(int(parent))
    from colbert_lab.stages.launch import run_sweep_job

    sys.exit(0 if run_sweep_job(Path(folder), int(number)) else 1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
