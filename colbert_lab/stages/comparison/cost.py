"""What a system costs a query and an index: measured on a sample, one query at a time, and kept as an artifact."""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig

from colbert_lab.artifact import LOG, Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.stages import chunk_log
from colbert_lab.stages.comparison.kinds import GivenRun, kind_of
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.making import make, plain
from colbert_lab.stages.search import query_encoding
from colbert_lab.stages.sections import named
from colbert_lab.tracking.tracker import Tracker

# Queries whose operations are counted: counts differ by their lengths alone.
_COUNTED = 5


def measurement(cfg: DictConfig, collection: Collection, made: Made) -> Artifact | None:
    """The artifact with what this system costs (cost.json); None for a given run, of which nothing is known."""
    if isinstance(made.system, GivenRun):
        return None
    inputs: dict[str, Artifact | str] = {"collection": collection.artifact}
    for i, one in enumerate(_all(made)):
        parts = {"run": one.runs[0].given, "index": one.index, "store": one.store, "vectors": one.vectors}
        parts |= {"model": one.model, "teacher": one.teacher}
        inputs |= {f"{role}_{i}": part for role, part in parts.items() if part is not None}
    content = {
        "systems": [_described(one) for one in _all(made)],
        "split": cfg.split,
        "k": cfg.search.k,
        "cost": plain(cfg.cost),
        "encode": query_encoding(cfg),
        "passages": plain(cfg.get("passages")),
        "drop_self": bool(cfg.search.drop_self),
        "threads": torch.get_num_threads(),
        "machine": _machine(),
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        cost = _cost(cfg, collection, made)
        (builder.path / "cost.json").write_text(json.dumps(cost, indent=1))
        builder.counts["timed"] = cost["timed"]
        tracker.summary({"search/p50_ms": cost["p50_ms"], "search/p95_ms": cost["p95_ms"]})

    view = named(cfg, made.name)
    # A run of its own in W&B for every system would bury the comparison, which tells of them all.
    view.tracking.sink = None
    name = f"{collection.name.replace('/', '-')}-{cfg.split}-{made.name}"
    return make(view, "cost", "measurement", name, inputs, content, work)


def _all(made: Made) -> Iterator[Made]:
    """The system and everything that it builds on."""
    yield made
    for one in made.sources:
        yield from _all(one)


def _described(made: Made) -> dict[str, Any]:
    """What of a system's keys its cost depends on, places aside: what lies there is an input."""
    keys = {key: value for key, value in asdict(made.system).items() if key not in ("of", "model", "teacher", "run")}
    return {"kind": kind_of(made.system), **keys}


def _cost(cfg: DictConfig, collection: Collection, made: Made) -> dict[str, Any]:
    from colbert_lab.evaluation.energy import measured_energy
    from colbert_lab.evaluation.flops import counted_flops
    from colbert_lab.evaluation.latency import timed_parts
    from colbert_lab.stages.comparison.answers import answer_of, untimed

    options = cfg.cost
    queries = _sample(list(collection.qrels(cfg.split)), options.timed + options.warmup)
    texts = collection.queries.get(queries)
    answer = answer_of(cfg, collection, made, queries)
    times, warmup = _affordable(lambda i: answer(queries[i], texts[i], untimed), len(queries), options)
    parts: dict[str, Any] = {}

    def timed() -> None:
        parts.update(timed_parts(lambda i, part: answer(queries[i], texts[i], part), len(queries), times, warmup))

    energy = measured_energy(timed)
    some = list(zip(queries, texts))[: min(_COUNTED, times)]
    counted = [(counted_flops(lambda one=one: answer(*one, untimed)), answer.scored(*one)) for one in some]
    total = parts.pop("total")
    unknown = any(isinstance(one.system, GivenRun) for one in _all(made))
    shown = {name: parts[name].p50_ms if name in parts else None for name in ("encode", "search", "interact")}
    return {
        "flops_query": _mean([None if scored is None else torchs + scored for torchs, scored in counted]),
        "flops_scored": _mean([scored for _, scored in counted]),
        "flops_analytic": _mean([answer.analytic(*one) for one in some]),
        "p50_ms": total.p50_ms,
        "p95_ms": total.p95_ms,
        "parts_ms": shown,
        **_indexes(made),
        "joules_query": None if energy.joules is None else energy.joules / (total.times + warmup),
        "energy": {"of": energy.of, "reason": energy.reason},
        "timed": total.times,
        "wanted": min(options.timed, len(queries)),
        "warmup": warmup,
        "counted": len(some),
        "k": cfg.search.k,
        "threads": torch.get_num_threads(),
        **_machine(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "without_first_stage": unknown,
    }


def _machine() -> dict[str, Any]:
    """What times and energies are of, beside the threads: the processors, and the accelerator's name."""
    processor = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else processor
    return {"cpus": os.cpu_count(), "device_name": name}


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is unknown."""
    return None if None in values else float(np.mean(values))


def _affordable(call: Any, queries: int, options: DictConfig) -> tuple[int, int]:
    """How many queries can be timed, and warmed up with, in the time that there is; at least one is timed."""
    call(0)  # loads what is mapped and compiles what is compiled
    start = time.perf_counter()
    call(min(1, queries - 1))
    each = max(time.perf_counter() - start, 1e-6)
    affordable = int(options.seconds / each)
    times = max(1, min(options.timed, affordable))
    return times, max(0, min(options.warmup, affordable - times))


def _sample(queries: Sequence[str], count: int) -> list[str]:
    """So many of the queries, spread over all, in an order in which any first few are spread as well."""
    chosen = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int))
    return [queries[i] for i in np.random.default_rng(0).permutation(chosen)]


def _indexes(made: Made) -> dict[str, Any]:
    """Bytes of all indexes that a query goes through, each once, and the seconds that making them took.

    An index that was built from another's vectors has that one's seconds of encoding, added once for all of them. None
    where vectors that a re-ranker needs are kept nowhere, or where a log is gone.
    """
    found: dict[str, tuple[Artifact, Artifact | None]] = {}
    known = True
    for one in _all(made):
        if one.index is not None:
            found[one.index.digest] = (one.index, one.vectors)
        if one.store is not None:
            found.setdefault(one.store.digest, (one.store, one.vectors))
        known &= one.model is None or one.index is not None or one.store is not None
    if not known or not found:
        return {"index_bytes": None, "index_seconds": None, "encode_seconds": None, "shared_encoding": False}
    parts = [_seconds(index, vectors) for index, vectors in found.values()]
    complete = None not in parts
    # Two indexes of one encoding, of which a fusion searches both, were encoded once.
    encoded = {one.source: one.encoding for one in parts if one is not None}
    encoding = sum(encoded.values())
    return {
        "index_bytes": sum(index.manifest["counts"]["bytes"] for index, _ in found.values()),
        "index_seconds": sum(one.building for one in parts) + encoding if complete else None,
        "encode_seconds": encoding if complete else None,
        "shared_encoding": any(one.source != digest for digest, one in zip(found, parts, strict=True) if one),
    }


class _Seconds(NamedTuple):
    """What making an index took: building it, and the encoding of what it holds, by the index of that digest."""

    building: float
    encoding: float
    source: str


def _seconds(index: Artifact, vectors: Artifact | None) -> _Seconds | None:
    """Over all its starts, from its log, and from that of `vectors` where these were read; None where a log is gone."""
    from colbert_lab.tracking.read import seconds

    own = chunk_log.encoding_seconds(index.path / LOG / "encoded.jsonl")
    if own is None:
        return None
    encoding, read = own
    building = max(0.0, seconds(index.path / LOG) - encoding)
    if not read:
        return _Seconds(building, encoding, index.digest)
    source = None if vectors is None else chunk_log.encoding_seconds(vectors.path / LOG / "encoded.jsonl")
    return None if source is None else _Seconds(building, source[0], vectors.digest)
