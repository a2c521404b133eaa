"""Judging a model while it trains: nDCG@10 of a bounded dev sample by exact search, and keeping the best weights."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.models.checkpoint import save_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.models.precision import Precision
from colbert_lab.run import Run, rank
from colbert_lab.scoring.maxsim import maxsim_ragged
from colbert_lab.tracking.tracker import Tracker

METRICS = ("ndcg_10", "mrr_10", "recall_50")


@dataclass(frozen=True)
class DevSample:
    """Queries with judgements and a pool of documents to find theirs in, all by id."""

    collection: Collection
    qrels: Qrels
    documents: tuple[str, ...]

    @classmethod
    def draw(cls, collection: Collection, qrels: Qrels, queries: int, documents: int, seed: int) -> "DevSample":
        """At most `queries` queries that have a positive, in a seeded order, and a pool of at most `documents`.

        The pool holds all judged documents of the chosen queries, then others of the corpus. A query whose judged
        documents would not fit any more is left out; the first one always fits.
        """
        generator = np.random.default_rng([seed, 7])
        positive = sorted(q for q, grades in qrels.items() if any(g > 0 for g in grades.values()))
        chosen: list[str] = []
        pool: dict[str, None] = {}
        for query in generator.permutation(positive).tolist():
            judged = [d for d in sorted(qrels[query]) if d not in pool and d in collection.corpus]
            if len(chosen) < queries and (not chosen or len(pool) + len(judged) <= documents):
                chosen.append(query)
                pool |= dict.fromkeys(judged)
        for row in generator.permutation(len(collection.corpus)):
            if len(pool) >= documents:
                break
            pool.setdefault(collection.corpus.id(int(row)))
        return cls(collection, {q: qrels[q] for q in sorted(chosen)}, tuple(pool))

    def search(self, model: ColBERT, precision: Precision, k: int = 100) -> Run:
        """Exact MaxSim of every query against the pool."""
        queries = encode(model, self.collection.queries.get(list(self.qrels)), "query", precision).embeddings
        documents = encode(model, self.collection.corpus.get(self.documents), "document", precision).embeddings
        scores = maxsim_ragged(queries, documents, model.similarity).numpy()
        hits = {q: rank(self.documents, row).cut(k) for q, row in zip(self.qrels, scores)}
        return Run(hits, depth=k)

    def judge(self, model: ColBERT, precision: Precision) -> dict[str, float]:
        """The dev metrics of a model, by name."""
        run = self.search(model, precision)
        return evaluate(run, self.qrels, METRICS, collection_size=len(self.documents)).means


class DevEvaluation(pl.Callback):
    """Judge every `every` steps, at the start and at the end; keep the best model's weights in `directory`."""

    def __init__(self, sample: DevSample, every: int, directory: Path, precision: Precision, tracker: Tracker):
        self._sample, self._every, self._directory = sample, every, directory
        self._precision, self._tracker = precision, tracker
        self.best = {"ndcg_10": float("-inf"), "step": -1}
        self._judged_at = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The start is judged too: training that only hurts exports the start."""
        if trainer.global_step == 0:
            self.judge(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        """Judge when a multiple of `every` optimiser steps is done, once."""
        step = trainer.global_step
        if step != self._judged_at and (step % self._every == 0 or step == trainer.max_steps) and step > 0:
            self.judge(trainer, pl_module)

    def judge(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Judge the model as it is and keep its weights where it is the best so far."""
        start, step = time.perf_counter(), trainer.global_step
        means = self._sample.judge(module.model, self._precision)
        self._judged_at = step
        values = {f"val/{name}": value for name, value in means.items()}
        self._tracker.log({**values, "val/seconds": time.perf_counter() - start}, step)
        if means["ndcg_10"] > self.best["ndcg_10"]:
            self.best = {"ndcg_10": means["ndcg_10"], "step": step}
            keep_weights(module.model, self._directory)

    def state_dict(self) -> dict:
        """The best so far, for a resumed run."""
        return {"best": dict(self.best), "judged_at": self._judged_at}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from a checkpoint."""
        self.best, self._judged_at = dict(state_dict["best"]), state_dict["judged_at"]


def keep_weights(model: ColBERT, directory: Path) -> None:
    """Write a checkpoint in place of the one in `directory`, which is whole at any moment or absent."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with torch.no_grad():
        save_model(model, fresh)
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)
