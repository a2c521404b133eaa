"""index: a collection, and a model where the index takes vectors, to an index; goes on from any interruption."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import LOG, Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.stages import chunk_log
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.encoding import encoding
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.making import Outcome, create, make, plain, recorded
from colbert_lab.stages.reading import (
    Cutting,
    Read,
    ReadAll,
    as_texts,
    as_vectors,
    by_devices,
    chunks,
    from_collection,
    load_encoder,
    one_by_one,
)
from colbert_lab.tracking.tracker import Tracker

_BY_DOCUMENT = "colbert_lab.index.by_document.PassageIndexKind"
_SUMMED = ("tokens", "cut_documents", "cut_tokens", "encoded_vectors")
# Besides, where documents are cut into passages: those longer than the model reads, and those beyond passages.most.
_OF_PASSAGES = ("cut_passages", "left_out_passages")
# How well the centroids still suit, of an index that has them: index/staleness.py.
_STALE = ("added_share", "added_distance")


def run(cfg: DictConfig) -> Outcome:
    """Index the collection, with the model at cfg.model where the index takes vectors."""
    check_takes(create(cfg.index), cfg.model is not None)
    model = None if cfg.model is None else model_at(cfg, cfg.model)
    index = index_with(cfg, model, open_collection(cfg), cfg.run_dir)
    return Outcome(index, f"{described(index)}: {index.path}")


def described(index: Artifact) -> str:
    """What an index holds, in a line."""
    counts = index.manifest["counts"]
    size = f"{counts['bytes'] / 2**20:,.0f} MiB"
    documents = f"{counts['documents']:,} documents"
    cut = f"{counts.get('cut_documents', 0):,} documents were cut"
    if "passages" in counts:
        documents += f" in {counts['passages']:,} passages"
        cut = f"{counts['cut_passages']:,} passages were cut, {counts['left_out_passages']:,} left out"
    if "vectors" not in counts:
        return f"{documents}, {counts['words']:,} different words, {size}"
    # An updated index counts what was encoded for it, not what it took over.
    whole = "update" not in index.manifest["config"] and counts["encoded_vectors"] > counts["vectors"]
    pooled = f" of {counts['encoded_vectors']:,}" if whole else ""
    stale = ""
    if counts.get("added_share"):
        share, times = counts["added_share"], counts["added_distance"]
        far = "off them" if times is None else f"{times:.2f} times as far off"
        told = f"{share:.0%} of the vectors came after the centroids were trained and lie {far}"
        stale = f"; {counts.get('note', told)}"
    return f"{documents}, {counts['vectors']:,}{pooled} vectors, {size}; {cut}{stale}"


def index_with(
    cfg: DictConfig,
    model: Artifact | None,
    collection: Collection,
    path: str | None = None,
    vectors: Artifact | None = None,
) -> Artifact:
    """The index of cfg.index over the collection's documents, encoded by the model; of their texts where that is None.

    `vectors` is an exact index of the same model and collection: where it holds just what encoding would give (fp32,
    not pooled, encoded alike), it is read instead, and the result is the same byte for byte. Where cfg.passages cuts
    documents, it holds their passages and still finds documents.
    ConfigError where the index takes the other of the two, or pooling is asked for where there are no vectors.
    """
    check_takes(create(cfg.index), model is not None)
    pooling, passages = pooling_of(cfg), passages_of(cfg)
    if model is None and pooling is not None:
        raise ConfigError("pooling.factor merges vectors, and this index takes texts\ntry: pooling.factor=1")
    inputs = (
        {"collection": collection.artifact} if model is None else {"model": model, "collection": collection.artifact}
    )
    node = plain(cfg.index)
    content = {"index": recorded(node), "pooling": pooling, "encode": encoding(cfg, model)}
    if passages is not None:
        content["passages"] = passages
        node = {"_target_": _BY_DOCUMENT, "kind": node}
    kind = create(OmegaConf.create(node))

    def work(builder: Builder, tracker: Tracker) -> None:
        devices, encoder, stored = cfg.get("devices") or 1, None, None
        if vectors is not None and model is not None and passages is None:
            stored = _stored(vectors, content["encode"], pooling)
        shared = stored is None and model is not None and devices > 1
        if model is None:
            writer, prepare = kind.writer(builder.path), as_texts
        else:
            encoder = load_encoder(model, idle=shared)
            writer = kind.writer(builder.path, encoder.dim, encoder.similarity)
            prepare = as_vectors(cfg.encode, encoder, pooling)
        cutting = None if passages is None else Cutting(passages, encoder)
        if cutting is not None:
            prepare = cutting.pieces(prepare)
        record = builder.log / "encoded.jsonl"
        if shared:
            read = by_devices(devices, collection, model, cfg.encode, pooling, passages)
        else:
            read = one_by_one(stored or from_collection(collection, prepare))
        todo = chunks(collection, cfg.encode.chunk, cutting, writer.documents)
        _fill(todo, read, collection, writer, record, tracker)
        writer.finish()
        (builder.path / "index.json").write_text(json.dumps(recorded(node), indent=1))
        conclude(builder, tracker, kind, record)

    return make(cfg, "index", "index", f"{collection.name.replace('/', '-')}-{cfg.name}", inputs, content, work, path)


def check_takes(kind: Any, model: bool) -> None:
    """ConfigError where an index that takes vectors is to be made without a model, or one of texts with one."""
    if kind.takes == "embeddings" and not model:
        raise ConfigError("no model is given to index with\ntry: model=<directory of a model>, or index=bm25")
    if kind.takes == "texts" and model:
        raise ConfigError(
            f"{type(kind).__name__} takes texts, so that nothing of a model would be seen in its results\n"
            "try: index=exact; or, without model=, experiments/index.py index=bm25"
        )


def index_kind(artifact: Artifact) -> Any:
    """The kind of the index in an artifact, by what its index.json says it is."""
    return create(OmegaConf.create(json.loads((artifact.path / "index.json").read_text())))


def open_index(artifact: Artifact) -> Any:
    """The index in an artifact."""
    return index_kind(artifact).open(artifact.path)


def pooling_of(cfg: DictConfig) -> dict[str, Any] | None:
    """The section `pooling` as plain values; None where there is none, or its factor says to pool nothing."""
    section = cfg.get("pooling")
    return None if section is None or section.factor == 1 else plain(section)


def passages_of(cfg: DictConfig) -> dict[str, Any] | None:
    """The section `passages` as plain values; None where there is none, or it cuts nothing."""
    section = cfg.get("passages")
    return None if section is None or section.length is None else plain(section)


def conclude(builder: Builder, tracker: Tracker, kind: Any, record: Path) -> None:
    """Count what was read and what the finished index holds."""
    facts = chunk_log.noted(record)
    names = (*_SUMMED, *_OF_PASSAGES)
    sums = {name: sum(f.get(name, 0) for f in facts) for name in names if any(name in f for f in facts)}
    stats = kind.open(builder.path).stats()
    if kind.takes == "embeddings":
        sums = {**dict.fromkeys(_SUMMED, 0), **sums}
    if "passages" in stats:
        sums = {**dict.fromkeys(_OF_PASSAGES, 0), **sums}
    builder.counts.update(sums, **stats)
    counts = builder.counts
    names = ("documents", "vectors", "bytes", "cut_documents", "passages", *_OF_PASSAGES, *_STALE)
    shown = {name: counts[name] for name in names if counts.get(name) is not None}
    if "vectors" in counts:
        shown["bytes_per_token"] = counts["bytes"] / max(1, counts["vectors"])
    shown["build_s"] = tracker.seconds()
    tracker.summary({f"index/{name}": value for name, value in shown.items()})


def _stored(vectors: Artifact, encode: dict[str, Any], pooling: dict[str, Any] | None) -> Read | None:
    """Chunks of documents from an exact index, with the counts of their encoding; None where it holds other vectors."""
    config, record = vectors.manifest["config"], vectors.path / LOG / "encoded.jsonl"
    same = config["index"].get("dtype") == "fp32" and config["pooling"] is None and config["encode"] == encode
    if not same or not hasattr(opened := open_index(vectors), "embeddings") or not record.is_file():
        return None
    known = {
        line["documents"]: {**{k: v for k, v in line.items() if k not in ("documents", "seconds")}, "read": True}
        for line in chunk_log.noted(record)
    }
    ids = opened.ids
    pool = None if pooling is None else create(OmegaConf.create(pooling))

    def read(rows: range, bar: Any) -> tuple[Any, dict[str, Any]]:
        embeddings = opened.embeddings(ids[rows.start : rows.stop])
        bar.advance(len(rows))
        return embeddings if pool is None else pool(embeddings), known[rows.stop]

    return read


def _fill(
    chunks: Sequence[range],
    read: ReadAll,
    collection: Collection,
    writer: Any,
    record: Path,
    tracker: Tracker,
) -> None:
    """Write chunk after chunk, those that the writer has not; `record` keeps what each chunk cost."""
    from colbert_lab.progress import progress

    corpus, done = collection.corpus, writer.documents
    chunk_log.keep(record, [line for line in chunk_log.noted(record) if line["documents"] <= done])
    tracker.resumed(done, "index/documents_done")
    with progress("index", len(corpus), "documents", done=done) as bar, closing(read(chunks, bar)) as documents_of:
        last = time.perf_counter()
        for rows in chunks:
            start = time.perf_counter()
            documents, facts = next(documents_of)
            # Of several devices the seconds that they were waited for: they work on while these are written.
            seconds = time.perf_counter() - start
            # Before the writer commits: a line too many is dropped at the next start, one too few could not be mended.
            chunk_log.note(record, {"documents": rows.stop, **facts, "seconds": seconds})
            writer.append(corpus.ids(rows), documents)
            last, taken = time.perf_counter(), time.perf_counter() - last
            speed = {"index/documents_per_s": len(rows) / taken}
            if "tokens" in facts:
                speed["index/tokens_per_s"] = facts["tokens"] / taken
            tracker.log(speed, rows.stop, "index/documents_done")
