"""What tracking costs a training step: a bare one, one with figures, with the local log, and with W&B offline as well.

    python scripts/bench_tracking.py                       the embedded backbone on made-up texts; prints a table
    python scripts/bench_tracking.py --steps 300 --queries 16

One training of Lightning's; each step is taken in one of four ways, in turns, so that a machine's moods meet all
alike. "nothing" is the bare step; with "figures" the module computes what is for the log alone (the loss as numbers,
margins, scores by kind), and nobody hears of it; the two others log it as well, at every step, which is the dearest way
(train.log_every is 10 by default). What a step takes over the bare one before it is the whole cost, but for what W&B's
own process takes from steps that are not its own. The time in the log's own calls, the gradient norm among them, is the
steadier figure where other processes share the machine. On a GPU each step is waited for, so that none pays for
another: what a log costs by waiting itself is seen only as far as the step is longer for it.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from colbert_lab.data.examples import Example
from colbert_lab.losses.pairwise import PairwiseSoftmax
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.backbone import EMBEDDED, Backbone
from colbert_lab.models.build import build_model
from colbert_lab.models.projection import RandomProjection
from colbert_lab.progress import progress
from colbert_lab.text.contract import Contract
from colbert_lab.tracking.tracker import RunIdentity, Tracker
from colbert_lab.tracking.wandb import WandbSink
from colbert_lab.training.batches import Collate, TrainingBatch
from colbert_lab.training.callbacks import TrainLog
from colbert_lab.training.pairwise import PairwiseModule


class Bareable(PairwiseModule):
    """A PairwiseModule that while it is `bare` computes nothing for a log."""

    bare = False

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> torch.Tensor:
        """The loss of one batch."""
        if not self.bare:
            return super().training_step(batch, batch_idx)
        torch.manual_seed(batch.index)
        scores = self.scores(batch)
        return self.loss(scores.values, batch.width, scores.excluded, batch.targets, scores.offset)["loss"]


class InTurns(pl.Callback):
    """Lets another of the logs (None: no log at all) watch every step; the first way is the module's bare one.

    `seconds`: what each step took from the start of its batch to its end; `inside`: what of it the log's own calls did.
    """

    def __init__(self, logs: dict[str, TrainLog | None]):
        self._logs = logs
        self.seconds: dict[str, list[float]] = {name: [] for name in logs}
        self.inside: dict[str, list[float]] = {name: [] for name in logs}
        self._step = -1

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Bareable, *given) -> None:
        """The clock starts before the log's own work."""
        self._step += 1
        turn = self._step % len(self._logs)
        self._name, pl_module.bare = list(self._logs)[turn], turn == 0
        self._started, self._within = _now(), 0.0
        self._call("on_train_batch_start", trainer, pl_module, *given)

    def on_before_optimizer_step(self, *given) -> None:
        """The gradient norm is the log's work too."""
        self._call("on_before_optimizer_step", *given)

    def on_train_batch_end(self, *given) -> None:
        """The clock stops after it."""
        self._call("on_train_batch_end", *given)
        self.seconds[self._name].append(_now() - self._started)
        self.inside[self._name].append(self._within)

    def _call(self, hook: str, *given) -> None:
        start = time.perf_counter()
        if (log := self._logs[self._name]) is not None:
            getattr(log, hook)(*given)
        self._within += time.perf_counter() - start


def _now() -> float:
    """Seconds, once the device has done all that it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="of the training; a quarter for each way")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--precision", default="32-true", help="Lightning's: 32-true, bf16-mixed, ...")
    parser.add_argument("--words", type=int, default=80, help="of a document")
    options = parser.parse_args()

    contract = Contract(query_length=32, document_length=128)
    model = build_model(Backbone(EMBEDDED), contract, RandomProjection(128), "cosine", 0, sample=None)
    loss = WeightedLoss({"softmax": PairwiseSoftmax()})
    module = Bareable(model, loss, lambda weights: torch.optim.AdamW(weights, lr=1e-5), lambda step: 1.0, 0)
    batches = made_up(options, Collate(model.tokenizer))
    with tempfile.TemporaryDirectory() as folder, progress("", None, "steps", quiet=True) as bar:
        trackers: dict[str, Tracker | None] = {"nothing": None, "figures": None}
        for name, sink in (("local log", None), ("local log, W&B offline", WandbSink("offline"))):
            trackers[name] = Tracker.start(Path(folder) / name, RunIdentity(name=name), {}, [], sink)
        logs = {name: tracker and TrainLog(1, tracker, bar) for name, tracker in trackers.items()}
        turns = InTurns(logs)
        trainer = pl.Trainer(
            max_steps=options.steps,
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            precision=options.precision,
            callbacks=[turns],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, DataLoader(batches, batch_size=None))
        for tracker in filter(None, trackers.values()):
            tracker.finish()
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(f"{options.steps} steps of {options.queries} queries, {options.precision}, {device}; logged at every step")
    print(f"{'':<24} {'step, ms':>9} {'over nothing':>13} {'share':>7} {'in its calls':>13} {'share':>7}")
    warm = {name: taken[2:] for name, taken in turns.seconds.items()}
    base = statistics.median(warm["nothing"])
    # Each step beside the bare one just before it: the difference of neighbours is steadier than of medians.
    for name, taken in warm.items():
        over = statistics.median(ours - plain for ours, plain in zip(taken, warm["nothing"]))
        inside = statistics.median(turns.inside[name][2:])
        print(
            f"{name:<24} {statistics.median(taken) * 1e3:9.1f} {over * 1e3:13.2f} {over / base:7.2%} "
            f"{inside * 1e3:13.2f} {inside / base:7.2%}"
        )


def made_up(options: argparse.Namespace, collate: Collate) -> list:
    """Batches of texts of random words of the vocabulary, all of one length."""
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("micro", "hyper", "sub", "inter") for b in ("flow", "scope", "graph", "stance", "act")]

    def text(count: int) -> str:
        return " ".join(rng.choice(words, count))

    def example() -> Example:
        documents = tuple(text(options.words) for _ in range(1 + options.negatives))
        return Example(text(8), documents, None, None, None, frozenset())

    return [collate(i, [example() for _ in range(options.queries)]) for i in range(options.steps)]


if __name__ == "__main__":
    main()
