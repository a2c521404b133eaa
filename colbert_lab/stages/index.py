"""index: a model and a collection to an index; encoding and writing go on from any interruption."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.making import Outcome, create, make, plain
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Index the collection with the model at cfg.model."""
    if cfg.model is None:
        raise ConfigError("no model is given to index with\ntry: model=<directory of a model>")
    model = Artifact.open(cfg.model, "model")
    index = index_with(cfg, model, open_collection(cfg), cfg.run_dir)
    counts = index.manifest["counts"]
    text = (
        f"{counts['documents']:,} documents, {counts['vectors']:,} vectors, {counts['bytes'] / 2**20:,.0f} MiB; "
        f"{counts['cut_documents']:,} documents were cut: {index.path}"
    )
    return Outcome(index, text)


def index_with(cfg: DictConfig, model: Artifact, collection: Collection, path: str | None = None) -> Artifact:
    """The index of cfg.index over the collection's documents, encoded by the model."""
    inputs = {"model": model, "collection": collection.artifact}
    content = {"index": cfg.index, "encode": {key: cfg.encode[key] for key in ("precision", "batch_tokens", "chunk")}}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.models.checkpoint import load_model
        from colbert_lab.models.precision import best_device

        encoder = load_model(model.path).to(best_device())
        kind = create(cfg.index)
        writer = kind.writer(builder.path, encoder.dim, encoder.similarity)
        _encode(cfg.encode, encoder, collection, writer, builder.log / "encoded.jsonl", tracker)
        writer.finish()
        (builder.path / "index.json").write_text(json.dumps(plain(cfg.index), indent=1))
        builder.counts.update(_sums(builder.log / "encoded.jsonl"), **kind.open(builder.path).stats())
        counts = builder.counts
        tracker.summary(
            {
                "index/documents": counts["documents"],
                "index/vectors": counts["vectors"],
                "index/bytes": counts["bytes"],
                "index/bytes_per_token": counts["bytes"] / max(1, counts["vectors"]),
                "index/cut_documents": counts["cut_documents"],
            }
        )

    return make(cfg, "index", "index", f"{collection.name.replace('/', '-')}-{cfg.name}", inputs, content, work, path)


def open_index(artifact: Artifact) -> Any:
    """The index in an artifact, by what its index.json says it is."""
    from omegaconf import OmegaConf

    return create(OmegaConf.create(json.loads((artifact.path / "index.json").read_text()))).open(artifact.path)


def _encode(
    options: DictConfig, encoder: Any, collection: Collection, writer: Any, record: Path, tracker: Tracker
) -> None:
    """Encode chunk after chunk from the first that the writer has not; `record` keeps what each chunk cost."""
    import time

    from colbert_lab.models.encoding import encode
    from colbert_lab.progress import progress

    corpus, done = collection.corpus, writer.documents
    _keep_lines(record, done)
    tracker.resumed(done, "index/documents_done")
    with progress("encode", len(corpus), "documents", done=done) as bar, record.open("a") as lines:
        for first in range(done, len(corpus), options.chunk):
            rows = range(first, min(first + options.chunk, len(corpus)))
            start = time.perf_counter()
            encoded = encode(
                encoder, corpus[rows.start : rows.stop], "document", options.precision, options.batch_tokens, bar=bar
            )
            seconds = time.perf_counter() - start
            facts = {
                "documents": rows.stop,
                "tokens": encoded.tokens,
                "padded": encoded.padded,
                "cut_documents": encoded.cut_texts,
                "cut_tokens": encoded.cut_tokens,
                "seconds": seconds,
            }
            # Before the writer commits: a line too many is dropped at the next start, one too few could not be mended.
            lines.write(json.dumps(facts) + "\n")
            lines.flush()
            writer.append(corpus.ids(rows), encoded.embeddings)
            tracker.log(
                {"index/documents_per_s": len(rows) / seconds, "index/tokens_per_s": encoded.tokens / seconds},
                rows.stop,
                "index/documents_done",
            )


def _keep_lines(record: Path, documents: int) -> None:
    """Drop the lines of chunks that were not committed, and a half-written one."""
    if not record.exists():
        return
    kept = []
    for line in record.read_text().splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["documents"] <= documents:
            kept.append(line)
    record.write_text("".join(kept))


def _sums(record: Path) -> dict[str, int]:
    facts = [json.loads(line) for line in record.read_text().splitlines()]
    return {name: sum(f[name] for f in facts) for name in ("tokens", "cut_documents", "cut_tokens")}
