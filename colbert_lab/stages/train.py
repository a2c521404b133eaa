"""train: a start model and a collection to a trained model, the best by dev nDCG@10."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection, Qrels, holdout
from colbert_lab.data.examples import Examples
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.fitting import decisive, fitted
from colbert_lab.stages.init import start_model
from colbert_lab.stages.lexical import lexical_run
from colbert_lab.stages.making import Outcome, create, make, say_once
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Train; the objective is the best dev nDCG@10."""
    collection = open_collection(cfg)
    start = start_model(cfg, collection)
    model = train(cfg, collection, start, cfg.run_dir)
    best = model.manifest["counts"]["dev"]
    figures = {f"dev_{name}": value for name, value in best.items() if name != "step"}
    if not best:
        return Outcome(model, f"trained without a dev sample: {model.path}")
    text = f"best dev nDCG@10 {best['ndcg_10']:.4f} at step {best['step']}: {model.path}"
    return Outcome(model, text, best["ndcg_10"], "dev_ndcg_10", figures)


def train(cfg: DictConfig, collection: Collection, start: Artifact, path: str | None = None) -> Artifact:
    """The model trained from `start` under cfg's examples, loss, optimiser, schedule, train, dev and seed."""
    training, dev = split_queries(cfg, collection)
    examples, inputs = training_examples(cfg, collection, training)
    inputs |= {
        "collection": collection.artifact,
        "start": start,
        "examples": examples.fingerprint,
        "dev": hash_json(dev),
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        given = (cfg, collection, start, examples, dev)
        fitted(builder, tracker, cfg.devices, examples, _fit, *given)

    return make(cfg, "train", "model", f"{cfg.name}-s{cfg.seed}", inputs, decisive(cfg), work, path)


def split_queries(cfg: DictConfig, collection: Collection) -> tuple[Qrels, Qrels]:
    """Judgements to train on and to choose the best by: the dev split, or held-out training queries where it lacks.

    Held-out queries are never trained on. Empty dev judgements where cfg.dev.queries is 0.
    """
    training = collection.qrels(cfg.splits.train) if cfg.splits.train in collection.splits else {}
    if not cfg.dev.queries:
        return training, {}
    if cfg.splits.dev in collection.splits:
        return training, collection.qrels(cfg.splits.dev)
    if not training:
        raise DataError(
            f"{collection.name} has neither a split {cfg.splits.dev!r} nor {cfg.splits.train!r}, only "
            f"{', '.join(collection.splits) or 'none'}\ntry: splits.train=NAME splits.dev=NAME, or dev.queries=0"
        )
    rest, held = holdout(training, cfg.dev.holdout, cfg.seed)
    say_once(f"no split {cfg.splits.dev!r}: {len(held)} training queries are held out to choose the best model by")
    return rest, held


def training_examples(cfg: DictConfig, collection: Collection, qrels: Qrels) -> tuple[Examples, dict[str, Artifact]]:
    """The examples that cfg asks for, and the artifacts they are drawn from."""
    import inspect

    from hydra.utils import get_class

    inputs: dict[str, Artifact] = {}
    given: dict[str, Any] = {"collection": collection, "qrels": qrels}
    accepted = inspect.signature(get_class(cfg.examples._target_)).parameters
    if "pools" in accepted:
        pools = Artifact.open(cfg.examples.pools, "tuples")
        inputs["tuples"] = pools
        given["pools"] = str(pools.path / "pools.arrow")
        given["negatives"] = cfg.train.negatives
    if "run" in accepted:
        if not qrels:
            raise DataError(
                f"{collection.name} has no split {cfg.splits.train!r} to train on, only "
                f"{', '.join(collection.splits) or 'none'}\ntry: splits.train=NAME"
            )
        given["run"], inputs = _negatives(cfg, collection, qrels)
    examples = create(cfg.examples, **{name: value for name, value in given.items() if name in accepted})
    if examples.limit is not None and cfg.train.negatives > examples.limit:
        raise ConfigError(
            f"train.negatives={cfg.train.negatives}, but the examples have {examples.limit} each\n"
            f"try: train.negatives={examples.limit}"
        )
    return examples, inputs


def _negatives(cfg: DictConfig, collection: Collection, qrels: Qrels) -> tuple[Any, dict[str, Artifact]]:
    from colbert_lab.run import read_trec

    source = cfg.examples.negatives
    if source in ("random", "none"):
        return None, {}
    if source == "bm25":
        depth = max(cfg.examples.ranks[1], cfg.examples.positive_depth or 0)
        found = lexical_run(cfg, collection, cfg.splits.train, sorted(qrels), depth)
        return read_trec(found.path / "run.trec.gz"), {"negatives": found}
    path = Path(source).expanduser()
    if path.is_dir():
        artifact = Artifact.open(path, "run")
        return read_trec(path / "run.trec.gz"), {"negatives": artifact}
    return read_trec(path, ties="file"), {}


def _fit(
    cfg: DictConfig,
    collection: Collection,
    start: Artifact,
    examples: Examples,
    dev: Qrels,
    folder: Path,
    tracker: Tracker,
) -> dict[str, float]:
    from colbert_lab.models.backbone import set_attention_dropout
    from colbert_lab.models.checkpoint import load_model
    from colbert_lab.models.colbert import ColBERT
    from colbert_lab.training.batches import BatchStream, Collate
    from colbert_lab.training.dev import DevSample
    from colbert_lab.training.distillation import DistillationModule
    from colbert_lab.training.fit import fit
    from colbert_lab.training.pairwise import PairwiseModule

    plan = create(cfg.train)
    model = load_model(start.path)
    if not isinstance(model, ColBERT):
        raise ConfigError(f"{start.path} is a single-vector model, which is a baseline and is not trained here")
    if plan.attention_dropout is not None:
        set_attention_dropout(model.backbone, plan.attention_dropout)
    collate = Collate(model.tokenizer, plan.document_length)
    stream = BatchStream(examples, collate, plan.batch_queries, plan.negatives, cfg.seed)
    tracker.derived(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "batches_per_epoch": stream.batches_per_epoch,
            "queries_per_step": plan.batch_queries * plan.accumulate,
        }
    )
    loss = create(cfg.loss)
    kind = DistillationModule if loss.needs_targets else PairwiseModule
    module = kind(model, loss, create(cfg.optim), create(cfg.schedule).factor(plan.max_steps), cfg.seed)
    sample = DevSample.draw(collection, dev, cfg.dev.queries, cfg.dev.documents, cfg.seed) if dev else None
    return fit(module, stream, sample, plan, folder, tracker)
