"""Stanford's HF_ColBERT: a backbone's weights with `linear.weight` [d, h] among them, settings in artifact.metadata."""

import string
from dataclasses import asdict
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from colbert_lab.errors import ArtifactError
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.dialects.files import Record, load_parts, marker, positions, skipping, tensors
from colbert_lab.models.projection import linear
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

METADATA = "artifact.metadata"
MAP = "linear.weight"


def load(directory: Path) -> ColBERT:
    """The model of a Stanford checkpoint; keys that its metadata lack have the defaults of Stanford's code."""
    assumed: list[str] = []
    record = metadata(directory, assumed)
    weights = tensors(directory, {MAP})
    if MAP not in weights:
        raise ArtifactError(f"{directory}: its weights have no {MAP}, the projection of a Stanford checkpoint")
    backbone, tokenizer = load_parts(directory)
    weight = weights[MAP]
    if weight.ndim != 2 or weight.shape[1] != backbone.config.hidden_size:
        shape, hidden = list(weight.shape), backbone.config.hidden_size
        raise ArtifactError(f"{directory}: {MAP} is {shape}, and the backbone has {hidden} dimensions to project")
    if (said := record.get("dim", int)) not in (None, weight.shape[0]):
        assumed.append(f"dim={weight.shape[0]}, the rows of {MAP}; {METADATA} says {said}")
    limit = positions(backbone, tokenizer)
    rows = backbone.get_input_embeddings().num_embeddings
    query, document = (
        marker(record, key, record.get(key, str, default), tokenizer, rows)
        for key, default in (("query_token_id", "[unused0]"), ("doc_token_id", "[unused1]"))
    )
    skips = record.get("mask_punctuation", bool, True)
    contract = {
        "query_marker": query,
        "document_marker": document,
        "query_length": _length(record, "query_maxlen", 32, limit),
        "document_length": _length(record, "doc_maxlen", 220, limit),
        "attend_to_expansion": record.get("attend_to_mask_tokens", bool, False),
        **skipping(tokenizer, first_tokens(tokenizer), "document" if skips else "off", assumed),
    }
    similarity = check_scoring(record)
    if problems := Contract.problems(**{**asdict(Contract()), **contract}):
        raise ArtifactError(f"{record.file}: {'; '.join(problems)}")
    projection: nn.Linear = linear(weight)
    tokens = ColBERTTokenizer(tokenizer, Contract(**contract))
    return ColBERT(backbone, tokens, projection, similarity, {"assumed": assumed})


def metadata(directory: Path, assumed: list[str] | None = None) -> Record:
    """artifact.metadata, taken out of the "config" that some versions wrap it in; noted where there is no such file."""
    record = Record.read(directory / METADATA, assumed)
    if not record.file.is_file():
        record.assumed.append(f"{METADATA} is absent: the defaults of Stanford's code")
    wrapped = record.values.get("config")
    return Record(record.file, wrapped, record.assumed) if isinstance(wrapped, dict) else record


def check_scoring(record: Record) -> str:
    """The similarity that metadata name; ArtifactError for one, or for an interaction, that is not ColBERT's."""
    if record.get("interaction", str, "colbert", quiet=True) != "colbert":
        raise record.refused("interaction", "only 'colbert', which is MaxSim, is read")
    similarity = record.get("similarity", str, "cosine", quiet=True)
    if similarity not in ("cosine", "l2"):
        raise record.refused("similarity", "only 'cosine' and 'l2' are read")
    return similarity


def first_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Stanford's skiplist: the first token of every ASCII punctuation symbol; never the unknown one."""
    ids = [tokenizer(s, add_special_tokens=False, verbose=False)["input_ids"][:1] for s in string.punctuation]
    known = dict.fromkeys(i for first in ids for i in first if i != tokenizer.unk_token_id)
    return tokenizer.convert_ids_to_tokens(list(known))


def _length(record: Record, key: str, default: int, limit: int | None) -> int:
    """A length as it is said; an assumed one fits the backbone."""
    return record.get(key, int, default if limit is None else min(default, limit))
