"""rerank: a model scores the documents of a given run anew; no index is needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_file
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.run import Run, read_trec
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.index import passages_of
from colbert_lab.stages.making import Outcome, make
from colbert_lab.stages.reading import Cutting, as_vectors, by_size
from colbert_lab.stages.score import rerank_with
from colbert_lab.stages.search import encode_queries, query_encoding
from colbert_lab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from colbert_lab.ragged import Ragged

# Passages whose vectors are in memory at once.
_PASSAGES = 1024


def run(cfg: DictConfig) -> Outcome:
    """Re-rank the run at cfg.candidates with the model at cfg.model."""
    missing = [f"{name} is not given\ntry: {name}=..." for name in ("model", "candidates") if cfg[name] is None]
    if missing:
        raise ConfigError(missing, "rerank")
    collection = open_collection(cfg)
    candidates, given = read_run(cfg.candidates)
    model = model_at(cfg, cfg.model, ("model", "cross_encoder"))
    if model.kind == "model":
        reranked = rerank_run(cfg, model, collection, candidates, given, cfg.run_dir)
    else:
        if passages_of(cfg) is not None:
            raise ConfigError("a cross-encoder reads whole documents here, no passages\ntry: passages.length=null")
        reranked = rerank_with(cfg, collection, [model], candidates, given, cfg.run_dir)
    counts = reranked.manifest["counts"]
    text = f"{counts['queries']:,} queries, {counts['documents']:,} different documents scored: {reranked.path}"
    return Outcome(reranked, text)


def read_run(place: str) -> tuple[Run, Artifact | str]:
    """A run, from a run artifact or a TREC file, and what stands for it as an input."""
    path = Path(place).expanduser()
    if path.is_dir():
        artifact = Artifact.open(path, "run")
        return read_trec(path / "run.trec.gz", depth=artifact.manifest["counts"]["depth"]), artifact
    return read_trec(path, ties="file"), hash_file(path) if path.is_file() else ""


def rerank_run(
    cfg: DictConfig,
    model: Artifact,
    collection: Collection,
    candidates: Run,
    given: Artifact | str,
    path: str | None = None,
) -> Artifact:
    """The run with the best cfg.rerank.k candidates of every query in MaxSim's order."""
    k = cfg.rerank.k
    candidates = candidates.cut(k)
    ids = sorted({document for hits in candidates.values() for document in hits.ids})
    _check_known(collection, candidates, ids)
    inputs = {"model": model, "collection": collection.artifact, "candidates": given}
    content = {"rerank": cfg.rerank, "encode": query_encoding(cfg), "split": cfg.split}
    if (passages := passages_of(cfg)) is not None:
        content["passages"] = passages

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.index.rows import Rows
        from colbert_lab.models.checkpoint import load_model
        from colbert_lab.models.encoding import encode
        from colbert_lab.models.precision import best_device
        from colbert_lab.progress import progress
        from colbert_lab.run import write_trec
        from colbert_lab.scoring.pruned import PrunedSearch
        from colbert_lab.search.rerank import rerank, rerank_passages

        encoder = load_model(model.path).to(best_device())
        queries = encode_queries(cfg, model, collection, list(candidates))
        with progress("encode", len(ids), "documents") as bar:
            if passages is None:
                documents = encode(
                    encoder,
                    collection.corpus.get(ids),
                    "document",
                    cfg.encode.precision,
                    cfg.encode.batch_tokens,
                    bar=bar,
                )
                facts = {"cut_documents": documents.cut_texts}
                rows, held = Rows(ids), PrunedSearch(documents.embeddings, encoder.similarity)
                scored = rerank(candidates, queries.embeddings, lambda some, of: held.scores(some, rows.of(of)), k)
            else:
                facts = dict.fromkeys(("passages", "cut_documents", "cut_passages", "left_out_passages"), 0)
                pieces = _pieces(cfg, Cutting(passages, encoder), encoder, collection, ids, facts, bar)
                scored = rerank_passages(candidates, queries.embeddings, pieces, k, encoder.similarity)
        write_trec(scored, builder.path / "run.trec.gz")
        builder.counts.update(
            queries=len(scored),
            depth=scored.depth,
            results=sum(map(len, scored.values())),
            documents=len(ids),
            cut_queries=queries.cut_texts,
            **facts,
        )
        tracker.summary({"search/queries": len(scored), "search/candidates": len(ids)})

    name = f"{collection.name.replace('/', '-')}-{cfg.split}-{cfg.name}-rerank{k}"
    return make(cfg, "rerank", "run", name, inputs, content, work, path)


def _pieces(
    cfg: DictConfig,
    cutting: Cutting,
    encoder: Any,
    collection: Collection,
    ids: Sequence[str],
    facts: dict[str, int],
    bar: Any,
) -> Iterator[tuple[Sequence[str], Sequence[int], "Ragged"]]:
    """Chunks of documents: ids, numbers of passages, embeddings of these; `facts` counts what that left out."""
    prepare = cutting.pieces(as_vectors(cfg.encode, encoder, None))
    corpus = collection.corpus
    sizes = cutting.passages.estimate(corpus.characters[corpus.rows(ids)], cutting.tokenizer)
    for rows in by_size(sizes, _PASSAGES):
        some = ids[rows.start : rows.stop]
        pieces, found = prepare(corpus.get(some), bar)
        for name in facts:
            facts[name] += len(pieces.passages) if name == "passages" else found[name]
        yield some, pieces.counts, pieces.passages


def _check_known(collection: Collection, candidates: Run, documents: list[str]) -> None:
    for what, texts, ids in (
        ("queries", collection.queries, list(candidates)),
        ("documents", collection.corpus, documents),
    ):
        unknown = [i for i in ids if i not in texts]
        if unknown:
            raise DataError(
                f"{len(unknown):,} of the run's {len(ids):,} {what} are not in {collection.name}, {unknown[0]!r} is "
                "the first; is it a run of another collection?"
            )
