"""Fitting inside an artifact's making: what decides its result, the training folder, its best weights as the content.

`log/fitted.json` says that training is over, and with which dev figures. It is written before anything of the training
folder is moved or dropped, and stays in the finished artifact: from the last step on, no kill makes training repeat.
"""

import json
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Builder, write_atomic
from colbert_lab.data.examples import Examples
from colbert_lab.stages.encoding import here
from colbert_lab.stages.making import plain, recorded
from colbert_lab.tracking.tracker import Tracker

FITTED = "fitted.json"
_SECTIONS = ("loss", "optim", "schedule", "train", "dev", "seed")


def decisive(cfg: DictConfig, *more: str) -> dict[str, Any]:
    """What of cfg decides what a training gives, for the key of what it makes: its sections and `more` of them.

    What leaves no trace in the weights, such as how often is logged, is left out (`recorded`). The precision is what it
    comes to on this machine: of two trainings with "auto" on two machines neither may be the other.
    """
    found = {name: recorded(plain(cfg[name])) for name in (*more, *_SECTIONS)}
    found["train"]["precision"] = here(cfg.train.precision)
    return found


def fitted(
    builder: Builder,
    tracker: Tracker,
    devices: int,
    examples: Examples,
    train: Callable[..., dict[str, float]],
    *given: Any,
) -> None:
    """Call train(*given, folder, tracker), unless it came to its end before, and collect the best weights.

    With several devices in as many processes at once: `train` and `given` must pickle. It returns the best dev figures,
    empty where there was no dev sample.
    """
    from colbert_lab.training.fit import collect
    from colbert_lab.training.ranks import together

    folder, over = builder.path / "training", builder.log / FITTED
    if not over.exists():
        builder.log.joinpath("examples.json").write_text(_json(examples.describe()))
        folder.mkdir(exist_ok=True)
        write_atomic(over, _json(together(devices, train, *given, folder, tracker=tracker)).encode())
    best = json.loads(over.read_text(encoding="utf-8"))
    builder.counts.update(dev=best, examples=len(examples))
    collect(folder, builder.path)
    if best:
        tracker.summary({"objective": best["ndcg_10"], "val/best_step": best["step"]})


def _json(value) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
