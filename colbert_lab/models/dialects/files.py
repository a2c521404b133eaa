"""What a published checkpoint's files hold: JSON with typed keys, tensors, the backbone; errors name the file."""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.models.backbone import explained, load_encoder, max_positions
from colbert_lab.text.tokenizer import punctuation_ids

CONFIG = "config.json"
_KINDS = {int: "a whole number", bool: "true or false", str: "a string", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Record:
    """A JSON object of a checkpoint's, whose keys are read with their types; `assumed` collects what it left open."""

    file: Path
    values: dict[str, Any]
    assumed: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path, assumed: list[str] | None = None) -> "Record":
        """The object in `file`; an empty one where there is no such file."""
        values = read_json(file) if file.is_file() else {}
        if not isinstance(values, dict):
            raise ArtifactError(f"{file} holds {type(values).__name__}, and should hold an object")
        return cls(file, values, [] if assumed is None else assumed)

    def get(self, key: str, kind: type, default: Any = None, quiet: bool = False) -> Any:
        """The value of `key`, which is a `kind`; where it is absent or null `default`, noted unless that is None."""
        value = self.values.get(key)
        if value is None:
            if default is not None and not quiet:
                self.assumed.append(f"{key}={default!r}, which {self.file.name} does not say")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refused(key, f"{_KINDS[kind]} was expected")
        return value

    def refused(self, key: str, why: str) -> ArtifactError:
        """An error that names the file, the key and what it is."""
        return ArtifactError(f"{self.file}: {key} is {self.values.get(key)!r}; {why}")


def read_json(file: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} cannot be read as JSON: {error}") from error


def tensors(directory: Path, names: set[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a directory's weights, those of these names or all, on the CPU; safetensors before pickles.

    A pickle is read as tensors and nothing else.
    """
    found: dict[str, Tensor] = {}
    for file in _weights(directory):
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt") as opened:
                    kept = [name for name in opened.keys() if names is None or name in names]  # noqa: SIM118
                    found |= {name: opened.get_tensor(name) for name in kept}
            except (SafetensorError, OSError) as error:
                raise ArtifactError(f"{file} cannot be read, it may have been cut short: {error}") from error
            continue
        try:
            held = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ArtifactError(
                f"{file} cannot be read as tensors alone ({str(error).strip().splitlines()[0]}); what else is in it is "
                "never run. Where you trust it, load it yourself and save its tensors as safetensors"
            ) from error
        found |= {n: t for n, t in held.items() if isinstance(t, Tensor) and (names is None or n in names)}
    return found


def has_tensor(directory: Path, name: str) -> bool:
    """Whether a directory's weights have a tensor of this name."""
    return name in tensors(directory, {name})


def load_parts(directory: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone of a checkpoint, all of whose weights are there, and its tokenizer; no code of it is run."""
    config = Record.read(directory / CONFIG)
    if config.values.get("is_encoder_decoder"):
        raise config.refused("is_encoder_decoder", "only encoders are read")
    if (directory / "adapter_config.json").is_file():
        raise ArtifactError(
            f"{directory / 'adapter_config.json'}: the weights are an adapter's; merge it into its model"
        )
    tensors(directory, set())
    with _quiet():
        try:
            backbone = load_encoder(str(directory), whole=True)
            tokenizer = explained(str(directory), AutoTokenizer.from_pretrained, directory, trust_remote_code=False)
        except (ConfigError, RuntimeError) as error:
            if config.values.get("auto_map"):
                raise config.refused("auto_map", "its model is code of the repository's, which is never run") from error
            if isinstance(error, ConfigError):
                raise
            raise ArtifactError(f"{config.file} and the weights beside it do not fit: {error}") from error
    return backbone, tokenizer


def positions(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many ids a text can have at most by the backbone and by its tokenizer; None where neither has an end."""
    limits = [max_positions(backbone), tokenizer.model_max_length]
    return min((limit for limit in limits if limit is not None and limit < 10**6), default=None)


def marker(record: Record, key: str, value: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> str | None:
    """The vocabulary string that a marker's setting names, with its blank or without; None for an empty one."""
    if not value:
        return None
    vocabulary = tokenizer.get_vocab()
    for string in (value, value.strip()):
        if string in vocabulary:
            if vocabulary[string] >= rows:
                raise ArtifactError(f"{record.file}: {key} is {value!r}, id {vocabulary[string]}, of {rows} embeddings")
            return string
    raise ArtifactError(
        f"{record.file}: {key} is {value!r}, which the vocabulary of its tokenizer has not, so it would become the "
        "unknown token"
    )


def prompted(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str | None, str]:
    """Words that stand before every text, as (marker, prompt): the first is a marker where it is a token of its own."""
    added = tokenizer.get_added_vocab()
    for string in dict.fromkeys((text, *text.split(None, 1)[:1])):
        if string in added and tokenizer.tokenize(string) == [string]:
            prompt = text[len(string) :]
            # The blank behind a marker matters only where it becomes part of the word that follows.
            alike = not prompt.strip() and all(
                tokenizer.tokenize(prompt + word) == tokenizer.tokenize(word) for word in ("river", "2", "(a)")
            )
            return string, "" if alike else prompt
    return None, text


def skipping(tokenizer: PreTrainedTokenizerBase, words: list[str], side: str, assumed: list[str]) -> dict[str, Any]:
    """The contract's fields for a skiplist of vocabulary strings; those that the vocabulary lacks are noted."""
    vocabulary = tokenizer.get_vocab()
    known = [word for word in dict.fromkeys(words) if word in vocabulary]
    if unknown := sorted(set(words) - set(known)):
        assumed.append(f"not skipped, as the vocabulary has no such token: {' '.join(unknown)}")
    if not known or side == "off":
        return {"skip_punctuation": "off"}
    usual = {vocabulary[word] for word in known} == set(punctuation_ids(tokenizer))
    return {"skip_punctuation": side, "skip_words": None if usual else tuple(known)}


def _weights(directory: Path) -> list[Path]:
    """The files of a directory's weights: one, or its shards."""
    for patterns in (("model.safetensors", "model-*.safetensors"), ("pytorch_model.bin", "pytorch_model-*.bin")):
        for pattern in patterns:
            if files := sorted(directory.glob(pattern)):
                return files
    raise ArtifactError(f"{directory} has no weights: neither model.safetensors nor pytorch_model.bin")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the report of weights that transformers did not expect: a projection beside the backbone is meant."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
