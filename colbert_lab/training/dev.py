"""Judging a model while it trains: nDCG@10 of a bounded dev sample, and keeping the best weights."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch

from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import Evaluation, evaluate, within_depth
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import Encoder, encode
from colbert_lab.models.precision import Precision
from colbert_lab.run import Run, rank
from colbert_lab.scoring.maxsim import maxsim_ragged
from colbert_lab.tracking.names import leaf
from colbert_lab.tracking.tracker import Tracker
from colbert_lab.training.interpolation import Interpolation
from colbert_lab.training.module import RankingModule

METRICS = ("ndcg_10", "mrr_10", "recall_50", "recall_100")


class Judge(Protocol):
    """What says how good a model is while it trains, by the judgements of one collection."""

    @property
    def collection(self) -> Collection:
        """Where the queries are from: its name is part of a metric's."""
        ...

    def judge(self, model: Any, precision: Precision) -> Evaluation:
        """Metrics by query, `ndcg_10` among them; a function of the model's weights, which it leaves as they are."""
        ...


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
        chosen: list[str] = []
        pool: dict[str, None] = {}
        for query in generator.permutation(_with_positive(qrels)).tolist():
            judged = [d for d in sorted(qrels[query]) if d not in pool and d in collection.corpus]
            if len(chosen) < queries and (not chosen or len(pool) + len(judged) <= documents):
                chosen.append(query)
                pool |= dict.fromkeys(judged)
        for row in generator.permutation(len(collection.corpus)):
            if len(pool) >= documents:
                break
            pool.setdefault(collection.corpus.id(int(row)))
        return cls(collection, {q: qrels[q] for q in sorted(chosen)}, tuple(pool))

    def search(self, model: Encoder, precision: Precision, k: int = 100) -> Run:
        """Exact MaxSim of every query against the pool."""
        queries = encode(model, self.collection.queries.get(list(self.qrels)), "query", precision).embeddings
        documents = encode(model, self.collection.corpus.get(self.documents), "document", precision).embeddings
        scores = maxsim_ragged(queries, documents, model.similarity).numpy()
        hits = {q: rank(self.documents, row).cut(k) for q, row in zip(self.qrels, scores)}
        return Run(hits, depth=k)

    def judge(self, model: Encoder, precision: Precision) -> Evaluation:
        """The dev metrics of a model."""
        run = self.search(model, precision)
        return evaluate(run, self.qrels, METRICS, collection_size=len(self.documents))


@dataclass(frozen=True)
class DevCandidates:
    """Queries with judgements and for each the documents that a run found, to be re-ranked by a cross-encoder.

    Nothing is searched for: a relevant document that the run did not bring stays unfound, and bounds every figure
    (`unfound` counts them). A query for which the run has nothing scores 0.
    """

    collection: Collection
    qrels: Qrels
    run: Run

    @classmethod
    def draw(cls, collection: Collection, qrels: Qrels, run: Run, queries: int, k: int, seed: int) -> "DevCandidates":
        """At most `queries` queries that have a positive, drawn under `seed`, and the best `k` of the run for each.

        Where the run has fewer than `k`, those are the candidates. ConfigError for a `k` below 10; DataError where the
        run has documents for none of the queries.
        """
        if k < 10:
            raise ConfigError(
                f"re-ranking is judged by nDCG@10, but k={k} candidates a query are asked for; at least 10"
            )
        drawn = np.random.default_rng([seed, 7]).permutation(_with_positive(qrels)).tolist()
        chosen = sorted(drawn[:queries])
        found = {query: run[query] for query in chosen if query in run}
        if not any(len(hits) for hits in found.values()):
            raise DataError(
                f"the run has documents for none of the {len(chosen)} dev queries, {chosen[:1]} for example; "
                "do it and the judgements belong together?"
            )
        found = {query: hits.cut(k) for query, hits in found.items()}
        return cls(collection, {query: qrels[query] for query in chosen}, Run(found, k))

    @property
    def unfound(self) -> int:
        """How many relevant documents, of all queries together, are not among the candidates."""
        return sum(
            len({d for d, grade in judged.items() if grade > 0}.difference(self.run[q].ids if q in self.run else ()))
            for q, judged in self.qrels.items()
        )

    def rerank(self, model: CrossEncoder, precision: Precision) -> Run:
        """The candidates of every query in the model's order."""
        texts = dict(zip(self.run, self.collection.queries.get(list(self.run))))
        pairs = [(query, document) for query, hits in self.run.items() for document in hits.ids]
        documents = self.collection.corpus.get([document for _, document in pairs])
        scores, _ = score_pairs(model, [texts[query] for query, _ in pairs], documents, precision)
        ends = np.cumsum([len(hits) for hits in self.run.values()])[:-1]
        parts = zip(self.run.items(), np.split(scores, ends))
        return Run({query: rank(hits.ids, part) for (query, hits), part in parts}, self.run.depth)

    def judge(self, model: CrossEncoder, precision: Precision) -> Evaluation:
        """The dev metrics of a model; those that look deeper than the candidates are left out."""
        return evaluate(self.rerank(model, precision), self.qrels, within_depth(METRICS, self.run.depth))


class DevEvaluation(pl.Callback):
    """Judge every `every` steps, at the start and at the end; keep the best model's weights in `directory`.

    `best` has its nDCG@10 and its step, `queries` its metrics query by query, which runs are compared by.
    """

    def __init__(
        self,
        sample: Judge,
        every: int,
        directory: Path,
        precision: Precision,
        tracker: Tracker,
        interpolation: Interpolation,
    ):
        self._sample, self._every, self._directory = sample, every, directory
        self._precision, self._tracker, self._interpolation = precision, tracker, interpolation
        self.best = {"ndcg_10": float("-inf"), "step": -1}
        self.queries: list[dict] = []
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

    def judge(self, trainer: pl.Trainer, module: RankingModule) -> None:
        """Judge the model, interpolated, and keep its weights where it is the best so far."""
        with self._interpolation.applied():
            self._judge(trainer.global_step, module)

    def _judge(self, step: int, module: RankingModule) -> None:
        start = time.perf_counter()
        judged = self._sample.judge(module.model, self._precision)
        means = judged.means
        self._judged_at = step
        values = {f"val/{name}": value for name, value in means.items()}
        # The same under the collection's own name, by which runs on several collections are told apart in one chart.
        values[f"val/{leaf(self._sample.collection.name)}_ndcg_10"] = means["ndcg_10"]
        self._tracker.log({**values, "val/seconds": time.perf_counter() - start}, step)
        if means["ndcg_10"] > self.best["ndcg_10"]:
            self.best = {"ndcg_10": means["ndcg_10"], "step": step}
            self.queries = judged.rows()
            keep_weights(module.export, self._directory)

    def state_dict(self) -> dict:
        """The best so far, for a resumed run."""
        return {"best": dict(self.best), "queries": self.queries, "judged_at": self._judged_at}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from a checkpoint."""
        self.best, self._judged_at = dict(state_dict["best"]), state_dict["judged_at"]
        self.queries = list(state_dict.get("queries", []))


def keep_weights(export: Callable[[Path], None], directory: Path) -> None:
    """Let `export` write a checkpoint, and put it in place of the one in `directory`.

    Killed at any moment, it leaves the old one or the new one, whole; `recover` finds it.
    """
    recover(directory)
    written, fresh, old = _beside(directory)
    written.mkdir(parents=True)
    with torch.no_grad():
        export(written)
    written.rename(fresh)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> None:
    """Finish or undo a `keep_weights` that was killed: what it kept, if anything, is in `directory` afterwards."""
    written, fresh, old = _beside(directory)
    if not directory.exists():
        whole = next((place for place in (fresh, old) if place.exists()), None)
        if whole is not None:
            whole.rename(directory)
    for place in (written, fresh, old):
        shutil.rmtree(place, ignore_errors=True)


def _beside(directory: Path) -> tuple[Path, Path, Path]:
    """Where a checkpoint is while it is written, when it is whole but not in its place, and when it is replaced."""
    return tuple(directory.with_name(f"{directory.name}.{state}") for state in ("writing", "new", "old"))


def _with_positive(qrels: Qrels) -> list[str]:
    return sorted(q for q, grades in qrels.items() if any(g > 0 for g in grades.values()))
