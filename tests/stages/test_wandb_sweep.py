"""scripts/wandb_sweep.yaml: what an agent would run for a set of parameters is a command line that we take."""

from pathlib import Path

import pytest
import yaml

from colbert_lab.stages.agent import agents_overrides
from colbert_lab.stages.check import check
from colbert_lab.stages.launch import RUNTIME, conf_dir
from colbert_lab.stages.options import Options
from colbert_lab.stages.overrides import explain
from colbert_lab.stages.sweeps.plan import composed

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = REPOSITORY / "scripts" / "wandb_sweep.yaml"


def sampled(parameters: dict, take: int) -> dict:
    """Values as W&B's server would send them: `take` chooses among them."""
    values = {}
    for key, given in parameters.items():
        values[key] = (
            given["values"][take % len(given["values"])] if "values" in given else (given["min"], given["max"])[take]
        )
    return values


def arguments(command: list[str], parameters: dict) -> list[str]:
    """The command as wandb's agent builds it, without what stands before the program's own arguments."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    flags = create_sweep_command_args({"args": {key: {"value": value} for key, value in parameters.items()}})
    filled = [part for one in command for part in (flags["args_no_hyphens"] if one == "${args_no_hyphens}" else [one])]
    assert filled[:3] == ["${env}", "python", "${program}"]
    return filled[3:]


@pytest.mark.parametrize("take", [0, 1])
def test_the_agents_command_composes_and_passes_the_check(take, monkeypatch):
    sweep = yaml.safe_load(FILE.read_text())
    assert (REPOSITORY / sweep["program"]).is_file()
    # What fitting writes into every run's summary.
    assert sweep["metric"] == {"name": "objective", "goal": "maximize"}
    parameters = sampled(sweep["parameters"], take)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    overrides = agents_overrides(conf_dir(), "train", arguments(sweep["command"], parameters))
    assert explain(conf_dir(), "train", overrides) == []
    cfg, choices = composed("train", overrides)
    check(cfg, conf_dir(), "train", choices=choices, runtime=RUNTIME, schema=Options)
    assert cfg.optim.lr == parameters["optim.lr"]
    assert choices["loss"] == parameters["loss"]
    assert cfg.seed == parameters["seed"]


def test_a_run_that_is_queued_again_keeps_what_the_sweep_chose(monkeypatch, capsys):
    whole = {
        "experiment": "pairwise",
        "optim.lr": 3e-5,
        "loss": "hinge",
        "seed": 1,
        "name": "pairwise-hinge",
        "run_dir": None,
        "optim": {"_target_": "torch.optim.AdamW", "lr": 3e-5},
        "overrides": ["loss=hinge", "seed=1"],
        "derived": {"git": {"commit": "abc"}},
    }
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    taken = agents_overrides(conf_dir(), "train", [f"{key}={value}" for key, value in whole.items()])
    assert taken == ["experiment=pairwise", "optim.lr=3e-05", "loss=hinge", "seed=1", "run_dir=null"]
    told = capsys.readouterr().err
    assert all(key in told for key in ("name", "optim", "overrides", "derived"))
    # A first start with a mistake is not a queued one: the mistake stays, to be told.
    assert agents_overrides(conf_dir(), "train", ["optim.lrr=1"]) == ["optim.lrr=1"]
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert agents_overrides(conf_dir(), "train", ["derived={}", "x=None"]) == ["derived={}", "x=None"]
