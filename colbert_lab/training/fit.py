"""Fitting a module with Lightning: the trainer's settings, resuming, and the best weights as the result."""

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment

from colbert_lab.models.precision import Precision, best_device, resolve_precision
from colbert_lab.progress import progress
from colbert_lab.tracking.tracker import Tracker
from colbert_lab.training import ranks
from colbert_lab.training.batches import BatchStream, TrainingData
from colbert_lab.training.callbacks import AtomicCheckpointIO, Checkpoints, Health, Terminable, TrainLog
from colbert_lab.training.dev import DevEvaluation, Judge, keep_weights, recover
from colbert_lab.training.interpolation import Interpolation
from colbert_lab.training.module import RankingModule


@dataclass(frozen=True)
class Training:
    """How long and how to train.

    max_steps: optimiser steps; 0 exports the start. batch_queries: queries a batch; `accumulate` batches make a step.
    negatives: negatives a query, drawn anew each epoch. document_length: cut training documents at so many ids, less
    than the model's own maximum, to train faster; null for the model's. attention_dropout: null for the backbone's; 0
    saves a sixth of a step on a CPU. interpolate: judge and export the weights this share of the way from the start's
    to the trained ones (`Interpolation`); 1 for the trained. clip: largest gradient norm, 0 for none. precision: of the
    forward pass; the weights are fp32. log_every, judge_every, checkpoint_every: in steps.
    """

    max_steps: int = 200
    batch_queries: int = 16
    accumulate: int = 1
    negatives: int = 1
    document_length: int | None = None
    attention_dropout: float | None = None
    interpolate: float = 1.0
    clip: float = 2.0
    precision: Precision = "auto"
    log_every: int = 10
    judge_every: int = 50
    checkpoint_every: int = 25
    # What says how training is watched and kept safe, and leaves no trace in the weights.
    unrecorded: ClassVar[tuple[str, ...]] = ("log_every", "checkpoint_every")

    @staticmethod
    def problems(**values) -> list[str]:
        """What is wrong with these values, in words; empty when nothing is."""
        least = {
            "max_steps": 0,
            "batch_queries": 1,
            "accumulate": 1,
            "negatives": 0,
            "log_every": 1,
            "judge_every": 1,
            "checkpoint_every": 1,
            "clip": 0,
        }
        found = [
            f"{name}={values[name]} must be at least {bound}"
            for name, bound in least.items()
            if isinstance(values.get(name), int | float) and values[name] < bound
        ]
        dropout, share = values.get("attention_dropout"), values.get("interpolate")
        if isinstance(dropout, int | float) and not 0 <= dropout < 1:
            found.append(f"attention_dropout={dropout} must be at least 0 and below 1")
        if isinstance(share, int | float) and not 0 < share <= 1:
            found.append(f"interpolate={share} must be above 0, which would export the start, and at most 1")
        return found


def fit(
    module: RankingModule, stream: BatchStream, dev: Judge | None, plan: Training, work: Path, tracker: Tracker
) -> dict[str, float]:
    """Train, or go on training; returns the best dev figures. `work/best` then holds the best checkpoint.

    Without a judge (`dev`) the last weights are the result. Of ranks that train together (`ranks.together`) each calls
    it, and rank 0 judges, keeps the best and returns. Raises TrainingError where the loss is no number.
    """
    if ranks.speaks():
        recover(work / "best")
    # Before a checkpoint is loaded: the weights are still the start's.
    interpolation = Interpolation(module.model, plan.interpolate)
    last = work / "last.ckpt"
    evaluation = None
    if dev is not None and ranks.speaks():
        evaluation = DevEvaluation(dev, plan.judge_every, work / "best", plan.precision, tracker, interpolation)
    data = TrainingData(stream, plan.max_steps * plan.accumulate)
    resumed = _step_of(last)
    tracker.resumed(resumed)
    with progress("train", plan.max_steps, "steps", done=max(0, resumed), quiet=not ranks.speaks()) as bar:
        callbacks = [
            TrainLog(plan.log_every, tracker, bar),
            Terminable(),
            Health(),
            evaluation,
            Checkpoints(last, plan.checkpoint_every),
        ]
        with warnings.catch_warnings(), _quiet("pytorch_lightning", "lightning_fabric"):
            # Advice for other set-ups: loader workers (a batch is tokenised in a millisecond), loggers, accelerators.
            warnings.simplefilter("ignore")
            trainer = _trainer(plan, [c for c in callbacks if c is not None], work)
            trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None)
    if not ranks.speaks():
        return {}
    if evaluation is None:
        with interpolation.applied():
            keep_weights(module.export, work / "best")
        return {}
    if not plan.max_steps:
        evaluation.judge(trainer, module)  # Lightning calls no callback where there is nothing to do
    tracker.table("val/per_query", evaluation.queries, by="ndcg_10")
    return evaluation.best


def collect(work: Path, directory: Path) -> None:
    """Move the best checkpoint of a finished fit into the artifact's directory and drop what was needed to go on.

    Can be killed and called again, and does nothing more where all is done. That the fit is finished must be on record
    elsewhere before: what tells it here is dropped.
    """
    done = work.with_name(work.name + ".done")
    if work.exists():
        recover(work / "best")
        for file in (work / "best").iterdir():
            target = directory / file.name
            target.unlink(missing_ok=True)
            os.link(file, target)
        work.rename(done)
    # Not ignoring errors: what is left here would be taken for content.
    if done.exists():
        shutil.rmtree(done)


def _trainer(plan: Training, callbacks: list[pl.Callback], work: Path) -> pl.Trainer:
    device = best_device()
    return pl.Trainer(
        max_steps=plan.max_steps,
        max_epochs=-1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=ranks.size(),
        **(_joined() if ranks.size() > 1 else {}),
        precision="bf16-mixed" if resolve_precision(plan.precision, device) == "bf16" else "32-true",
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=plan.clip or None,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=work,
    )


def _joined() -> dict[str, pl.strategies.Strategy]:
    """How processes train together: gradients are averaged, also those of models with weights that a loss passes by."""
    # Rank 0 judges meanwhile, for as long as that takes; that a rank is gone is seen by the process that started all.
    limit = timedelta(days=1)
    return {"strategy": pl.strategies.DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, timeout=limit)}


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    before = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it; -1 where there is none and training begins anew."""
    if not checkpoint.exists():
        return -1
    import torch

    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
