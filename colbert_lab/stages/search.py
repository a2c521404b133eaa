"""search: an index and a split's queries to a run."""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.run import Run, numbered_lines
from colbert_lab.stages.encoding import query_encoding
from colbert_lab.stages.found_in_chunks import found_in_chunks
from colbert_lab.stages.index import check_takes, index_kind
from colbert_lab.stages.making import Outcome, create, input_of, make, plain, say_once
from colbert_lab.stages.reading import load_encoder
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Search the index at cfg.index_dir with the queries of cfg.split."""
    if cfg.index_dir is None:
        raise ConfigError("no index is given to search\ntry: index=<directory of an index>")
    index = Artifact.open(cfg.index_dir, "index")
    collection = Collection(input_of(index, "collection", cfg.collection))
    found = search_index(cfg, index, collection, cfg.split, cfg.run_dir)
    counts = found.manifest["counts"]
    return Outcome(found, f"{counts['queries']:,} queries, {counts['results']:,} results: {found.path}")


def search_index(
    cfg: DictConfig,
    index: Artifact,
    collection: Collection,
    split: str,
    path: str | None = None,
    some: Sequence[str] | None = None,
    k: int | None = None,
    only: Sequence[str] | None = None,
) -> Artifact:
    """The run of the split's judged queries (or of `some` of them), `k` results each (by default cfg.search.k).

    Searched as cfg.probe says, among the documents `only`, or of the file cfg.search.only where there is one. Some
    queries at a time: a search that was killed goes on after the last chunk of them (found_in_chunks.py). The times of
    a query leave out loading the model.
    """
    kind = index_kind(index)
    probe = probe_of(cfg, kind)
    lexical = kind.takes == "texts"
    model = None if lexical else input_of(index, "model", cfg.get("model_at"))
    queries = judged_queries(collection, split) if some is None else list(some)
    k = cfg.search.k if k is None else k
    if only is None and cfg.search.get("only") is not None:
        only = read_ids(cfg.search.only)
    inputs = {"index": index, "collection": collection.artifact, **({} if lexical else {"model": model})}
    content = {"split": split, "search": {"k": k, "drop_self": cfg.search.drop_self}, "probe": plain(cfg.get("probe"))}
    content["encode"] = None if lexical else query_encoding(cfg)
    if some is not None:
        content["queries"] = hash_json(queries)
    if only is not None:
        content["search"]["only"] = hash_json(sorted(only))

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.evaluation.self_match import without_self

        opened = kind.open(index.path)
        asked = k + 1 if cfg.search.drop_self else k
        encoder = cache(lambda: load_encoder(model))

        def find(some: Sequence[str]) -> tuple[Run, dict[str, float]]:
            facts, given = {}, collection.queries.get(some)
            if not lexical:
                loaded, start = encoder(), time.perf_counter()
                encoded = _encoded(cfg, loaded, given)
                facts = {"encode_s": time.perf_counter() - start}
                facts |= {"cut_queries": encoded.cut_texts, "cut_query_tokens": encoded.cut_tokens}
                given = encoded.embeddings
            start = time.perf_counter()
            found = opened.search(some, given, asked, only=only, probe=probe)
            if cfg.search.drop_self:
                found, facts["dropped_self"] = without_self(found)
                found = found.cut(k)
            return found, {**facts, "search_s": time.perf_counter() - start}

        sums = found_in_chunks(builder, queries, find)
        seconds = {name: sums.pop(name, 0.0) for name in ("encode_s", "search_s")}
        builder.counts.update(
            sums,
            depth=k,
            documents=len(opened),
            probe=opened.resolved(asked, probe) if hasattr(opened, "resolved") else None,
        )
        if only is not None:
            builder.counts["only"] = len(only)
        count = max(1, sums["queries"])
        times = {"search/search_ms": 1000 * seconds["search_s"] / count}
        if not lexical:
            times["search/encode_ms"] = 1000 * seconds["encode_s"] / count
            times["search/cut_queries"] = sums.get("cut_queries", 0)
        times["search/qps"] = sums["queries"] / max(sum(seconds.values()), 1e-9)
        tracker.summary({"search/queries": sums["queries"], "search/candidates": sums["results"], **times})

    return make(
        cfg, "search", "run", f"{collection.name.replace('/', '-')}-{split}-{cfg.name}", inputs, content, work, path
    )


def probe_of(cfg: DictConfig, kind: Any) -> Any:
    """The parameters of a search in this kind of index, None for its own defaults; ConfigError for another index's."""
    probe = None if cfg.get("probe") is None else create(cfg.probe)
    wanted = getattr(kind, "probe", type(probe))
    if probe is not None and (wanted is None or not isinstance(probe, wanted)):
        named = "auto" if wanted is None else f"{wanted.__module__.split('.')[2]} or probe=auto"
        raise ConfigError(
            f"{type(probe).__name__} is not how {type(kind).__name__.removesuffix('Kind')} is searched\n"
            f"try: probe={named}"
        )
    return probe


def check_index(cfg: DictConfig) -> None:
    """ConfigError, before anything heavy, where cfg.index does not take a model's vectors or cfg.probe is another's."""
    kind = create(cfg.index)
    check_takes(kind, True)
    probe_of(cfg, kind)


def read_ids(place: str) -> list[str]:
    """The document ids of a file, one a line, blanks and all; DataError for an empty line or an id that comes twice."""
    path = Path(place).expanduser()
    found: dict[str, int] = {}
    for number, line in numbered_lines(path):
        document = line.removesuffix("\n").removesuffix("\r")
        if not document or document in found:
            wrong = f"{document!r} stands in line {found[document]} already" if document else "the line is empty"
            raise DataError(f"{path}:{number}: one document id a line is wanted: {wrong}")
        found[document] = number
    return list(found)


def judged_queries(collection: Collection, split: str) -> list[str]:
    """The queries of a split that have judgements, in their order; says where a query's id is also a document's."""
    queries = list(collection.qrels(split))
    shared = sum(query in collection.corpus for query in queries)
    if shared:
        say_once(
            f"{shared:,} of {len(queries):,} query ids of {split} are document ids too; where a query is a document of "
            "the collection (ArguAna, Quora), search.drop_self=true takes it out of its own results"
        )
    return queries


def encode_queries(cfg: DictConfig, model: Artifact, collection: Collection, queries: list[str]):
    """The queries' embeddings (Encoded), by the model in its artifact."""
    return _encoded(cfg, load_encoder(model), collection.queries.get(queries))


def _encoded(cfg: DictConfig, encoder: Any, texts: Sequence[str]):
    from colbert_lab.models.encoding import encode

    return encode(encoder, texts, "query", cfg.encode.precision, cfg.encode.batch_tokens)
