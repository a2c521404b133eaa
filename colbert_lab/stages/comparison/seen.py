"""What the models of a comparison were trained on, held against what they are judged by.

A model is followed back to the one that its training started from: what any of its trainings had seen counts. Each
names its collection and split, or the file or pools of its examples, in its log.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import LOG, Artifact, hash_file
from colbert_lab.data.collection import Collection
from colbert_lab.data.contamination import Pairs, pairs_of_examples, pairs_of_ids, pairs_of_split, shared_with
from colbert_lab.errors import ArtifactError, LabError
from colbert_lab.stages.comparison.kinds import LATE, models
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.lengths import original

# Training examples that are looked at, at most.
_MOST = 1_000_000


class _Unknown(Exception):
    """What a training saw cannot be told, and why."""


def guards(cfg: DictConfig, collection: Collection, made: Sequence[Made]) -> dict[str, Any]:
    """What every model's trainings share with what is judged, by model and training; and as sentences.

    Known of trainings here, on this or another collection, as far as collections and files are still there. An
    untrained late-interaction model shares nothing; of models from elsewhere it is told that this is not known.
    """
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    held: dict[str, dict[str, Any]] = {}
    for model in _models(cfg, made):
        told = found.setdefault(model.path.name, {})
        for step, reason in _trainings(model):
            try:
                if step is None:
                    raise _Unknown(reason)
                key, name, read = _examples(step, collection)
                if key not in held:
                    shared = shared_with(collection, cfg.split, read())
                    held[key] = {"training": name, **shared.to_json(), "notes": shared.notes()}
                told[name] = {what: value for what, value in held[key].items() if what != "notes"}
                notes += held[key]["notes"]
            except (_Unknown, LabError) as error:
                where = step.path.name if step is not None else model.path.name
                told[f"unknown of {where}"] = {"unknown": str(error)}
                notes.append(f"contamination is not known: {where}: {error}")
    return {"contamination": found, "notes": list(dict.fromkeys(notes))}


def _models(cfg: DictConfig, made: Sequence[Made]) -> list[Artifact]:
    """Every model and cross-encoder of the systems, each once, further seeds' too."""
    found: dict[str, Artifact] = {}
    for one in made:
        several = [model_at(cfg, place) for place in models(cfg, one.system)] if isinstance(one.system, LATE) else []
        for model in (*several, one.model, one.teacher):
            if model is not None:
                found.setdefault(model.digest, model)
    return list(found.values())


def _trainings(model: Artifact) -> Iterator[tuple[Artifact | None, str]]:
    """The trained models from this one back to the first; then (None, why) where what lies before is not known."""
    step = original(model)
    while "examples" in step.manifest["inputs"]:
        yield step, ""
        source = step.manifest["inputs"].get("start")
        if source is None:
            return  # a cross-encoder, which starts from its backbone
        try:
            start = Artifact.open(source["path"], "model")
        except ArtifactError as error:
            yield None, f"the model that {step.path.name} was trained from is gone: {error}"
            return
        if start.digest != source["digest"]:
            yield None, f"the model that {step.path.name} was trained from is gone: another lies at {start.path}"
            return
        step = original(start)
    config = step.manifest["config"]
    if "backbone" in config and "pooling" in config:
        yield None, f"it is the backbone {config['backbone'].get('name')} as it came, trained elsewhere"
    elif "backbone" not in config:
        yield None, "the model was not trained here"


def _examples(step: Artifact, judged: Collection) -> tuple[str, str, Callable[[], Pairs]]:
    """What a training saw: a key of its content, a name, and what reads it; _Unknown, and why, where it is gone."""
    file = step.path / LOG / "config.yaml"
    if not file.is_file():
        raise _Unknown("the log of its training, which names what it was trained on, is gone")
    config = OmegaConf.load(file)
    examples, split = config.examples, config.splits.train
    kind = examples._target_.rpartition(".")[2]
    given = step.manifest["inputs"]
    if kind == "TextTriples":
        return _of_file(step, examples.file, None)
    collection = judged
    if given["collection"]["digest"] != judged.digest:
        try:
            collection = Collection.open(given["collection"]["path"])
        except ArtifactError as error:
            raise _Unknown(f"it was trained on another collection: {error}") from error
        if collection.digest != given["collection"]["digest"]:
            raise _Unknown(f"it was trained on another collection than the one at {collection.artifact.path} now")
    label = "" if collection is judged else f"{collection.name} "
    if kind == "QrelsExamples":
        if split not in collection.splits:
            raise _Unknown(f"{collection.name} has no split {split!r}, only {', '.join(collection.splits) or 'none'}")
        name = f"{label}{split}"
        return f"{collection.digest} {split}", name, lambda: pairs_of_split(collection, split, name)
    if kind == "PooledExamples":
        return _of_pools(given["tuples"], collection, label)
    if kind == "DocPairs":
        from colbert_lab.data.doc_pairs import DocPairs

        name = f"{label}docpairs {examples.id}"
        read = _reader(lambda: DocPairs(collection, examples.id), name, collection)
        return f"{collection.digest} {name}", name, read
    return _of_file(step, examples.file, collection, label)


def _of_file(
    step: Artifact, place: str, collection: Collection | None, label: str = ""
) -> tuple[str, str, Callable[[], Pairs]]:
    """Examples in a file: of ids of a collection, or of raw texts where there is none."""
    from colbert_lab.data.text_triples import TextTriples
    from colbert_lab.data.tuples import Tuples

    path = Path(place).expanduser()
    record = step.path / LOG / "examples.json"
    if not path.is_file():
        raise _Unknown(f"the file of its examples, {path}, is gone")
    digest = hash_file(path)
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("sha256", digest) != digest:
        raise _Unknown(f"the file of its examples, {path}, has changed since")
    name = f"{label}{path.name}"
    make = (lambda: TextTriples(place)) if collection is None else (lambda: Tuples(collection, place, checked=0))
    return digest if collection is None else f"{collection.digest} {digest}", name, _reader(make, name, collection)


def _reader(make: Callable[[], Any], name: str, collection: Collection | None) -> Callable[[], Pairs]:
    def read() -> Pairs:
        examples = make()
        part = f", {_MOST:,} of {len(examples):,} examples" if len(examples) > _MOST else ""
        return pairs_of_examples(examples, name + part, None if collection is None else collection.digest, _MOST)

    return read


def _of_pools(given: dict[str, Any], collection: Collection, label: str) -> tuple[str, str, Callable[[], Pairs]]:
    """Examples drawn from pools: every positive of theirs may have been drawn."""
    from colbert_lab.mining.pools import FILE, read_pools

    try:
        pools = Artifact.open(given["path"], "tuples")
    except ArtifactError as error:
        raise _Unknown(f"the pools that its examples were drawn from are gone: {error}") from error
    if pools.digest != given["digest"]:
        raise _Unknown(f"the pools that its examples were drawn from are gone: others lie at {pools.path}")
    name = f"{label}pools {pools.path.name}"

    def read() -> Pairs:
        positives: dict[str, list[str]] = {}
        for pool in read_pools(pools.path / FILE):
            positives.setdefault(pool.query, []).extend(pool.positives)
        return pairs_of_ids(collection, positives, name)

    return f"{collection.digest} {pools.digest}", name, read
