"""search: an index and a split's queries to a run."""

import time
from collections.abc import Sequence

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.stages.index import open_index
from colbert_lab.stages.making import Outcome, input_of, make, plain, say
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
) -> Artifact:
    """The run of the split's judged queries (or of `some` of them), `k` results each (by default cfg.search.k)."""
    model = input_of(index, "model", cfg.get("model_at"))
    queries = judged_queries(collection, split) if some is None else list(some)
    k = cfg.search.k if k is None else k
    inputs = {"index": index, "model": model, "collection": collection.artifact}
    content = {"split": split, "search": {**plain(cfg.search), "k": k}, "encode": query_encoding(cfg)}
    if some is not None:
        content["queries"] = hash_json(queries)

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.evaluation.self_match import without_self
        from colbert_lab.run import write_trec

        opened = open_index(index)
        start = time.perf_counter()
        encoded = encode_queries(cfg, model, collection, queries)
        middle = time.perf_counter()
        found = opened.search(queries, encoded.embeddings, k + 1 if cfg.search.drop_self else k)
        if cfg.search.drop_self:
            found, dropped = without_self(found)
            found = found.cut(k)
            builder.counts["dropped_self"] = dropped
        end = time.perf_counter()
        write_trec(found, builder.path / "run.trec.gz")
        builder.counts.update(
            queries=len(found),
            depth=k,
            results=sum(map(len, found.values())),
            documents=len(opened),
            cut_queries=encoded.cut_texts,
            cut_query_tokens=encoded.cut_tokens,
        )
        tracker.summary(
            {
                "search/queries": len(found),
                "search/cut_queries": encoded.cut_texts,
                "search/encode_ms": 1000 * (middle - start) / len(found),
                "search/search_ms": 1000 * (end - middle) / len(found),
            }
        )

    return make(
        cfg, "search", "run", f"{collection.name.replace('/', '-')}-{split}-{cfg.name}", inputs, content, work, path
    )


def query_encoding(cfg: DictConfig) -> dict:
    """What of cfg.encode the vectors of queries depend on."""
    return {key: cfg.encode[key] for key in ("precision", "batch_tokens")}


def judged_queries(collection: Collection, split: str) -> list[str]:
    """The queries of a split that have judgements, in their order; says where a query's id is also a document's."""
    queries = list(collection.qrels(split))
    shared = sum(query in collection.corpus for query in queries)
    if shared:
        say(
            f"{shared:,} of {len(queries):,} query ids of {split} are document ids too; where a query is a document of "
            "the collection (ArguAna, Quora), search.drop_self=true takes it out of its own results"
        )
    return queries


def encode_queries(cfg: DictConfig, model: Artifact, collection: Collection, queries: list[str]):
    """The queries' embeddings (Encoded), by the model in its artifact."""
    from colbert_lab.models.checkpoint import load_model
    from colbert_lab.models.encoding import encode
    from colbert_lab.models.precision import best_device

    encoder = load_model(model.path).to(best_device())
    texts = collection.queries.get(queries)
    return encode(encoder, texts, "query", cfg.encode.precision, cfg.encode.batch_tokens)
