"""What ranks are given to do in tests: importable by name, since they are processes of their own."""

import os
import signal
import time
from pathlib import Path

import torch

from colbert_lab.errors import ConfigError
from colbert_lab.losses.contrastive import InBatch, NWay
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.backbone import Backbone, set_attention_dropout
from colbert_lab.models.build import build_model
from colbert_lab.models.projection import RandomProjection
from colbert_lab.text.contract import Contract
from colbert_lab.training import ranks
from colbert_lab.training.batches import BatchStream, Collate
from colbert_lab.training.fit import Training, fit
from colbert_lab.training.pairwise import PairwiseModule
from colbert_lab.training.schedule import Linear

CONTRACT = Contract(query_length=16, document_length=32)
PLAN = {"max_steps": 8, "batch_queries": 4, "negatives": 2, "precision": "fp32", "log_every": 2, "judge_every": 4}


def tell(tracker):
    """Each rank says what it is; only the first is heard."""
    tracker.summary({"rank": "first" if ranks.speaks() else "other", "size": ranks.size()})
    tracker.log({"train/loss": 0.5}, 3)
    return ranks.size(), torch.get_num_threads()


def fail(how, folder, tracker):
    """Rank 1 fails; rank 0 then waits for it in vain, or, where both do, fails a little later."""
    mark = Path(folder, "failing")
    if ranks.speaks():
        while how != "both" or not mark.exists():
            time.sleep(0.3)
        raise RuntimeError("Connection closed by peer")
    mark.touch()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "bug":
        raise KeyError("no such thing")
    raise ConfigError(["one thing", "another"], "what was given")


def tell_much(folder, tracker):
    """Rank 0 tells more than is heard at once; then rank 1 fails."""
    told = Path(folder, "told")
    if ranks.speaks():
        for step in range(100):
            tracker.log({"train/loss": 0.5}, step)
        told.touch()
        time.sleep(600)
    while not told.exists():
        time.sleep(0.01)
    raise ConfigError("one thing")


class Terminating:
    """A stream in which rank 1 is sent SIGTERM at one batch."""

    def __init__(self, stream, at):
        self._stream, self._at = stream, at

    def __getitem__(self, index):
        if index == self._at and not ranks.speaks():
            os.kill(os.getpid(), signal.SIGTERM)
        return self._stream[index]


def wait(folder, tracker):
    """Write down who is there, and stay."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def train(tiny_backbone, examples, dev, dropout, wrap, work, tracker):
    """A small fit, of whatever ranks there are; its batches are those of `wrap(stream)`."""
    model = build_model(Backbone(str(tiny_backbone)), CONTRACT, RandomProjection(16), "cosine", 0, sample=None)
    if not dropout:
        set_attention_dropout(model.backbone, 0.0)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    plan = Training(**PLAN, checkpoint_every=3)
    stream = BatchStream(examples, Collate(model.tokenizer), plan.batch_queries, plan.negatives, 0)
    module = PairwiseModule(
        model,
        WeightedLoss({"nway": NWay(), "in_batch": InBatch()}),
        lambda weights: torch.optim.AdamW(weights, lr=1e-2),
        Linear().factor(plan.max_steps),
        0,
    )
    return fit(module, stream if wrap is None else wrap(stream), dev, plan, work, tracker)
