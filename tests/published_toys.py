"""Tiny checkpoints in the dialects of others, written by hand from what is known of their files."""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

IDENTITY = "torch.nn.modules.linear.Identity"
METADATA = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_token": "[Q]",
    "doc_token": "[D]",
    "dim": 16,
    "query_maxlen": 24,
    "doc_maxlen": 100,
    "mask_punctuation": True,
    "attend_to_mask_tokens": False,
    "similarity": "cosine",
    "interaction": "colbert",
    "nway": 64,
    "meta": {"version": "colbert-v0.4"},
}
SETTINGS = {
    "__version__": {"sentence_transformers": "4.0.2"},
    "prompts": {},
    "default_prompt_name": None,
    "similarity_fn_name": "MaxSim",
    "query_prefix": "[unused0]",
    "document_prefix": "[unused1]",
    "query_length": 24,
    "document_length": 100,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
}


def weight(rows: int, columns: int, seed: int = 1) -> torch.Tensor:
    """A random [rows, columns]."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def write_json(file: Path, value: Any) -> None:
    """A JSON file."""
    file.write_text(json.dumps(value), encoding="utf-8")


def edit(file: Path, **changes: Any) -> None:
    """Other values in a JSON file; None takes a key out."""
    held = json.loads(file.read_text(encoding="utf-8")) | changes
    write_json(file, {key: value for key, value in held.items() if value is not None})


def stanford(directory: Path, backbone: Path, metadata: dict | None = METADATA, pickled: bool = False) -> Path:
    """A Stanford checkpoint over a backbone of 32 dimensions: linear.weight [16, 32] among its weights."""
    shutil.copytree(backbone, directory)
    held = {
        f"bert.{name}": value.contiguous() for name, value in AutoModel.from_pretrained(backbone).state_dict().items()
    }
    held |= {"linear.weight": weight(16, 32), "bert.embeddings.position_ids": torch.arange(128)[None]}
    (directory / "model.safetensors").unlink()
    if pickled:
        torch.save(held, directory / "pytorch_model.bin")
    else:
        save_file(held, directory / "model.safetensors", {"format": "pt"})
    edit(directory / "config.json", architectures=["HF_ColBERT"])
    if metadata is not None:
        write_json(directory / "artifact.metadata", metadata)
    return directory


def dense(directory: Path, held: torch.Tensor, residual: torch.Tensor | None = None, **config: Any) -> None:
    """A Dense module's directory."""
    directory.mkdir()
    tensors = {"linear.weight": held} | ({} if residual is None else {"residual.weight": residual})
    save_file(tensors, directory / "model.safetensors")
    said = {"in_features": held.shape[1], "out_features": held.shape[0], "bias": False, "activation_function": IDENTITY}
    write_json(directory / "config.json", said | config)


def pylate(directory: Path, backbone: Path, maps: tuple[tuple, ...] = ((),), **settings: Any) -> Path:
    """A PyLate checkpoint over a backbone of 32 dimensions. `maps`: what `dense` takes, () for a plain [16, 32]."""
    shutil.copytree(backbone, directory)
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": 23, "do_lower_case": False})
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, given in enumerate(maps, 1):
        held, residual, config = given or (weight(16, 32), None, {})
        dense(directory / f"{i}_Dense", held, residual, **config)
        modules.append({"idx": i, "name": str(i), "path": f"{i}_Dense", "type": "pylate.models.Dense.Dense"})
    write_json(directory / "modules.json", modules)
    said = SETTINGS | settings
    write_json(directory / "config_sentence_transformers.json", {k: v for k, v in said.items() if v is not ...})
    return directory


def with_markers(directory: Path, backbone: Path, markers: tuple[str, ...] = ("[Q] ", "[D] ")) -> Path:
    """A copy of a backbone whose vocabulary and embeddings hold these markers too, as PyLate adds its own."""
    model, tokenizer = AutoModel.from_pretrained(backbone), AutoTokenizer.from_pretrained(backbone)
    tokenizer.add_tokens(list(markers))
    torch.manual_seed(3)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
