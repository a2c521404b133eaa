"""Fitting inside an artifact's making: what decides its result, the training folder, its best weights as the content.

`log/fitted.json` says that training is over, and with which dev figures. It is written before anything of the training
folder is moved or dropped, and stays in the finished artifact: from the last step on, no kill makes training repeat.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from colbert_lab.artifact import Builder, write_atomic
from colbert_lab.data.examples import Examples
from colbert_lab.stages.making import plain
from colbert_lab.tracking.tracker import Tracker

FITTED = "fitted.json"
_SECTIONS = ("loss", "optim", "schedule", "train", "dev", "seed")


def decisive(cfg: DictConfig, *more: str) -> dict[str, Any]:
    """What of cfg decides what a training gives, for the key of what it makes: its sections and `more` of them.

    Left out is what a class of theirs names in `unrecorded`: how often is logged, and what else leaves no trace in the
    weights. With other values for these, what was trained is found again, and what was interrupted goes on.
    """
    return {name: _recorded(plain(cfg[name])) for name in (*more, *_SECTIONS)}


def fitted(builder: Builder, tracker: Tracker, examples: Examples, train: Callable[[Path], dict[str, float]]) -> None:
    """Call `train` with the folder to work in, unless it came to its end before, and collect the best weights.

    `train` returns the best dev figures, empty where there was no dev sample.
    """
    from colbert_lab.training.fit import collect

    folder, over = builder.path / "training", builder.log / FITTED
    if not over.exists():
        builder.log.joinpath("examples.json").write_text(_json(examples.describe()))
        folder.mkdir(exist_ok=True)
        write_atomic(over, _json(train(folder)).encode())
    best = json.loads(over.read_text(encoding="utf-8"))
    builder.counts.update(dev=best, examples=len(examples))
    collect(folder, builder.path)
    if best:
        tracker.summary({"objective": best["ndcg_10"], "val/best_step": best["step"]})


def _recorded(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    unrecorded = getattr(get_object(value["_target_"]), "unrecorded", ()) if "_target_" in value else ()
    return {key: _recorded(child) for key, child in value.items() if key not in unrecorded}


def _json(value) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
