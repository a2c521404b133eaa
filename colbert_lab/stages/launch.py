"""launch: from a command line to a stage. Composes, checks everything, runs, and says what came of it.

python experiments/train.py loss=hinge seed=1           one run
python experiments/train.py -m loss=hinge,softmax       a sweep: one run a combination, a table at the end
"""

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

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
    "model_at",
    "dry_run",
    "teachers",
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
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # What reads well on a command line is not always Hydra's way to say it.
    arguments = [_meant(verb, argument) for argument in arguments]
    overrides = [a for a in arguments if "=" in a or a.startswith("~")]
    try:
        if not any(a.startswith(("--h", "-h", "--info", "--v")) for a in arguments):
            _explain(verb, overrides)
        sweep = _sweep_dir(verb, overrides) if {"-m", "--multirun"} & set(arguments) else None
        _hydra(verb, arguments, sweep)
        if sweep is not None and (sweep / "jobs.jsonl").exists():
            _end_of_sweep(sweep)
    except LabError as error:
        sys.exit(_told(error))


def run_job(verb: str, cfg, overrides: Sequence[str], choices: dict, sweep: Path | None = None) -> float | None:
    """Check one composed configuration and run its stage; prints the outcome and returns the objective."""
    from omegaconf import OmegaConf, open_dict

    from colbert_lab.stages.check import check
    from colbert_lab.stages.options import Options

    where = f"{verb} " + (" ".join(overrides) or "as configured")
    check(cfg, conf_dir(), where, choices=choices, runtime=RUNTIME, schema=Options)
    with open_dict(cfg):
        cfg.name = _named(cfg.name) or run_name(choices.get("experiment") or choices.get("data") or verb, overrides)
        cfg.overrides = list(overrides)
    OmegaConf.set_readonly(cfg, True)
    if cfg.get("threads"):
        import torch

        torch.set_num_threads(cfg.threads)
    outcome = importlib.import_module(f"colbert_lab.stages.{verb}").run(cfg)
    if isinstance(outcome, str):
        print(outcome)
        return None
    print(outcome.text)
    if sweep is not None:
        from colbert_lab.stages.table import add_job

        add_job(
            sweep,
            {
                "overrides": list(overrides),
                "state": "finished",
                "objective": outcome.objective,
                "objective_name": outcome.objective_name,
                "figures": outcome.figures or {},
                "artifact": str(outcome.artifact.path),
            },
        )
    return outcome.objective


def run_name(base: str, overrides: Sequence[str]) -> str:
    """A run's name: what it is based on, and what was changed, in at most 60 characters."""
    changed = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.split(".")[0] not in _UNNAMED:
            leaf = key.rpartition(".")[2]
            changed.append((leaf if "." in key else "") + Path(value).name)
    return _clean("-".join([base, *changed]))[:60].rstrip("-._")


def _meant(verb: str, argument: str) -> str:
    key, equals, value = argument.partition("=")
    if verb in ("search", "update", "fidelity") and key == "index" and equals:
        return f"index_dir={value}"  # index=exact would choose from the group
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


def _hydra(verb: str, arguments: list[str], sweep: Path | None) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig

    failed = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)
    def main(cfg):
        known = HydraConfig.get()
        overrides, choices = list(known.overrides.task), dict(known.runtime.choices)
        try:
            return run_job(verb, cfg, overrides, choices, sweep)
        except Exception as error:
            if sweep is None and isinstance(error, LabError):
                failed.append(_told(error))
                return None
            if sweep is None:
                raise
            # One job's failure must neither stop nor hide the others'.
            from colbert_lab.stages.table import add_job

            text = str(error) if isinstance(error, LabError) else traceback.format_exc()
            print(f"this job failed: {text}", file=sys.stderr)
            add_job(sweep, {"overrides": overrides, "state": "failed", "error": text})
            return None

    extra = [] if sweep is None else [f"hydra.sweep.dir='{sweep}'"]
    kept = sys.argv
    sys.argv = [kept[0], *arguments, *extra]
    try:
        main()
    finally:
        sys.argv = kept
    if failed:
        sys.exit(failed[0])


def _explain(verb: str, overrides: list[str]) -> None:
    from colbert_lab.stages.overrides import explain

    problems = explain(conf_dir(), verb, overrides)
    if problems:
        raise ConfigError(problems, f"{verb} {' '.join(overrides)}")


def _sweep_dir(verb: str, overrides: list[str]) -> Path:
    """Where a sweep's table is kept: the same for the same command, so that it can be taken up."""
    root = next((o.partition("=")[2] for o in overrides if o.startswith("root=")), "outputs")
    identity = hashlib.sha256("\n".join([verb, *sorted(overrides)]).encode()).hexdigest()[:10]
    return (Path(root).expanduser() / "sweeps" / f"{verb}-{identity}").absolute()


def _end_of_sweep(sweep: Path) -> None:
    from colbert_lab.stages.table import read_jobs, sweep_table

    print("\n" + sweep_table(sweep))
    if any(job["state"] != "finished" for job in read_jobs(sweep)):
        sys.exit(1)


def _told(error: LabError) -> int:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1
