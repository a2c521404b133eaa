"""Reading documents for an index, chunk after chunk: texts, or vectors of them, whole or of their passages.

A chunk is encoded by itself, so that several processes, each with a device of its own, give what one gives; on a CPU,
where each has fewer threads, but for the last bits at most.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.processes import gpus_for, in_order
from colbert_lab.stages.making import create, plain

# Turns texts into what a writer takes, and says what that cost; tells a progress bar (or None) of them.
Prepare = Callable[[Sequence[str], Any], tuple[Any, dict[str, Any]]]
# The documents of some rows, likewise.
Read = Callable[[range, Any], tuple[Any, dict[str, Any]]]
# The documents of many such chunks, one after the other.
ReadAll = Callable[[Sequence[range], Any], Iterator[tuple[Any, dict[str, Any]]]]


def one_by_one(read: Read) -> ReadAll:
    """The chunks read here, each when it is asked for."""
    return lambda chunks, bar: (read(rows, bar) for rows in chunks)


def from_collection(collection: Collection, prepare: Prepare) -> Read:
    """The documents of some rows of the collection's corpus, prepared."""
    return lambda rows, bar: prepare(collection.corpus[rows.start : rows.stop], bar)


def by_devices(
    devices: int,
    collection: Collection,
    model: Artifact,
    options: DictConfig,
    pooling: dict[str, Any] | None,
    passages: dict[str, Any] | None,
) -> ReadAll:
    """The chunks encoded by the model, by so many processes at once; the same vectors as one gives, in the same order.

    `options`, `pooling` and `passages` are what as_vectors and Cutting take.
    """
    given = (collection, model, OmegaConf.create(plain(options)), pooling, passages)

    def read(chunks: Sequence[range], bar: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        with closing(in_order(devices, _encoding_of, given, chunks, gpus_for(devices))) as results:
            for rows, (documents, facts) in zip(chunks, results, strict=True):
                bar.advance(len(rows), tokens=facts["tokens"])
                yield documents, facts

    return read


def _encoding_of(
    collection: Collection,
    model: Artifact,
    options: DictConfig,
    pooling: dict[str, Any] | None,
    passages: dict[str, Any] | None,
) -> Callable[[range], tuple[Any, dict[str, Any]]]:
    encoder = load_encoder(model)
    prepare = as_vectors(options, encoder, pooling)
    if passages is not None:
        prepare = Cutting(passages, encoder).pieces(prepare)
    read = from_collection(collection, prepare)
    return lambda rows: read(rows, None)


def load_encoder(model: Artifact, idle: bool = False) -> Any:
    """The model in an artifact, on the best device there is; where it is to be `idle`, it takes no room there."""
    from colbert_lab.models.checkpoint import load_model
    from colbert_lab.models.precision import best_device

    loaded = load_model(model.path)
    return loaded if idle else loaded.to(best_device())


def as_texts(texts: Sequence[str], bar: Any) -> tuple[Sequence[str], dict[str, Any]]:
    """Documents for an index that takes texts."""
    if bar is not None:
        bar.advance(len(texts))
    return texts, {}


def as_vectors(options: DictConfig, encoder: Any, pooling: dict[str, Any] | None) -> Prepare:
    """Documents for an index that takes vectors: encoded, and pooled where that is asked for."""
    from colbert_lab.models.encoding import encode

    pool = None if pooling is None else create(OmegaConf.create(pooling))

    def prepare(texts: Sequence[str], bar: Any) -> tuple[Any, dict[str, Any]]:
        encoded = encode(encoder, texts, "document", options.precision, options.batch_tokens, bar=bar)
        facts = {
            "tokens": encoded.tokens,
            "padded": encoded.padded,
            "cut_documents": encoded.cut_texts,
            "cut_tokens": encoded.cut_tokens,
            "encoded_vectors": len(encoded.embeddings.values),
        }
        return encoded.embeddings if pool is None else pool(encoded.embeddings), facts

    return prepare


class Cutting:
    """Documents cut into passages, as the values of a section `passages` say and for this model (None: none)."""

    def __init__(self, passages: dict[str, Any], encoder: Any):
        self.passages = create(OmegaConf.create(passages))
        self.tokenizer = None if encoder is None else encoder.tokenizer

    def pieces(self, prepare: Prepare) -> Prepare:
        """Documents as Pieces of passages that `prepare` made what the index takes."""
        from colbert_lab.index.by_document import Pieces

        def prepared(texts: Sequence[str], bar: Any) -> tuple[Any, dict[str, Any]]:
            split = self.passages.split(texts, self.tokenizer)
            passages, facts = prepare(split.texts, None)
            if bar is not None:
                bar.advance(len(texts), passages=len(split.texts))
            if "cut_documents" in facts:
                facts["cut_passages"] = facts["cut_documents"]
            facts |= {"cut_documents": split.shortened, "left_out_passages": split.left_out}
            return Pieces(passages, split.counts), facts

        return prepared


def chunks(collection: Collection, size: int, cutting: Cutting | None, first: int = 0) -> list[range]:
    """The rows from `first` on in chunks of `size` documents, or of documents with about so many passages."""
    count = len(collection.corpus)
    if cutting is None:
        return [range(start, min(start + size, count)) for start in range(first, count, size)]
    return by_size(cutting.passages.estimate(collection.corpus.characters[first:], cutting.tokenizer), size, first)


def by_size(sizes: np.ndarray, most: int, first: int = 0) -> list[range]:
    """Consecutive rows, numbered from `first`, whose sizes sum to at most `most`; a larger one is alone."""
    ends, found, start = np.cumsum(sizes), [], 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        found.append(range(first + start, first + stop))
        start = stop
    return found
