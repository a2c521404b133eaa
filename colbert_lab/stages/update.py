"""update: another index made of one, with documents deleted, changed and added; the old one stays as it is.

The old index's files are copied, then edited step by step. `steps.jsonl` says before each step what the index's head
was; after a kill the head tells whether the last step was committed, so that none is done twice.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import Artifact, Builder, hash_file, hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index import disk
from colbert_lab.index.files import HEAD
from colbert_lab.stages import chunk_log
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.encoding import encoding, known_precision, query_encoding
from colbert_lab.stages.index import conclude, described, index_kind
from colbert_lab.stages.making import Outcome, input_of, make, plain, say
from colbert_lab.stages.reading import Cutting, as_texts, as_vectors, by_size, load_encoder
from colbert_lab.stages.search import read_ids
from colbert_lab.tracking.tracker import Tracker

_COPIED = "copied"
# Documents -> about how many passages each has.
_Sizes = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class _Plan:
    """What is to be done, in this order: ids to delete, to change and to add."""

    delete: list[str]
    update: list[str]
    add: list[str]

    def steps(self, chunk: int, sizes: "_Sizes | None" = None) -> Iterator[tuple[str, list[str]]]:
        """Steps of `chunk` documents; given `sizes`, of documents of about so many passages.

        A document's passages cannot be changed in one commit: there, it is deleted and added instead.
        """
        delete, update, add = self.delete, self.update, self.add
        if sizes is not None:
            delete, update, add = delete + update, [], update + add
        if delete:
            yield "delete", delete
        for name, ids in (("update", update), ("add", add)):
            for rows in by_size(np.ones(len(ids)) if sizes is None else sizes(ids), chunk):
                yield name, ids[rows.start : rows.stop]


def run(cfg: DictConfig) -> Outcome:
    """Make the updated index."""
    if cfg.index_dir is None:
        raise ConfigError("no index is given to update\ntry: index=<directory of an index>")
    index = Artifact.open(cfg.index_dir, "index")
    given = "data" in cfg and cfg.data is not None
    if cfg.add is not None and not given:
        raise ConfigError(f"add={cfg.add} names documents, but not where their texts are\ntry: data=beir data.root=DIR")
    if not given and cfg.delete is None:
        raise ConfigError("nothing is to be changed\ntry: delete=FILE, or data=beir data.root=DIR")
    # The collection that the new index stands for, whose queries it is searched with.
    collection = open_collection(cfg) if given else Collection(input_of(index, "collection", cfg.collection))
    cfg = _encoded_alike(cfg, index)
    plan = _plan(cfg, index, collection, given)
    made = _updated(cfg, index, collection, plan)
    counts = made.manifest["counts"]
    done = ", ".join(f"{counts[name]:,} {name}" for name in ("deleted", "updated", "added"))
    return Outcome(made, f"{done}; {described(made)}: {made.path}")


def _encoded_alike(cfg: DictConfig, index: Artifact) -> DictConfig:
    """`cfg` with the index's own precision; ConfigError for another one, which would mix vectors of both in it.

    Where it is not known what the index's own is (it was converted, or says "auto"), the one that is asked for counts,
    and where that is "auto", it is said what it comes to here.
    """
    view, asked = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False)), cfg.encode.precision
    if index_kind(index).takes != "embeddings":
        return view
    own = known_precision(index)
    if own is None:
        view.encode.precision = query_encoding(cfg)["precision"]
        if asked == "auto" and cfg.get("data") is not None:
            say(
                f"{index.path} does not say in which precision its vectors were encoded; what is added to it is "
                f"encoded in {view.encode.precision}\ntry: encode.precision=fp32 or bf16, if it is known"
            )
        return view
    if asked not in ("auto", own):
        raise ConfigError(
            f"encode.precision={asked}, but the index's own vectors were encoded with {own}\ntry: encode.precision=auto"
        )
    view.encode.precision = own
    return view


def _plan(cfg: DictConfig, index: Artifact, collection: Collection, given: bool) -> _Plan:
    opened = index_kind(index).open(index.path)
    held = set(opened.ids)
    delete = [] if cfg.delete is None else read_ids(cfg.delete)
    wanted = [] if not given else collection.corpus.all_ids() if cfg.add is None else read_ids(cfg.add)
    checks = (
        (cfg.delete, "are not in the index", [i for i in delete if i not in held]),
        (cfg.add, f"are not in {collection.name}", [i for i in wanted if i not in collection.corpus]),
        (cfg.delete, "are to be added as well", sorted(set(delete) & set(wanted))),
    )
    for file, what, wrong in checks:
        if wrong:
            raise DataError(f"{file}: {len(wrong):,} documents {what}, {wrong[0]!r} is the first")
    return _Plan(delete, [i for i in wanted if i in held], [i for i in wanted if i not in held])


def _updated(cfg: DictConfig, index: Artifact, collection: Collection, plan: _Plan) -> Artifact:
    kind, config = index_kind(index), index.manifest["config"]
    model = input_of(index, "model", cfg.model_at) if kind.takes == "embeddings" else None
    inputs = {"index": index, "collection": collection.artifact, **({} if model is None else {"model": model})}
    content = {
        "index": config.get("index"),
        "pooling": config.get("pooling"),
        "encode": encoding(cfg, model),
        "update": {name: hash_json(ids) for name, ids in vars(plan).items()},
    }
    if (passages := config.get("passages")) is not None:
        content["passages"] = passages

    def work(builder: Builder, tracker: Tracker) -> None:
        _copy(index, builder)
        prepare = as_texts if model is None else None
        # An edit of BM25 weighs every word anew, so that all is one step.
        chunk = cfg.encode.chunk if model is not None else max(1, len(collection.corpus))
        record = builder.log / "steps.jsonl"
        done = _committed(record, builder.path)
        tracker.resumed(done, "index/steps_done")
        coming = bool(plan.update or plan.add)
        encoder = load_encoder(model) if model is not None and coming else None
        cutting = None if passages is None or not coming else Cutting(passages, encoder)
        steps = list(plan.steps(chunk, None if cutting is None else lambda ids: _sizes(collection, cutting, ids)))
        if encoder is not None:
            prepare = as_vectors(cfg.encode, encoder, content["pooling"])
        if cutting is not None:
            prepare = cutting.pieces(prepare)
        if steps[done:]:
            _edit(kind.open(builder.path), steps[done:], prepare, collection, record, builder.path / HEAD)
        builder.counts.update(deleted=len(plan.delete), updated=len(plan.update), added=len(plan.add))
        conclude(builder, tracker, kind, record)

    name = f"{collection.name.replace('/', '-')}-{cfg.name}"
    return make(cfg, "update", "index", name, inputs, plain(content), work, cfg.run_dir)


def _sizes(collection: Collection, cutting: Cutting, ids: Sequence[str]) -> np.ndarray:
    return cutting.passages.estimate(collection.corpus.characters[collection.corpus.rows(ids)], cutting.tokenizer)


def _copy(index: Artifact, builder: Builder) -> None:
    """The old index's files into the new one's directory, once: from then on they are edited."""
    marker = builder.log / _COPIED
    if marker.exists():
        return
    for name in index.manifest["files"]:
        (builder.path / name).parent.mkdir(parents=True, exist_ok=True)
        with disk.telling(builder.path / name):
            shutil.copyfile(index.path / name, builder.path / name)
    marker.touch()


def _edit(
    opened: Any, steps: Sequence[tuple[str, list[str]]], prepare: Any, collection: Collection, record: Path, head: Path
) -> None:
    from colbert_lab.progress import progress

    total = sum(len(ids) for _, ids in steps)
    with progress("update", total, "documents") as bar:
        for name, ids in steps:
            start = time.perf_counter()
            facts: dict[str, Any] = {}
            if name == "delete":
                bar.advance(len(ids))
                arguments: tuple = (ids,)
            else:
                documents, facts = prepare(collection.corpus.get(ids), bar)
                arguments = (ids, documents)
            line = {"step": name, "documents": len(ids), "before": hash_file(head), **facts}
            chunk_log.note(record, {**line, "seconds": time.perf_counter() - start})
            getattr(opened, name)(*arguments)


def _committed(record: Path, directory: Path) -> int:
    """How many steps were committed; the line of one that was not, or a half-written one, is dropped."""
    kept = chunk_log.noted(record)
    if kept and kept[-1]["before"] == hash_file(directory / HEAD):
        kept.pop()
    chunk_log.keep(record, kept)
    return len(kept)
