"""The configuration: every file composes, says what the signatures say, and a mistake is told before anything heavy."""

import os
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from colbert_lab.errors import ConfigError
from colbert_lab.stages.check import check, signature_problems
from colbert_lab.stages.launch import RUNTIME, VERBS, conf_dir
from colbert_lab.stages.options import Options

CONF = conf_dir()
REPOSITORY = Path(__file__).resolve().parent.parent
FILES = sorted(file.relative_to(CONF).with_suffix("").as_posix() for file in CONF.rglob("*.yaml"))
PRIMARY = [name for name in FILES if "/" not in name]
EXPERIMENTS = [name.partition("/")[2] for name in FILES if name.startswith("experiment/")]
CHOICES = [name for name in FILES if "/" in name and not name.startswith(("experiment/", "local/"))]
# A value for each ??? that some file leaves to its user.
GIVEN = {
    "backbone.name": "somewhere",
    "data.root": "somewhere",
    "data.name": "mine",
    "data.corpus.path": "somewhere",
    "data.queries.path": "somewhere",
    "data.qrels": "{test: {path: somewhere}}",
    "data.id": "beir/scifact",
    "examples.file": "somewhere",
    "examples.pools": "somewhere",
    "teacher.file": "somewhere",
    "benchmark.folders": "[somewhere]",
    "benchmark.root": "somewhere",
    "examples.id": "msmarco-passage/train/triples-small",
}


def composed(verb: str, *overrides: str, fill: bool = True):
    """A verb's configuration as `run_job` gets it, and Hydra's choices."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    if fill:
        for key, value in GIVEN.items():
            parent, _, leaf = key.rpartition(".")
            node = OmegaConf.select(cfg, parent)
            if node is not None and OmegaConf.is_missing(node, leaf):
                OmegaConf.update(cfg, key, yaml.safe_load(value))
    return cfg, choices


@cache
def groups(verb: str) -> set[str]:
    return set(composed(verb, fill=False)[1])


def checked(verb: str, *overrides: str) -> None:
    cfg, choices = composed(verb, *overrides)
    check(cfg, CONF, verb, choices=choices, runtime=RUNTIME, schema=Options)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def test_all_files_are_found():
    assert set(PRIMARY) == set(VERBS)
    assert len(EXPERIMENTS) >= 6
    assert len(CHOICES) >= 38
    assert all(overridden(experiment) <= groups("rounds") for experiment in EXPERIMENTS)


@pytest.mark.parametrize("verb", PRIMARY)
def test_every_verb_composes_and_passes_the_check(verb):
    checked(verb)


def overridden(experiment: str) -> set[str]:
    """The groups that an experiment chooses from."""
    defaults = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text()).get("defaults", [])
    return {key.removeprefix("override /") for entry in defaults for key in entry}


@pytest.mark.parametrize(
    ("experiment", "verb"),
    [(e, v) for e in EXPERIMENTS for v in ("train", "pipeline", "rounds") if overridden(e) <= groups(v)],
)
def test_every_experiment_composes_and_passes_the_check(experiment, verb):
    checked(verb, f"experiment={experiment}")


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_a_group_can_be_made(choice):
    group, _, option = choice.partition("/")
    verbs = [verb for verb in PRIMARY if group in groups(verb)]
    assert verbs, f"no verb has the group {group}"
    for verb in verbs:
        checked(verb, f"{group}={option}")


@pytest.mark.parametrize("choice", [*CHOICES, *PRIMARY])
def test_keys_and_signatures_are_the_same(choice):
    content = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
    content.pop("defaults", None)
    group = choice.partition("/")[0]
    if "/" in choice:
        assert content.get("_target_") or group in ("tracking", "systems") or choice == "probe/auto"
        content = {group: content}
    assert signature_problems(content, RUNTIME) == []


def depth(node) -> int:
    return 1 + max(map(depth, node.values()), default=0) if isinstance(node, dict) else 0


@pytest.mark.parametrize("verb", PRIMARY)
def test_no_key_lies_deeper_than_four(verb):
    cfg, _ = composed(verb)
    assert depth(OmegaConf.to_container(cfg, resolve=False)) <= 4


@pytest.mark.parametrize("verb", PRIMARY)
def test_the_plain_keys_have_the_defaults_of_their_types(verb):
    """Options documents the defaults: a YAML that says another would make the two disagree in silence."""
    cfg, _ = composed(verb, fill=False)
    defaults = asdict(Options())
    for name in ("seed", "root", "similarity", "lexical", "encode", "splits", "dev", "search", "rerank"):
        if name in cfg:
            given = OmegaConf.to_container(cfg)[name]
            expected = defaults[name]
            assert given == ({key: expected[key] for key in given} if isinstance(given, dict) else expected)


def test_several_mistakes_are_told_at_once_and_soon():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "experiments/train.py", "loss=hing", "optm.lr=1", "train.max_stpes=2"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    seconds = time.perf_counter() - start
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ConfigError: 3 problems in train" in done.stderr
    assert "did you mean 'hinge'?" in done.stderr
    assert "did you mean optim.lr=1?" in done.stderr
    assert "did you mean train.max_steps=2?" in done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < 30


def test_mistakes_in_values_are_told_together():
    cfg, choices = composed("pipeline", "train.clip=-1", "schedule.warmup=slow", "evaluate.test=z", "dev.queries=x")
    with pytest.raises(ConfigError) as caught:
        check(cfg, CONF, "pipeline", choices=choices, runtime=RUNTIME, schema=Options)
    text = str(caught.value)
    assert text.startswith("4 problems in pipeline")
    for told in (
        "clip=-1 must be at least 0",
        "warmup=slow must be a number",
        "one of randomisation, t",
        "dev.queries=",
    ):
        assert told in text
    assert "conf/schedule/linear.yaml" in text
