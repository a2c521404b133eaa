"""fidelity: how far indexes are from exact MaxSim, over a grid of settings: a table, Pareto plots, every number.

Every setting's measurement is an artifact of its own: a run that was killed, or a grid that grew, measures what is
missing. Times are measured, so no two runs agree on them; everything else is the same again.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.fidelity import Staged, overlap, recall_by_stage, score_error
from colbert_lab.evaluation.latency import latencies
from colbert_lab.evaluation.metrics import Evaluation, evaluate
from colbert_lab.evaluation.self_match import without_self
from colbert_lab.evaluation.significance import paired
from colbert_lab.run import Hits, Run, read_trec
from colbert_lab.stages import chunk_log
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.fidelity_grid import Setting, probe_of, settings, settings_of, with_index
from colbert_lab.stages.fidelity_report import conclude, headlines
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.index import index_with, open_index
from colbert_lab.stages.launch import conf_dir
from colbert_lab.stages.making import Outcome, input_of, make, plain
from colbert_lab.stages.reading import load_encoder
from colbert_lab.stages.search import judged_queries, query_encoding, search_index
from colbert_lab.tracking.tracker import Tracker

METRICS = ("ndcg_10", "mrr_10")
# Documents whose vectors are counted at once.
_COUNTED = 4096


def run(cfg: DictConfig) -> Outcome:
    """Measure the grid's indexes of a model and a collection, or one given index, each beside its exact twin."""
    _check(cfg)
    grid = plain(cfg.grid)
    given = None
    if cfg.index_dir is not None:
        given = Artifact.open(cfg.index_dir, "index")
        wanted = settings_of(given, grid, conf_dir())
        model = input_of(given, "model", cfg.model_at)
        collection = Collection(input_of(given, "collection", cfg.collection))
    else:
        wanted = settings(grid, conf_dir())
        model, collection = model_at(cfg, cfg.model), open_collection(cfg)
    twin = _twin(cfg, given)
    exact = index_with(with_index(cfg, twin, "exact"), model, collection)
    queries = judged_queries(collection, cfg.split)
    against = _Exact(cfg, exact, model, collection, queries, _held(given, collection))
    measured = [(twin, _measurement(cfg, twin, exact, against))]
    for series, some in groupby(wanted, key=lambda setting: setting.series):
        some = list(some)
        index = given or index_with(with_index(cfg, some[0], _slug(series)), model, collection, vectors=exact)
        # The twin among the grid's indexes is measured already.
        if index.digest != exact.digest:
            measured += [(setting, _measurement(cfg, setting, index, against)) for setting in some]
    return conclude(cfg, collection, against.k, measured)


def _twin(cfg: DictConfig, given: Artifact | None) -> Setting:
    """The exact index of the very vectors: encoded as a given index's were, and not pooled."""
    encoded = {} if given is None else given.manifest["config"].get("encode") or {}
    sections = {"pooling.factor": 1, **{f"encode.{key}": value for key, value in encoded.items()}}
    return Setting("exact", plain(cfg.exact), sections, {"dtype": cfg.exact.dtype}, {})


def _held(given: Artifact | None, collection: Collection) -> list[str] | None:
    """The documents of a given index that lacks some of its collection's; None where there is none, or it lacks none.

    DataError where it holds documents that the collection has not: their exact scores cannot be known.
    """
    if given is None:
        return None
    ids = open_index(given).ids
    others = [document for document in ids if document not in collection.corpus]
    if others:
        raise DataError(
            f"the index holds {len(others):,} documents that are not in {collection.name}, {others[0]!r} is the first: "
            "there is no exact index to hold it against\ntry: experiments/update.py with these in delete=FILE"
        )
    return ids if len(ids) < len(collection.corpus) else None


class _Exact:
    """What settings are held against: the twin's run of the split's queries; their vectors, made when first needed.

    `only` are the documents that the twin is searched among, where a given index lacks some of the collection's.
    """

    def __init__(
        self,
        cfg: DictConfig,
        twin: Artifact,
        model: Artifact,
        collection: Collection,
        queries: list[str],
        only: list[str] | None,
    ):
        self.model, self.collection, self.queries, self.only = model, collection, queries, only
        self.k = max(10, *cfg.fidelity.depths)
        self.twin, self._encoding = twin, query_encoding(cfg)
        self.artifact = search_index(cfg, twin, collection, cfg.split, some=None, k=self.k, only=only)

    @cached_property
    def run(self) -> Run:
        """The exact run, queries in order; those without results have none."""
        found = read_trec(self.artifact.path / "run.trec.gz", depth=self.k)
        return Run({query: found.get(query, Hits((), np.empty(0))) for query in self.queries}, self.k)

    @cached_property
    def vectors(self) -> int:
        """How many vectors encoding gives these documents."""
        if self.only is None:
            return self.twin.manifest["counts"]["vectors"]
        opened, firsts = open_index(self.twin), range(0, len(self.only), _COUNTED)
        return sum(int(opened.embeddings(self.only[i : i + _COUNTED]).lengths.sum()) for i in firsts)

    @cached_property
    def texts(self) -> list[str]:
        """The queries' texts."""
        return self.collection.queries.get(self.queries)

    @cached_property
    def _encoder(self) -> Any:
        return load_encoder(self.model)

    @cached_property
    def embeddings(self) -> Any:
        """The queries' vectors (Ragged)."""
        return self.encode(self.texts)

    def encode(self, texts: Sequence[str]) -> Any:
        """The vectors of some queries' texts."""
        from colbert_lab.models.encoding import encode

        return encode(self._encoder, texts, "query", **self._encoding).embeddings

    def judged(self, found: Run, level: int) -> Evaluation:
        """A run by the split's judgements."""
        return evaluate(found, self._qrels, METRICS, level, len(self.collection.corpus))

    @cached_property
    def _qrels(self) -> Any:
        return self.collection.qrels(self.artifact.manifest["config"]["split"])


def _measurement(cfg: DictConfig, setting: Setting, index: Artifact, exact: _Exact) -> Artifact:
    """The artifact with everything that is measured of one setting (measurement.json)."""
    inputs = {"index": index, "exact": exact.artifact, "model": exact.model, "collection": exact.collection.artifact}
    options = plain(cfg.fidelity)
    content = {
        "split": cfg.split,
        "probe": setting.probe,
        "fidelity": {key: value for key, value in options.items() if key != "quality"},
        "drop_self": cfg.search.drop_self,
        "encode": query_encoding(cfg),
        "seed": cfg.seed,
        "threads": torch.get_num_threads(),
        **({} if exact.only is None else {"only": hash_json(sorted(exact.only))}),
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        measured = _measure(cfg, setting, index, exact)
        (builder.path / "measurement.json").write_text(json.dumps(measured, indent=1))
        builder.counts["queries"] = len(exact.queries)
        tracker.summary(headlines(measured))

    view = with_index(cfg, setting, _slug(setting.label))
    # A run of its own in W&B for every setting would bury the others; the report tells of them all.
    view.tracking.sink = None
    name = f"{exact.collection.name.replace('/', '-')}-{cfg.split}-{_slug(setting.label)}"
    return make(view, "measure", "measurement", name, inputs, content, work)


def _measure(cfg: DictConfig, setting: Setting, index: Artifact, exact: _Exact) -> dict[str, Any]:
    opened, probe, options = open_index(index), probe_of(setting), cfg.fidelity
    asked = exact.k + 1 if cfg.search.drop_self else exact.k
    embeddings, reference = exact.embeddings, exact.run
    # What a given index lacks, only its twin has.
    only = exact.only if index.digest == exact.twin.digest else None
    found = opened.search(exact.queries, embeddings, asked, only=only, probe=probe)
    if cfg.search.drop_self:
        found = without_self(found)[0].cut(exact.k)
    shares = {depth: overlap(found, reference, depth) for depth in options.depths}
    stages = {}
    if isinstance(opened, Staged):
        told = (opened.stages(query, asked, probe=probe) for query in embeddings)
        stages = recall_by_stage(told, reference, options.depths)
        # What is found counts by its rank: among the first 10 for the exact top 10.
        stages[list(stages)[-1]] = shares
    ours, theirs = exact.judged(found, options.relevance_level), exact.judged(reference, options.relevance_level)
    stats = opened.stats()
    resolved = opened.resolved(asked, probe) if hasattr(opened, "resolved") else {}

    def search(i: int) -> None:
        opened.search(exact.queries[i : i + 1], embeddings[i : i + 1], asked, only=only, probe=probe)

    def encode_and_search(i: int) -> None:
        opened.search(exact.queries[i : i + 1], exact.encode(exact.texts[i : i + 1]), asked, only=only, probe=probe)

    times = {
        name: latencies(call, len(exact.queries), options.timed, options.warmup)
        for name, call in (("search", search), ("with_encoding", encode_and_search))
    }
    return {
        "setting": asdict(setting) | {"series": setting.series, "label": setting.label, "short": setting.short},
        "k": exact.k,
        "queries": len(exact.queries),
        # JSON knows no infinity.
        "resolved": {key: str(v) if isinstance(v, float) and math.isinf(v) else v for key, v in resolved.items()},
        "figures": {
            **{f"overlap_{depth}": float(share.mean()) for depth, share in shares.items()},
            **ours.means,
        },
        "tests": {
            metric: asdict(paired(ours.per_query[metric], theirs.per_query[metric], options.test, cfg.seed))
            for metric in METRICS
        },
        "stages": {name: {str(d): float(v.mean()) for d, v in by.items()} for name, by in stages.items()},
        "error": asdict(score_error(opened, embeddings, reference, probe)),
        "index": {
            "documents": stats["documents"],
            "vectors": stats["vectors"],
            "bytes": stats["bytes"],
            "bytes_per_vector": stats["bytes"] / max(1, exact.vectors),
            "bytes_per_document": stats["bytes"] / max(1, stats["documents"]),
            **_seconds(index),
        },
        "latency": {
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "timed": len(times["search"]),
            "warmup": options.warmup,
            **{
                name: {"p50": float(np.median(ms)), "p95": float(np.quantile(ms, 0.95)), "mean": float(ms.mean())}
                for name, ms in times.items()
            },
        },
    }


def _seconds(index: Artifact) -> dict[str, float | None]:
    """What making the index took, over all its starts: encoding (and pooling), and the rest, which is building it.

    None where its log, which is no part of an artifact's content, is not there any more; no seconds of encoding where
    another index's vectors were read instead.
    """
    from colbert_lab.tracking.read import seconds

    record = chunk_log.encoding_seconds(index.path / "log" / "encoded.jsonl")
    if record is None:
        return {"build_seconds": None, "encode_seconds": None}
    encoding, read = record
    return {
        "build_seconds": max(0.0, seconds(index.path / "log") - encoding),
        "encode_seconds": None if read else encoding,
    }


def _check(cfg: DictConfig) -> None:
    problems = []
    if (cfg.model is None) == (cfg.index_dir is None):
        problems.append(
            "a model to build the grid's indexes with, or one index to measure, and not both\n"
            "try: model=<directory of a model> or index=<directory of an index>"
        )
    options = cfg.fidelity
    if not options.depths or min(options.depths, default=0) < 1 or len(set(options.depths)) < len(options.depths):
        problems.append(f"fidelity.depths={options.depths}: each at least 1, none twice\ntry: fidelity.depths=[10,100]")
    known = [*(f"overlap_{depth}" for depth in options.depths), *METRICS]
    if options.quality not in known:
        problems.append(
            f"fidelity.quality={options.quality} is none of {', '.join(known)}\ntry: fidelity.quality={known[0]}"
        )
    if options.timed < 1 or options.warmup < 0:
        problems.append("fidelity.timed must be at least 1, fidelity.warmup at least 0\ntry: fidelity.timed=100")
    if options.relevance_level < 1:
        problems.append("fidelity.relevance_level must be at least 1\ntry: fidelity.relevance_level=1")
    if problems:
        raise ConfigError(problems, "fidelity")


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-")
