"""init: backbone, contract and projection to an untrained model; what training starts from."""

import numpy as np
from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.encoding import here
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.making import Outcome, create, make
from colbert_lab.stages.pretrained import files_of
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Make the untrained model of cfg's backbone, text and projection."""
    model = start_model(cfg, open_collection(cfg), cfg.run_dir)
    return Outcome(model, f"untrained model: {model.path}")


def start_model(cfg: DictConfig, collection: Collection, path: str | None = None) -> Artifact:
    """The model to start from: the one at cfg.model, or an untrained one (projections may look at texts)."""
    if cfg.model is not None:
        _refuse_ignored(cfg)
        return model_at(cfg, cfg.model)
    content = {name: cfg[name] for name in ("backbone", "text", "projection", "similarity", "seed")}
    content["precision"] = here(cfg.encode.precision)
    # Only a projection that looks at texts makes the start depend on the collection.
    looks = "documents" in cfg.projection
    inputs: dict[str, Artifact | str] = {"collection": collection.artifact} if looks else {}
    inputs |= files_of(cfg, "backbone", cfg.backbone.name)
    if looks:
        content["train"] = cfg.splits.train

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.models.build import build_model
        from colbert_lab.models.checkpoint import save_model

        model = build_model(
            create(cfg.backbone),
            create(cfg.text),
            create(cfg.projection),
            cfg.similarity,
            cfg.seed,
            Sample(collection, cfg.splits.train, cfg.seed),
            cfg.encode.precision,
        )
        save_model(model, builder.path)
        builder.counts.update(
            dim=model.dim,
            parameters=sum(p.numel() for p in model.parameters()),
            skipped_ids=len(model.tokenizer.skip_ids),
        )
        tracker.summary({"dim": model.dim})

    return make(cfg, "init", "model", f"{cfg.name}-start", inputs, content, work, path)


def single_vector_model(cfg: DictConfig, pooling: str) -> Artifact:
    """The same backbone as a bi-encoder of one vector a text, by this pooling; a baseline that is not trained here."""
    content = {"backbone": cfg.backbone, "pooling": pooling}
    content["lengths"] = [cfg.text.query_length, cfg.text.document_length]
    inputs = files_of(cfg, "backbone", cfg.backbone.name)

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.models.checkpoint import save_model
        from colbert_lab.models.single_vector import SingleVector

        lengths = (cfg.text.query_length, cfg.text.document_length)
        model = SingleVector.from_pretrained(create(cfg.backbone), pooling, *lengths)
        save_model(model, builder.path)
        builder.counts.update(dim=model.dim, parameters=sum(p.numel() for p in model.parameters()))
        tracker.summary({"dim": model.dim})

    return make(cfg, "single_vector", "model", f"{cfg.name}-{pooling}", inputs, content, work)


def _refuse_ignored(cfg: DictConfig) -> None:
    """ConfigError where a given model is asked to be another: its backbone, contract and projection are settled."""
    settled = ("backbone", "text", "projection", "similarity")
    asked = [o for o in cfg.get("overrides") or [] if o.partition("=")[0].partition(".")[0].lstrip("+~") in settled]
    if asked:
        raise ConfigError(f"model={cfg.model} is given, so {' '.join(asked)} would change nothing\ntry: leave one out")


class Sample:
    """Seeded samples of a collection's documents and of its training queries; of no other split's."""

    def __init__(self, collection: Collection, split: str, seed: int):
        self._collection, self._split, self._seed = collection, split, seed

    def documents(self, count: int) -> list[str]:
        """`count` documents, or all where there are fewer."""
        order = np.random.default_rng([self._seed, 3]).permutation(len(self._collection.corpus))
        return self._collection.corpus[np.sort(order[:count])]

    def queries(self, count: int) -> list[str]:
        """`count` training queries, or all where there are fewer; none where there is no such split."""
        if self._split not in self._collection.splits:
            return []
        ids = sorted(self._collection.qrels(self._split))
        chosen = np.random.default_rng([self._seed, 4]).permutation(len(ids))[:count]
        return self._collection.queries.get([ids[i] for i in np.sort(chosen)])
