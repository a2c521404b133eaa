"""Who a run is: the group, job type, name and tags by which a dashboard finds it among thousands."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact
from colbert_lab.tracking.tracker import RunIdentity

# Verbs that make several artifacts, which belong together; the others' runs belong to the experiment they are part of.
TOGETHER = ("pipeline", "rounds", "compare")
# A W&B agent has one run a process: what of a verb's several stages that run is to be told, where it is not the verb's
# own. Of a pipeline the training: the last stage's objective would be a test metric.
_AGENTS = {"pipeline": "train"}
_STUDIES = Path(__file__).resolve().parent.parent.parent / "experiments" / "studies"
_ASKED = "**Asked.**"
# Groups that say where and how a run is told, not what it is.
_ASIDE = ("hydra", "sweep", "local", "tracking")


def identify(cfg: DictConfig, verb: str, base: str, sweep: Path | None, choices: Mapping[str, Any]) -> None:
    """Note the verb and Hydra's `choices`; fill in the group of its runs, unless one is given: the experiment, `base`;
    the sweep as a tag.

    Where one command makes many runs that belong together, its own name, which says what it changed, is their group.
    """
    cfg.verb, cfg.choices = verb, chosen(choices)
    if cfg.get("tracking") is None:
        return
    if cfg.tracking.group is None:
        cfg.tracking.group = cfg.name if verb in TOGETHER else base
    if sweep is not None:
        cfg.tracking.tags = [*cfg.tracking.tags, f"sweep:{sweep.name}"]


def chosen(choices: Mapping[str, Any]) -> dict[str, str]:
    """What was chosen from each group, by where it went: `loss@distil_loss` is `distil_loss`.

    A chosen file is many keys of the configuration and none of them its name, by which dashboards compare runs.
    """
    own = {group: option for group, option in choices.items() if group.partition("/")[0] not in _ASIDE}
    return {
        group.rpartition("@")[2].replace("/", "_").replace(".", "_"): str(option)
        for group, option in own.items()
        if option is not None
    }


def is_swept() -> bool:
    """Whether a W&B sweep's agent started this process, and chose its run."""
    return "WANDB_SWEEP_ID" in os.environ


def is_told(cfg: DictConfig, stage: str) -> bool:
    """Whether W&B is told of this stage: of each, but under an agent, whose one run they would take from each other,
    of one stage of the verb alone. The others keep their local logs."""
    verb = cfg.get("verb", stage)
    return not is_swept() or stage == _AGENTS.get(verb, verb)


def identity_of(cfg: DictConfig, stage: str, name: str, inputs: Mapping[str, Any]) -> RunIdentity:
    """The identity of the run in which `stage` makes the artifact called `name` of `inputs`.

    Its name is `<experiment>-<changed keys>-<what of several>-s<seed>`; its tags are cfg's, stage and benchmark.
    """
    tracking = cfg.tracking
    group = tracking.group or cfg.get("name")
    collection = inputs.get("collection")
    benchmark = (collection.manifest["config"]["name"],) if isinstance(collection, Artifact) else ()
    return RunIdentity(
        project=tracking.project,
        group=group,
        job_type=stage,
        name=_name(cfg.get("name"), name, cfg.get("seed")),
        tags=tuple(dict.fromkeys((*tracking.tags, stage, *benchmark))),
        notes=tracking.notes or _question(group, (cfg.get("choices") or {}).get("experiment")),
        # The agent's run is this one: the log has its name, by which a replay finds it.
        id=os.environ.get("WANDB_RUN_ID") if is_swept() and tracking.sink is not None and is_told(cfg, stage) else None,
    )


def _name(experiment: str | None, artifact: str, seed: int | None) -> str:
    """What an artifact is called, with the experiment's name in front and the seed at the end."""
    ending = "" if seed is None else f"-s{seed}"
    rest = artifact.removesuffix(ending) if ending else artifact
    if experiment and experiment in rest:
        rest = re.sub("-+", "-", rest.replace(experiment, "", 1)).strip("-")
    return "-".join(part for part in (experiment, rest) if part) + ending


def _question(*names: str | None) -> str | None:
    """What the study of the first of these names that has one asks: its paragraph **Asked.**, else its first.

    None where there is no such study, as in an installed package.
    """
    studies = {file.stem: file for file in _STUDIES.glob("*.md")}
    file = next((studies[name] for name in names if name in studies), None)
    if file is None:
        return None
    paragraphs = [" ".join(part.split()) for part in file.read_text(encoding="utf-8").split("\n\n")]
    told = [part for part in paragraphs if part and not part.startswith("#")]
    asked = next((part for part in told if part.startswith(_ASKED)), next(iter(told), None))
    return asked and asked.removeprefix(_ASKED).strip()
