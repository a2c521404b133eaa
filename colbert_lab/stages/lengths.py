"""A model at other lengths: the same weights under a contract that cuts queries and documents elsewhere."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.stages.making import make
from colbert_lab.tracking.tracker import Tracker

STAGE = "lengths"


def with_lengths(cfg: DictConfig, model: Artifact, query_length: int | None, document_length: int | None) -> Artifact:
    """The model with these lengths in ids, special ones included; itself where they are None or its own already.

    What a benchmark's texts are cut at is the benchmark's, and a model's index and runs must say so: a model with
    another contract is another model. ConfigError where the backbone has fewer positions.
    """
    from colbert_lab.models.checkpoint import CONTRACT_FILE, load_model
    from colbert_lab.models.colbert import check_fit
    from colbert_lab.text.contract import Contract

    record = json.loads((model.path / CONTRACT_FILE).read_text())
    asked = {"query_length": query_length, "document_length": document_length}
    own = Contract(**record["contract"])
    contract = replace(own, **{name: length for name, length in asked.items() if length is not None})
    if contract == own:
        return model
    if problems := Contract.problems(**asdict(contract)):
        raise ConfigError(problems, f"the lengths of {model.path.name}")
    content = {name: getattr(contract, name) for name in asked}

    def work(builder: Builder, tracker: Tracker) -> None:
        encoder = load_model(model.path)
        encoder.tokenizer.contract = contract
        check_fit(encoder.backbone, encoder.tokenizer)
        for name in model.manifest["files"]:
            (builder.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.path / name, builder.path / name)
        (builder.path / CONTRACT_FILE).write_text(
            json.dumps({**record, "contract": contract.as_dict()}, indent=1, ensure_ascii=False)
        )
        builder.counts.update(model.manifest["counts"])
        tracker.summary(content)

    name = f"{model.path.name}-q{contract.query_length}-d{contract.document_length}"
    return make(cfg, STAGE, "model", name, {"model": model}, content, work)


def original(model: Artifact) -> Artifact:
    """The model that one at other lengths was made of, as far as it is still there; else the model itself."""
    source = model.manifest["inputs"].get("model")
    if source is None or set(model.manifest["config"]) != {"query_length", "document_length"}:
        return model
    try:
        found = Artifact.open(Path(source["path"]), "model")
    except ArtifactError:
        return model
    # Another model may lie there by now.
    return original(found) if found.digest == source["digest"] else model
