"""Our checkpoints: a Hugging Face directory of the backbone, its tokenizer, the projection and the whole contract.

config.json, model.safetensors       the backbone, as AutoModel loads it
tokenizer files                      as AutoTokenizer loads them
projection.safetensors               linear.weight [d, h]; absent where the model has no projection
colbert_lab.json                     which model it is, contract, ids, similarity, attention, provenance; pooling

A ColBERT and a SingleVector are written alike; a record that does not say which is of a ColBERT.
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from colbert_lab.artifact import write_atomic
from colbert_lab.errors import ArtifactError
from colbert_lab.models.backbone import load_encoder
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import Encoder
from colbert_lab.models.projection import linear
from colbert_lab.models.record import read_record
from colbert_lab.models.single_vector import SingleVector
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

FORMAT = 1
CONTRACT_FILE = "colbert_lab.json"
PROJECTION_FILE = "projection.safetensors"
# Its ids tell whether letter case, accents, splitting or the numbering of words have changed.
_PROBE = "The Quick brown fox doesn't re-tokenise: café naïve ＡＢＣ 東京 x2.5"


def save_model(model: Encoder, directory: Path) -> None:
    """Write the checkpoint into an existing directory; the file that names it complete comes last."""
    model.backbone.save_pretrained(directory)
    model.tokenizer.save(directory)
    single = isinstance(model, SingleVector)
    projection = None if single else model.projection
    if projection is not None:
        save_file({"linear.weight": projection.weight.detach().cpu().contiguous()}, directory / PROJECTION_FILE)
    record = {
        "format": FORMAT,
        "model": "single_vector" if single else "colbert",
        "contract": model.tokenizer.contract.as_dict(),
        "ids": _ids(model.tokenizer),
        "similarity": model.similarity,
        "dim": model.dim,
        "projection": projection is not None,
        "attention": getattr(model.backbone.config, "_attn_implementation", None) or "sdpa",
        "provenance": model.provenance,
    }
    if single:
        record["pooling"] = model.pooling
    write_atomic(directory / CONTRACT_FILE, json.dumps(record, indent=1, ensure_ascii=False).encode())


def load_model(directory: str | Path) -> Encoder:
    """Read a checkpoint, a ColBERT's or a SingleVector's: the vectors of the model that was saved, bit for bit.

    ArtifactError where the directory is no checkpoint of ours, or where its tokenizer no longer gives the ids that were
    saved with it.
    """
    directory = Path(directory)
    record = read_record(directory / CONTRACT_FILE, FORMAT, "checkpoint")
    tokenizer = ColBERTTokenizer(AutoTokenizer.from_pretrained(directory), Contract(**record["contract"]))
    found = _ids(tokenizer)
    for name, saved in record["ids"].items():
        if found[name] != saved:
            raise ArtifactError(
                f"{directory}: the tokenizer now gives {name} = {found[name]}, the checkpoint was made with {saved}; "
                "its tokenizer files were changed, or the tokenizers package reads them differently"
            )
    backbone = load_encoder(str(directory), attention=record["attention"])
    if record.get("model", "colbert") == "single_vector":
        return SingleVector(backbone, tokenizer, record["pooling"], record["provenance"]).eval()
    projection = None
    if record["projection"]:
        projection = linear(load_file(directory / PROJECTION_FILE)["linear.weight"])
    return ColBERT(backbone, tokenizer, projection, record["similarity"], record["provenance"]).eval()


def _ids(tokenizer: ColBERTTokenizer) -> dict:
    return {
        "query_marker": tokenizer.query_marker,
        "document_marker": tokenizer.document_marker,
        "mask": tokenizer.mask_id,
        "skip": sorted(tokenizer.skip_ids),
        "prefix": tokenizer.prefix,
        "suffix": tokenizer.suffix,
        "probe": tokenizer.tokenizer(_PROBE, add_special_tokens=False, verbose=False)["input_ids"],
    }
