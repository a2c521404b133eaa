"""launch: from a command line to a stage. Composes, checks everything, runs, and says what came of it.

python experiments/train.py loss=hinge seed=1           one run
python experiments/train.py -m loss=hinge,softmax       a sweep: one run a combination, a table at the end
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: with spinning OpenMP threads a second busy process makes small products ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("PYTORCH_SUPPRESS_DEPRECATION_WARNINGS", "1")

from colbert_lab.errors import ConfigError, LabError

VERBS = {
    "pipeline": "train, index, search and evaluate in one command",
    "rounds": "denoised supervision: train, mine, score, distil, in rounds, in one command",
    "init": "make an untrained model",
    "train": "train a model",
    "index": "index a collection with a model",
    "update": "make another index of one: documents added, changed, deleted",
    "search": "search an index with a split's queries",
    "rerank": "re-rank a given run with a model",
    "evaluate": "judge runs",
    "fidelity": "measure how far indexes are from exact MaxSim",
    "teacher": "train a cross-encoder, or take a given one",
    "mine": "mine candidates from a run of the training queries",
    "score": "have a teacher score candidates",
    "tuples": "make training tuples of a teacher's scores",
    "compare": "judge systems of every paradigm on a collection or a suite, with tests and costs",
    "explain": "show why a document scored as it did",
    "describe": "a collection's statistics, and what its training and test texts share",
    "convert": "read a Stanford index directory, or write one",
    "verify": "read every file of an artifact and compare it with what was written",
    "table": "show the table of a sweep",
    "report": "write one HTML page of what runs came to",
    "runs": "list local runs with their headline numbers",
    "show": "show one run",
    "replay": "tell offline runs to W&B, once",
}
# What a stage passes to the objects of a node itself.
RUNTIME = {
    "*examples": {"collection", "qrels", "run", "negatives", "sampler"},
    "*optim": {"params"},
    # Read off models that others published; a model of ours needs none.
    "*text": {"skip_words", "query_prompt", "document_prompt"},
}
# Overrides that say where and under what name, not what: they do not show in a run's name.
_UNNAMED = (
    "root",
    "run_dir",
    "name",
    "tracking",
    "experiment",
    "seed",
    "data",
    "model",
    "index_dir",
    "run",
    "candidates",
    "split",
    "collection",
    "threads",
    "devices",
    "model_at",
    "dry_run",
    "teachers",
    "cross_encoder",
    "seeds",
    "scores",
    "export",
    "pylate",
    "source",
    "add",
    "delete",
    "artifact",
)


def conf_dir() -> Path:
    """The configuration: the clone's conf/ where this is a clone, else the one that ships inside the package."""
    package = Path(__file__).resolve().parent.parent
    clone = package.parent / "conf"
    return clone if (clone / "train.yaml").is_file() else package / "_conf"


def launch(verb: str, arguments: Sequence[str] | None = None) -> None:
    """Run a verb with Hydra's command line; ends the process with code 1 after an error, told without a traceback."""
    from colbert_lab.index import disk

    try:
        with disk.telling():
            _launch(verb, arguments)
    except LabError as error:
        sys.exit(_told(error))


def _launch(verb: str, arguments: Sequence[str] | None) -> None:
    from colbert_lab.stages.agent import agents_overrides

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # What reads well on a command line is not always Hydra's way to say it.
    arguments = [_meant(verb, argument) for argument in arguments]
    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    flags = [a for a in arguments if a not in overrides]
    # Naming a sweep asks for one.
    named = any(o.partition("=")[0] == "sweep" for o in overrides)
    if set(flags) <= {"-m", "--multirun"} and (flags or named):
        from colbert_lab.stages.sweeps.kinds import sweep

        code = sweep(verb, overrides)
        if code:
            sys.exit(code)
        return
    _refuse_ranks()
    overrides = agents_overrides(conf_dir(), verb, overrides)
    if not any(a.startswith(("--h", "-h", "--info", "--v")) for a in arguments):
        _explain(verb, overrides)
    failed = []
    _hydra(verb, [*flags, *overrides], lambda *job: _one(failed, verb, *job))
    if failed:
        sys.exit(failed[0])


def run_job(verb: str, cfg, overrides: Sequence[str], choices: dict, sweep: Path | None = None) -> Any:
    """Check one composed configuration, run its stage, print what it came to, and return its Outcome (None: a text).

    `sweep` is the folder of the sweep that it is a job of. A disk that is full or may not be written to is told as an
    ArtifactError.
    """
    from omegaconf import OmegaConf, open_dict

    from colbert_lab.index import disk
    from colbert_lab.stages.check import check
    from colbert_lab.stages.identity import identify
    from colbert_lab.stages.machine import take
    from colbert_lab.stages.options import Options

    where = f"{verb} " + (" ".join(overrides) or "as configured")
    check(cfg, conf_dir(), where, choices=choices, runtime=RUNTIME, schema=Options)
    with open_dict(cfg):
        base = choices.get("experiment") or choices.get("data") or verb
        cfg.name = _named(cfg.name) or run_name(base, overrides)
        cfg.overrides = list(overrides)
        identify(cfg, verb, base, sweep, choices)
        cfg.pop("sweep", None)  # says which runs there are, and nothing of one
    OmegaConf.set_readonly(cfg, True)
    take(cfg)
    with disk.telling(below=cfg.get("run_dir") or cfg.get("root") or "."):
        outcome = importlib.import_module(f"colbert_lab.stages.{verb}").run(cfg)
    if isinstance(outcome, str):
        _show(outcome)
        return None
    _show(outcome.text)
    return outcome


def run_sweep_job(folder: Path, number: int) -> bool:
    """Run job `number` of the sweep in `folder` in this process; whether it came to its end."""
    from colbert_lab.stages.sweeps.plan import Job

    job, ended = Job.read(folder, number), []
    _hydra(job.verb, job.overrides, lambda cfg, _, choices, __: ended.append(_of_a_sweep(folder, job, cfg, choices)))
    return all(ended)


def multirun(verb: str, arguments: Sequence[str], folder: Path) -> None:
    """Hydra's own multirun of the jobs that lie in `folder`, with the launcher that the arguments name.

    Those that are finished are passed over.
    """
    from colbert_lab.stages.sweeps.grid import finished_jobs
    from colbert_lab.stages.sweeps.plan import Job

    def run(cfg, overrides: list[str], choices: dict, number: int) -> None:
        job = Job.read(folder, number)
        if job.number not in finished_jobs(folder, [job]):
            _of_a_sweep(folder, job, cfg, choices)

    _hydra(verb, [*arguments, f"hydra.sweep.dir='{folder}'"], run)


def run_name(base: str, overrides: Sequence[str]) -> str:
    """A run's name: what it is based on, and what was changed, in at most 60 characters."""
    changed = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.split(".")[0] not in _UNNAMED:
            leaf = key.rpartition(".")[2]
            changed.append((leaf if "." in key else "") + Path(value).name)
    return _clean("-".join([base, *changed]))[:60].rstrip("-._")


def _refuse_ranks() -> None:
    """ConfigError where this is one of several processes that torchrun or its like has started for one command."""
    ranks = int(os.environ.get("WORLD_SIZE") or 1)
    if ranks > 1:
        raise ConfigError(
            f"a run starts its processes itself, but this is one of WORLD_SIZE={ranks}: each would do all of it\n"
            f"try: the same command without torchrun and, where it trains, with devices={ranks}; several runs side by "
            f"side: -m seed=0,1 sweep.jobs={ranks}"
        )


def _meant(verb: str, argument: str) -> str:
    key, equals, value = argument.partition("=")
    if verb in ("search", "update", "fidelity") and key == "index" and equals:
        return f"index_dir={value}"  # index=exact would choose from the group
    if verb == "compare" and key == "teacher" and equals:
        return f"cross_encoder={value}"  # teacher= is a group of other verbs
    if verb == "show" and not equals and not argument.startswith("-"):
        return f"of={argument}"
    if verb == "table" and key == "sweep" and equals:
        return f"sweep_dir={value}"
    if verb == "rounds" and key == "rounds" and value.replace(",", "").isdigit():
        return f"rounds.count={value}"
    return argument


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "_" for c in name)


def _named(name: str | None) -> str | None:
    """The name that was asked for; it becomes part of directories' names and a tag in run files, so not any will do."""
    if name and (name != _clean(name) or name.startswith(".")):
        raise ConfigError(f"name={name} may have letters, digits and - . _ only\ntry: name={_clean(name).lstrip('.')}")
    return name


def _hydra(verb: str, arguments: Sequence[str], run: Callable[[Any, list[str], dict, int], Any]) -> None:
    """Hydra's main with this command line; `run` gets the configuration, its overrides, Hydra's choices, a number."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)
    def main(cfg):
        # Hydra has read it; what the stage makes notes the command line as it was typed.
        sys.argv = kept
        known = HydraConfig.get()
        number = 0 if OmegaConf.is_missing(known.job, "num") else known.job.num
        return run(cfg, list(known.overrides.task), dict(known.runtime.choices), number)

    kept = sys.argv
    sys.argv = [kept[0], *arguments]
    try:
        main()
    finally:
        sys.argv = kept


def _one(failed: list[int], verb: str, cfg, overrides: list[str], choices: dict, number: int) -> float | None:
    """A run by itself; Hydra would show an error of ours with a traceback, so it is told here."""
    try:
        outcome = run_job(verb, cfg, overrides, choices)
    except LabError as error:
        failed.append(_told(error))
        return None
    return outcome and outcome.objective


def _of_a_sweep(folder: Path, job: Any, cfg, choices: dict) -> bool:
    from colbert_lab.artifact import waiting
    from colbert_lab.stages.sweeps.job import noted

    # As a person would run this job alone.
    sys.argv = ["colbert-lab", job.verb, *job.overrides]
    with waiting():
        return noted(folder, job, lambda: run_job(job.verb, cfg, job.overrides, choices, folder))


def _explain(verb: str, overrides: list[str]) -> None:
    from colbert_lab.stages.overrides import explain

    problems = explain(conf_dir(), verb, overrides)
    if problems:
        raise ConfigError(problems, f"{verb} {' '.join(overrides)}")


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # A reader that has seen enough (| head) is no error; what Python flushes at its end must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: LabError) -> int:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1
