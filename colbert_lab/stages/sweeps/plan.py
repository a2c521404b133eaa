"""The plan of a sweep: its jobs, each composed and checked before any is started, and the folder that they lead to."""

import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf, open_dict

from colbert_lab.artifact import hash_json, write_atomic
from colbert_lab.errors import ConfigError
from colbert_lab.stages.check import check
from colbert_lab.stages.making import create
from colbert_lab.stages.options import Options
from colbert_lab.stages.overrides import explain, hydra_on, shown
from colbert_lab.stages.sweeps.kinds import Bayes, Grid, check_launcher
from colbert_lab.stages.table import PLAN

# Keys that say where and how a run is told, not what it computes.
_ASIDE = ("root", "name", "tracking", "threads", "overrides", "sweep")


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep: its number, its command line, the values of what is swept, a hash of its configuration."""

    number: int
    verb: str
    overrides: list[str]
    params: dict[str, Any]
    config: str

    @property
    def label(self) -> str:
        """The job in words: what it changes."""
        return " ".join(f"{key}={shown(value)}" for key, value in self.params.items()) or "(as configured)"

    def write(self, folder: Path) -> None:
        """Leave the job where the process that runs it finds it."""
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        write_atomic(_file(folder, self.number, "json"), json.dumps(asdict(self)).encode())

    def log(self, folder: Path) -> Path:
        """Where what the job prints is kept."""
        return _file(folder, self.number, "log")

    @classmethod
    def read(cls, folder: Path, number: int) -> "Job":
        """The job as it was written."""
        return cls(**json.loads(_file(folder, number, "json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Plan:
    """A sweep before it is run. `texts` are the overrides of all jobs by key, swept ones with their range of values.

    `base` is a hash of the configuration that all jobs share, which may change behind the same command line.
    """

    verb: str
    kind: Grid | Bayes
    texts: dict[str, Override]
    hydra: list[str]
    root: Path
    launcher: str | None = None
    default: dict[str, Any] = field(default_factory=dict)
    base: str = ""

    @property
    def swept(self) -> dict[str, Override]:
        """The overrides that have several values, by key."""
        return {key: one for key, one in self.texts.items() if one.is_sweep_override()}

    @cached_property
    def folder(self) -> Path:
        """Where the sweep is kept: the same for the same jobs, however many at once and wherever they run."""
        identity: list[Any] = [self.verb, sorted(one.input_line for one in self.texts.values())]
        if isinstance(self.kind, Bayes):
            # More trials of the same search go on in the same folder; of another configuration they would mislead it.
            options = {k: v for k, v in asdict(self.kind).items() if k not in ("jobs", "trials", "params")}
            identity += [options, self.base]
        return self.root / "sweeps" / f"{self.verb}-{hash_json(identity)[:10]}"

    @property
    def arguments(self) -> list[str]:
        """The sweep as a command line for Hydra's own multirun."""
        return ["-m", *(one.input_line for one in self.texts.values()), *self.hydra]

    @cached_property
    def jobs(self) -> list[Job]:
        """Every combination of the swept values, the last key fastest; ConfigError with the mistakes of all of them."""
        lists = [_values(one) if one.is_sweep_override() else [one.input_line] for one in self.texts.values()]
        problems: dict[str, None] = {}
        jobs = []
        for number, overrides in enumerate(itertools.product(*lists)):
            try:
                jobs.append(self.job(number, list(overrides)))
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
        if problems:
            raise ConfigError(list(problems), f"the sweep of {self.verb}")
        if len(jobs) > 1 and "run_dir" in self.texts and "run_dir" not in self.swept:
            raise ConfigError(f"run_dir is one place, but there are {len(jobs)} runs\ntry: without it, or root=DIR")
        return jobs

    def job(self, number: int, overrides: list[str]) -> Job:
        """The job with this command line; ConfigError where its configuration is wrong."""
        cfg, choices = composed(self.verb, overrides)
        _check(self.verb, cfg, choices, " ".join(overrides))
        params = {key: value_of(cfg, choices, key) for key in self.swept}
        return Job(number, self.verb, overrides, params, _hash(cfg))

    def write(self) -> None:
        """Leave in the folder what the summary at the end needs to know of the plan."""
        jobs = None if isinstance(self.kind, Bayes) else self.jobs
        record = {
            "verb": self.verb,
            "program": _program(self.verb),
            "kind": type(self.kind).__name__.lower(),
            "options": asdict(self.kind),
            "fixed": [one.input_line for key, one in self.texts.items() if key not in self.swept],
            "swept": {key: one.input_line.partition("=")[2] for key, one in self.swept.items()},
            "default": self.default,
            "jobs": jobs and len(jobs),
            "configs": jobs and [job.config for job in jobs],
        }
        write_atomic(self.folder / PLAN, json.dumps(record, indent=1, ensure_ascii=False).encode())


def plan_of(verb: str, overrides: Sequence[str]) -> Plan:
    """The plan that a command line comes to; ConfigError with every mistake in it."""
    from colbert_lab.stages.launch import conf_dir

    hydra = [one for one in overrides if one.lstrip("+~").startswith(("hydra.", "hydra/"))]
    chosen = [one for one in overrides if one.partition("=")[0] == "sweep"]
    options = [one for one in overrides if one.startswith("sweep.")]
    given = [one for one in overrides if one not in (*hydra, *chosen, *options)]
    launcher = next((one.partition("=")[2] for one in hydra if one.startswith("hydra/launcher=")), None)
    if launcher:
        check_launcher(launcher)
    if "sweep" not in composed(verb, [])[1]:
        raise ConfigError(f"{verb} makes no runs that could be swept over\ntry: without -m")
    # The command line's own ranges are no part of the file: `sweep` alone is composed here.
    own = [*(chosen or ["sweep=grid"]), *options]
    problems = explain(conf_dir(), verb, own)
    where = " ".join([verb, *overrides])
    if problems:
        raise ConfigError(problems, where)
    cfg, choices = composed(verb, own)
    node = OmegaConf.create({"sweep": cfg.sweep})
    check(node, conf_dir(), where, choices=choices)
    kind = create(cfg.sweep)
    texts = [f"{key}={_listed(value)}" for key, value in kind.params.items()] + given
    problems = explain(conf_dir(), verb, [*texts, *hydra])
    if problems:
        raise ConfigError(problems, where)
    with hydra_on(conf_dir()) as loader:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(texts)
    by_key = {one.get_key_element(): one for one in parsed}
    # Jobs are numbered by the keys' own order: the same sweep, typed in another, finds its jobs again.
    by_key = dict(sorted(by_key.items(), key=lambda entry: entry[0].lstrip("+~")))
    _check_ranges(kind, by_key, where)
    fixed = [one.input_line for one in by_key.values() if not one.is_sweep_override()]
    swept = {key: one for key, one in by_key.items() if one.is_sweep_override()}
    if explain(conf_dir(), verb, fixed):
        # What is swept has no default: a group that must be chosen.
        cfg, choices = composed(verb, fixed + [_first(one) for one in swept.values()])
        default = {}
    else:
        cfg, choices = composed(verb, fixed)
        default = {key: value_of(cfg, choices, key) for key in swept}
    root = Path(cfg.root).expanduser().absolute()
    return Plan(verb, kind, by_key, hydra, root, launcher, default, _hash(cfg, swept))


def composed(verb: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration of a command line, without Hydra's own part, and Hydra's choices by group."""
    from colbert_lab.stages.launch import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def value_of(cfg: DictConfig, choices: dict[str, Any], key: str) -> Any:
    """What `key` of an override stands at: the option chosen from a group, or the plain value; None where it is not."""
    key = key.lstrip("+~")
    if key in choices:
        return choices[key]
    value = OmegaConf.select(cfg, key, default=None)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _hash(cfg: DictConfig, without: Iterable[str] = ()) -> str:
    """A hash of what a configuration computes, the keys `without` left out."""
    content = {key: value for key, value in OmegaConf.to_container(cfg, resolve=False).items() if key not in _ASIDE}
    for key in without:
        *above, last = key.lstrip("+~").partition("@")[0].replace("/", ".").split(".")
        node: Any = content
        for name in above:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return hash_json(content)


def _first(one: Override) -> str:
    """The first of the overrides that a swept one stands for."""
    value = one.value()
    ranged = isinstance(value, IntervalSweep | RangeSweep)
    return f"{one.get_key_element()}={value.start if ranged else next(iter(one.sweep_string_iterator()))}"


def _check(verb: str, cfg: DictConfig, choices: dict[str, Any], where: str) -> None:
    from colbert_lab.stages.launch import RUNTIME, conf_dir

    check(cfg, conf_dir(), where, choices=choices, runtime=RUNTIME, schema=Options)


def _check_ranges(kind: Grid | Bayes, by_key: dict[str, Override], where: str) -> None:
    """Refuse a search over nothing, and a range without steps in a grid."""
    swept = {key: one for key, one in by_key.items() if one.is_sweep_override()}
    open_ended = [one.input_line for one in swept.values() if isinstance(one.value(), IntervalSweep)]
    if isinstance(kind, Bayes) and not swept:
        raise ConfigError("sweep=bayes has nothing to search\ntry: 'optim.lr=tag(log,interval(1e-6,1e-3))'", where)
    if isinstance(kind, Bayes) and "run_dir" in by_key:
        raise ConfigError("run_dir is one place, but a search has many trials\ntry: without it, or root=DIR", where)
    if isinstance(kind, Grid) and open_ended:
        raise ConfigError([f"{text} has no steps for a grid\ntry: sweep=bayes, or a,b,c" for text in open_ended], where)


def _values(one: Override) -> list[str]:
    """The overrides that a swept one stands for."""
    if isinstance(one.value(), RangeSweep) and one.value().shuffle:
        raise ConfigError(
            f"{one.input_line}: a shuffled range would be another sweep at every call\ntry: without shuffle"
        )
    return [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]


def _listed(value: Any) -> str:
    """Values of a file as the command line has them: text as it is, a list with commas."""
    if isinstance(value, list):
        return ",".join(shown(one) for one in value)
    return value if isinstance(value, str) else shown(value)


def _file(folder: Path, number: int, kind: str) -> Path:
    return folder / "jobs" / f"{number:03d}.{kind}"


def _program(verb: str) -> str:
    """How this process was called, for commands that are to be copied."""
    called = Path(sys.argv[0])
    return f"python {called}" if called.suffix == ".py" and called.stem == verb else f"colbert-lab {verb}"
