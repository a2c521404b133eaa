"""What a W&B sweep's agent says, as Hydra understands it (scripts/wandb_sweep.yaml has the command)."""

import os
from collections.abc import Sequence
from pathlib import Path

from colbert_lab.stages.making import say
from colbert_lab.stages.overrides import explain

# A run that was tracked has these in its configuration; no command line and no sweep file has them.
_OF_A_RUN = ("derived", "overrides", "verb", "choices")


def agents_overrides(config_dir: Path, verb: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of a run that an agent starts; any other's as they are.

    An agent writes None for null. A run that is queued again gets the whole configuration of its first start, nested
    nodes as Python's dictionaries (wandb issue 9143): of it what the sweep chose is kept, which W&B stores under dotted
    keys beside the nested ones (issue 4345) or as a plain choice, and what cannot be an override is left out, told.
    """
    if "WANDB_SWEEP_ID" not in os.environ:
        return list(overrides)
    pairs = [one.partition("=") for one in overrides]
    overrides = [f"{key}={'null' if value == 'None' else value}" if equals else key for key, equals, value in pairs]
    if not {key for key, _, _ in pairs} & set(_OF_A_RUN):
        return overrides
    kept: list[str] = []
    left: list[str] = []
    for one in overrides:
        key, _, value = one.partition("=")
        nested = value.startswith(("{", "[")) and "." not in key
        usable = key not in _OF_A_RUN and key != "name" and not nested and not explain(config_dir, verb, [one])
        (kept if usable else left).append(one)
    say(f"queued again by W&B, with a whole configuration: taken {' '.join(kept) or 'nothing'}; left out {_keys(left)}")
    return kept


def _keys(overrides: Sequence[str]) -> str:
    return ", ".join(one.partition("=")[0] for one in overrides) or "nothing"
