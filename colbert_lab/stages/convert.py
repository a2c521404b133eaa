"""convert: a Stanford (PLAID, RAGatouille) index directory to an index of ours, and an index of ours to theirs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import MANIFEST, Artifact, Builder, hash_file, hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.index import index_kind
from colbert_lab.stages.making import Outcome, create, make, say
from colbert_lab.tracking.tracker import Tracker

if TYPE_CHECKING:
    from colbert_lab.index.stanford import StanfordDirectory

_WRITTEN = "stanford_index"
# How documents are cut that are added later to an index of passages whose own were cut elsewhere.
_CUT = {"_target_": "colbert_lab.index.passages.Passages", "length": "model", "overlap": 0, "most": None}


def run(cfg: DictConfig) -> Outcome:
    """Read or write, by what cfg.source is."""
    if cfg.source is None:
        raise ConfigError("nothing is given to convert\ntry: source=<an index, or a directory of Stanford's>")
    path = Path(cfg.source).expanduser()
    given = Artifact.open(path, ("index", _WRITTEN)) if (path / MANIFEST).exists() else None
    if given and given.kind == "index":
        _refuse_unread(cfg, "an index of ours is written as Stanford's", ("data", "model", "convert.ids"))
        return _export(cfg, given)
    _refuse_unread(cfg, "Stanford's directory is read as it is", ("convert.bits", "convert.reencode"))
    return _import(cfg, path, given)


def _export(cfg: DictConfig, index: Artifact) -> Outcome:
    from colbert_lab.index.by_document import PassageIndexKind
    from colbert_lab.index.stanford_exchange import export_stanford, residual_files

    residual_files(index.path)
    of_passages = isinstance(index_kind(index), PassageIndexKind)
    # Theirs do not say whose vectors they hold; ours is read back with that model alone.
    inputs = {"index": index, "model": index.manifest["inputs"]["model"]["digest"]}
    content = {"bits": cfg.convert.bits, "reencode": cfg.convert.reencode}

    def work(builder: Builder, tracker: Tracker) -> None:
        builder.counts.update(export_stanford(index.path, builder.path, **content, of_passages=of_passages))
        builder.counts["bytes"] = sum(file.stat().st_size for file in builder.path.iterdir() if file.is_file())
        tracker.summary({f"convert/{name}": count for name, count in builder.counts.items()})

    made = make(cfg, "convert", _WRITTEN, cfg.name, inputs, content, work, cfg.run_dir)
    counts = made.manifest["counts"]
    text = f"{counts['documents']:,} documents, {counts['vectors']:,} vectors at {counts['bits']} bits"
    if counts["deleted_rows"]:
        text += f"; {counts['deleted_rows']:,} deleted rows were left out"
    if "mean_cosine" in counts:
        text += f"; encoded anew, mean cosine to the vectors before {counts['mean_cosine']:.4f}"
    return Outcome(made, f"{text}: {made.path}")


def _import(cfg: DictConfig, path: Path, given: Artifact | None) -> Outcome:
    from colbert_lab.index.by_document import PassageIndexKind
    from colbert_lab.index.residual.kind import ResidualIndexKind
    from colbert_lab.index.stanford import StanfordDirectory
    from colbert_lab.index.stanford_exchange import import_stanford, kind_of

    if cfg.model is None:
        raise ConfigError(
            "Stanford's directories do not say whose vectors they hold\ntry: model=<what its queries are encoded with>"
        )
    model = model_at(cfg, cfg.model)
    source = StanfordDirectory(path)
    _check_model(model, source, given)
    collection = open_collection(cfg)
    of_passages = cfg.convert.ids == "auto" and source.of_passages
    ids = _ids(cfg.convert.ids, source, collection, of_passages)
    inputs = {"source": given or _digest(path), "model": model, "collection": collection.artifact}
    node = {"_target_": _named(ResidualIndexKind), **kind_of(source).recorded()}
    content = {"index": node, "ids": cfg.convert.ids}
    if of_passages:
        content["passages"] = _CUT
        node = {"_target_": _named(PassageIndexKind), "kind": node}

    def work(builder: Builder, tracker: Tracker) -> None:
        counts = import_stanford(source, builder.path, ids)
        (builder.path / "index.json").write_text(json.dumps(node, indent=1))
        builder.counts.update(counts, **create(OmegaConf.create(node)).open(builder.path).stats())
        names = ("documents", "vectors", "bytes")
        tracker.summary({f"index/{name}": builder.counts[name] for name in names})

    made = make(cfg, "convert", "index", cfg.name, inputs, content, work, cfg.run_dir)
    counts = made.manifest["counts"]
    text = f"{counts['documents']:,} documents, "
    if of_passages:
        text = f"{counts['documents']:,} documents in {counts['passages']:,} passages, "
    text += f"{counts['vectors']:,} vectors at {source.codec.bits} bits"
    if counts["removed"]:
        text += f"; {counts['removed']:,} passages had been removed there"
    if counts["split_documents"]:
        text += f"; {counts['split_documents']:,} documents are several passages, and score as their best one"
    if counts["unfinished"]:
        text += "; it was not finished there (no metadata.json), though all its passages were"
    return Outcome(made, f"{text}: {made.path}")


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _check_model(model: Artifact, source: "StanfordDirectory", given: Artifact | None) -> None:
    dim = model.manifest["counts"].get("dim", source.codec.dim)
    if dim != source.codec.dim:
        raise ArtifactError(f"{source.path} has vectors of {source.codec.dim} dimensions, the model's have {dim}")
    written = given.manifest["inputs"]["model"]["digest"] if given else model.digest
    if written != model.digest:
        raise ArtifactError(
            f"{source.path} holds vectors of a model of digest {written[:12]}, the one at {model.path} has "
            f"{model.digest[:12]}: results of the two together would mean nothing"
        )


def _ids(choice: str, source: "StanfordDirectory", collection: Collection, of_passages: bool) -> list[str]:
    """One id a passage, `D#n` where they are `of_passages`; DataError where they are of another collection."""
    from colbert_lab.index.by_document import document_of

    ids = source.ids if choice == "auto" else None
    if choice == "numbers":
        ids = [str(number) for number in range(len(source))]
    elif ids is None:
        count = len(collection.corpus)
        if count != len(source):
            raise DataError(
                f"{source.path} has {len(source):,} passages and no ids of its own, {collection.name} has {count:,} "
                "documents, so a passage's number is not a document's line\n"
                "try: data=<its collection> or convert.ids=numbers"
            )
        ids = collection.corpus.ids(range(count))
    removed = set(source.removed.tolist())
    counted = [i for number, i in enumerate(ids) if number not in removed]
    documents = list(dict.fromkeys(map(document_of, counted))) if of_passages else counted
    unknown = sum(document not in collection.corpus for document in documents)
    if documents and unknown == len(documents):
        raise DataError(f"none of the ids there, {documents[0]!r} for example, is a document of {collection.name}")
    if unknown:
        say(f"{unknown:,} of {len(documents):,} ids there are no documents of {collection.name}")
    return ids


def _digest(path: Path) -> str:
    """A hash of the files' content: the directory is no artifact that has one."""
    files = sorted(file for pattern in ("*.pt", "*.json") for file in path.glob(pattern))
    return hash_json({file.name: hash_file(file) for file in files})


def _refuse_unread(cfg: DictConfig, why: str, keys: tuple[str, ...]) -> None:
    """ConfigError where something was chosen that this direction does not read."""
    given = [override.lstrip("+~") for override in cfg.get("overrides") or []]
    unread = [one for one in given if any(f"{one.partition('=')[0]}.".startswith(f"{key}.") for key in keys)]
    if unread:
        raise ConfigError(f"{why}, so {' '.join(unread)} would change nothing\ntry: leave it out")
