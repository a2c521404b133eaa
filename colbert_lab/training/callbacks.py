"""What watches a training run: its log and progress bar, its checkpoints, its health."""

import math
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from colbert_lab.errors import TrainingError
from colbert_lab.progress import Progress
from colbert_lab.tracking.histogram import edges_of
from colbert_lab.tracking.tracker import Tracker
from colbert_lab.training.batches import RankingBatch
from colbert_lab.training.gather import gather_objects, rank_offset


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written beside their place, flushed to the disk, renamed: a kill leaves the old one or the new."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as handle:
            torch.save(checkpoint, handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)


class Checkpoints(pl.Callback):
    """Save everything needed to go on, every `every` optimiser steps; must be the last callback of all."""

    def __init__(self, path: Path, every: int):
        self._path, self._every = path, every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch: RankingBatch, batch_idx: int
    ) -> None:
        """Count the batch as done; save where one is due."""
        trainer.datamodule.batches_done = batch.index + 1
        accumulated = (batch.index + 1) % trainer.accumulate_grad_batches == 0
        if accumulated and trainer.global_step % self._every == 0:
            trainer.save_checkpoint(self._path)


class Terminable(pl.Callback):
    """Has a rank of several end at SIGTERM, as any kill would end it; the process that started all sees to the rest.

    Lightning's handler would wait for the other ranks in a collective, out of step with theirs.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After Lightning has set its handlers."""
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Health(pl.Callback):
    """End training at a loss that is no number, before the step is taken."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """TrainingError where the loss is NaN or infinite."""
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {float(loss)} at step {trainer.global_step}; the best model so far is kept\n"
                "try: a lower optim.lr, train.precision=fp32, or a smaller train.clip"
            )


class TrainLog(pl.Callback):
    """Log the mean of what happened every `every` optimiser steps, and drive a progress bar.

    The scores of positives and negatives are logged as histograms between the same edges, of `_KEPT` scores at most.
    Where several ranks train together it is of all of them, and every rank has this callback: what was added up is
    gathered when it is logged or saved.
    """

    _ADDED_UP = ("_seconds", "_padding", "_batches", "_queries", "_tokens", "_sums", "_positives", "_negatives")
    # What is beyond is left out: with other queries' documents as negatives a batch has thousands.
    _KEPT = 4096

    def __init__(self, every: int, tracker: Tracker, bar: Progress):
        self._every, self._tracker, self._bar = every, tracker, bar
        self._reset()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        """Start this batch's clock: the time of evaluations and checkpoints is not the training's."""
        self._started = time.perf_counter()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer) -> None:
        """Note the gradient norm before clipping."""
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm(grads))
        if not math.isfinite(self._norm):
            raise TrainingError(f"the gradient became {self._norm} at step {trainer.global_step}; try a lower optim.lr")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch: RankingBatch, batch_idx: int
    ) -> None:
        """Add the batch up; log when due."""
        self._seconds += time.perf_counter() - self._started
        self._batches += 1
        self._queries += batch.size
        self._tokens += batch.tokens
        self._padding += batch.padding_share
        for name, value in pl_module.last.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        for kept, scores in zip((self._positives, self._negatives), pl_module.last_scores):
            kept.extend(scores[: self._KEPT - len(kept)].tolist())
        if (batch.index + 1) % trainer.accumulate_grad_batches:
            return
        self._bar.advance(1)
        if trainer.global_step % self._every == 0 or trainer.global_step == trainer.max_steps:
            self._log(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What has been added up since the last line, for a resumed run."""
        return self._added_up()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint: rank 0 with what all had added up, the others with nothing."""
        self._reset()
        if not rank_offset(1):
            for name in self._ADDED_UP:
                setattr(self, name, state_dict[name])

    def _log(self, trainer: pl.Trainer) -> None:
        whole = SimpleNamespace(**self._added_up())
        values = {f"train/{name}": total / whole._batches for name, total in whole._sums.items()}
        values |= {
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/grad_norm": self._norm,
            "train/queries_per_s": whole._queries / whole._seconds,
            "train/tokens_per_s": whole._tokens / whole._seconds,
            "train/padding_share": whole._padding / whole._batches,
        }
        self._tracker.log(values, trainer.global_step)
        samples = {"train/positive_scores": whole._positives, "train/negative_scores": whole._negatives}
        edges = edges_of(*samples.values())
        for name, scores in samples.items():
            if scores:
                self._tracker.histogram(name, scores, trainer.global_step, edges=edges)
        self._bar.note(f"loss {values['train/loss']:.3f}, {values['train/queries_per_s']:.1f} queries/s")
        self._reset()

    def _added_up(self) -> dict[str, Any]:
        """What all ranks have added up, in rank order; the seconds are those of the first, during which all worked."""
        first, *others = gather_objects([{name: getattr(self, name) for name in self._ADDED_UP}])
        whole = dict(first)
        for other in others:
            for name in ("_padding", "_batches", "_queries", "_tokens"):
                whole[name] += other[name]
            # A resumed rank 0 has sums before the others have any.
            whole["_sums"] = {name: value + other["_sums"].get(name, 0.0) for name, value in whole["_sums"].items()}
            for name in ("_positives", "_negatives"):
                whole[name] = (whole[name] + other[name])[: self._KEPT]
        return whole

    def _reset(self) -> None:
        self._seconds = self._padding = 0.0
        self._batches = self._queries = self._tokens = 0
        self._sums: dict[str, float] = {}
        self._positives: list[float] = []
        self._negatives: list[float] = []
        self._norm = 0.0
