"""scripts/wandb_sweep.yaml: what an agent would run for a set of parameters is a command line that we take."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from colbert_lab.stages import making
from colbert_lab.stages.agent import agents_overrides
from colbert_lab.stages.check import check
from colbert_lab.stages.identity import is_told
from colbert_lab.stages.launch import RUNTIME, conf_dir, run_job
from colbert_lab.stages.making import create
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


def test_an_agents_run_is_told_one_stage_of_a_verb(monkeypatch):
    stages = ("init", "bm25", "train", "index", "search", "evaluate")

    def told(verb):
        return [stage for stage in stages if is_told(OmegaConf.create({"verb": verb}), stage)]

    assert told("pipeline") == list(stages)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    # Each of the others would take the agent's one run from it; evaluate's objective is of the test split.
    assert told("pipeline") == ["train"]
    assert told("train") == ["train"]
    assert told("evaluate") == ["evaluate"]


class Told:
    """A sink that keeps what it hears; of all runs in this process."""

    required, online, heard = False, True, []

    def __init__(self, **_):
        pass

    def __getattr__(self, name):
        return lambda *given: Told.heard.append((name, given))


def test_training_under_an_agent_is_its_run_also_where_it_was_done_before(fresh_lab, monkeypatch):
    monkeypatch.setattr(Told, "heard", [])

    def run():
        cfg, given, choices = fresh_lab.compose("train", "tracking=offline")
        return run_job("train", cfg, given, choices)

    monkeypatch.setattr(making, "create", lambda node, **given: Told() if "mode" in node else create(node, **given))
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    objectives = []
    for agents in ("first", "second"):
        monkeypatch.setenv("WANDB_RUN_ID", agents)
        Told.heard.clear()
        made = run()
        opened = [given for name, given in Told.heard if name == "open"]
        assert [(one[1].job_type, one[1].id) for one in opened] == [("train", agents)]
        objectives += [
            given[0]["objective"] for name, given in Told.heard if name == "summary" and "objective" in given[0]
        ]
        assert Told.heard[-1] == ("close", (0,))
        # The log stays the first run's: by this name a replay finds it.
        assert (made.artifact.path / "log" / "wandb_id").read_text() == "first"
    assert len(objectives) >= 2
    assert set(objectives) == {made.objective}
