"""The toy collection prepared, tiny models on it, and a fit with small steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from colbert_lab.data.beir import BeirFolder
from colbert_lab.data.collection import Collection
from colbert_lab.data.qrels_examples import QrelsExamples
from colbert_lab.data.source import prepare
from colbert_lab.losses.contrastive import InBatch, NWay
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.build import build_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.cross_encoder import CrossEncoder
from colbert_lab.models.projection import RandomProjection
from colbert_lab.text.contract import Contract
from colbert_lab.tracking.read import history
from colbert_lab.tracking.tracker import RunIdentity, Tracker
from colbert_lab.training.batches import BatchStream, Collate
from colbert_lab.training.dev import DevSample
from colbert_lab.training.fit import Training, fit
from colbert_lab.training.pairwise import PairwiseModule
from colbert_lab.training.schedule import Linear

CONTRACT = Contract(query_length=16, document_length=32)


@pytest.fixture(scope="session")
def collection(tmp_path_factory, toy_folder: Path) -> Collection:
    return prepare(BeirFolder(str(toy_folder)), tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def examples(collection: Collection) -> QrelsExamples:
    return QrelsExamples(collection, collection.qrels("train"), negatives="random")


@pytest.fixture(scope="session")
def sample(collection: Collection) -> DevSample:
    return DevSample.draw(collection, collection.qrels("dev"), 5, 20, seed=0)


@pytest.fixture
def tiny_model(tiny_backbone: Path) -> ColBERT:
    """The same weights every time, dropout of 0.1 on while it trains."""
    return build_model(Backbone(str(tiny_backbone)), CONTRACT, RandomProjection(16), "cosine", 0, sample=None)


@pytest.fixture
def tiny_cross_encoder(tiny_backbone: Path) -> CrossEncoder:
    """The same weights every time, dropout of 0.1 on while it trains."""
    return CrossEncoder.from_pretrained(str(tiny_backbone), max_length=48, seed=0)


@pytest.fixture
def fit_with() -> Callable:
    """fit_with(work, module, stream, dev, **plan) -> (the curves, what fit returned); the log lies beside `work`."""

    def run(work: Path, module, stream, dev, **plan):
        work.mkdir(parents=True, exist_ok=True)
        plan = Training(**{"max_steps": 12, "precision": "fp32", "log_every": 2, "checkpoint_every": 3, **plan})
        with Tracker.start(work.parent / "log", RunIdentity(), {}, []) as tracker:
            best = fit(module, stream, dev, plan, work, tracker)
        return history(work.parent / "log"), best

    return run


@pytest.fixture
def fitted(tiny_backbone: Path, examples: QrelsExamples, sample: DevSample) -> Callable:
    """fitted(work, dev=..., lr=..., **plan) -> (module, what fit returned); the log lies beside `work`."""

    def run(work: Path, dev=sample, lr=1e-2, seed=0, wrap=None, loss=None, layers=None, **plan):
        work.mkdir(parents=True, exist_ok=True)
        torch.seed()  # what was drawn before must not matter
        backbone = Backbone(str(tiny_backbone), layers=layers)
        model = build_model(backbone, CONTRACT, RandomProjection(16), "cosine", 0, sample=None)
        plan = Training(
            **{
                "max_steps": 12,
                "batch_queries": 4,
                "negatives": 2,
                "precision": "fp32",
                "log_every": 2,
                "judge_every": 4,
                "checkpoint_every": 3,
                **plan,
            }
        )
        collate = Collate(model.tokenizer, plan.document_length)
        stream = BatchStream(examples, collate, plan.batch_queries, plan.negatives, seed)
        loss = WeightedLoss({"in_batch": loss} if loss else {"nway": NWay(), "in_batch": InBatch()})
        module = PairwiseModule(
            model, loss, lambda weights: torch.optim.AdamW(weights, lr=lr), Linear().factor(plan.max_steps), seed
        )
        with Tracker.start(work.parent / "log", RunIdentity(), {}, []) as tracker:
            return module, fit(module, stream if wrap is None else wrap(stream), dev, plan, work, tracker)

    return run
