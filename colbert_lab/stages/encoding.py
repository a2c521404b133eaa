"""What of the section `encode` vectors depend on: the precision as this machine has it, batches and chunks.

"auto" is another precision on another machine, so that it stands in no key and no manifest. An artifact that says
"auto" all the same is of an earlier version; in which precision it was encoded is not known.
"""

from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact


def encoding(cfg: DictConfig, model: Artifact | None) -> dict[str, Any] | None:
    """What of cfg.encode documents depend on; None for texts."""
    return None if model is None else {**query_encoding(cfg), "chunk": cfg.encode.chunk}


def query_encoding(cfg: DictConfig) -> dict[str, Any]:
    """What of cfg.encode the vectors of queries depend on."""
    return {"precision": here(cfg.encode.precision), "batch_tokens": cfg.encode.batch_tokens}


def here(precision: str) -> str:
    """What a precision comes to on this machine: "auto" is fp32 or bf16; anything else is as it is."""
    from colbert_lab.models.precision import best_device, resolve_precision

    return resolve_precision(precision, best_device())


def known_precision(artifact: Artifact) -> str | None:
    """The precision that an index's or a run's vectors were encoded in; None where its manifest does not say."""
    found = (artifact.manifest["config"].get("encode") or {}).get("precision")
    return None if found == "auto" else found
