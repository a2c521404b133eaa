"""A cross-encoder: query and document read together by a sequence classifier with one output, the teacher's kind.

It scores better than encoders that never see the two together, and too slowly to search with (arXiv 1901.04085).
ColBERTv2 distils from one: a 22M-parameter MiniLM, pairs of at most 180 ids, the raw logit (arXiv 2112.01488, 3.2).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from colbert_lab.artifact import write_atomic
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.models.backbone import aligned, explained, has_safetensors, max_positions, resolve
from colbert_lab.models.encoding import batches
from colbert_lab.models.precision import Precision, autocast
from colbert_lab.models.record import read_record
from colbert_lab.progress import Progress

FORMAT = 1
RECORD_FILE = "cross_encoder.json"
_MEND = "try: the name of a local directory or a Hugging Face id, or embedded/all-MiniLM-L6-v2, which needs no download"


@dataclass(frozen=True)
class PairTokens:
    """P pairs as ids, each as long as it is: ids and token types, and how many ids its maximum left out of each.

    `types` is None where the tokenizer tells query and document apart by special tokens alone.
    """

    ids: list[list[int]]
    types: list[list[int]] | None
    cut: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """The number of ids of each pair."""
        return [len(ids) for ids in self.ids]


@dataclass(frozen=True)
class PairBatch:
    """Pairs padded to the longest: ids [N, L], attention [N, L] (True at ids that are there), types [N, L] or None."""

    ids: Tensor
    attention: Tensor
    types: Tensor | None

    def to(self, device: torch.device | str) -> "PairBatch":
        """The batch on another device."""
        tensors = (self.ids, self.attention, self.types)
        return PairBatch(*(None if t is None else t.to(device, non_blocking=True) for t in tensors))


class CrossEncoder(nn.Module):
    """A sequence classifier with one output and its tokenizer; `max_length` ids for query and document together.

    `fresh_head` says that the weights came without a head of this kind, which is untrained therefore. `provenance`
    says where the model came from; it is saved and not used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        fresh_head: bool = False,
        provenance: dict[str, Any] | None = None,
    ):
        """ConfigError where max_length leaves no room for text or exceeds the positions of the model."""
        super().__init__()
        # Two ids of text at least, one for the query and one for the document.
        least, limit = tokenizer.num_special_tokens_to_add(pair=True) + 2, max_positions(model.base_model)
        if max_length < least or (limit is not None and max_length > limit):
            upper = f" and at most {limit}, the positions of this model" if limit is not None else ""
            raise ConfigError(f"max_length={max_length} must be at least {least}{upper}", "the cross-encoder")
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.fresh_head = fresh_head
        self.provenance = provenance or {}

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        max_length: int,
        seed: int,
        revision: str | None = None,
        attention: str = "sdpa",
        trust_remote_code: bool = False,
    ) -> "CrossEncoder":
        """A hub id, a directory or "embedded/all-MiniLM-L6-v2", fp32, in eval mode.

        A head that the checkpoint lacks is drawn under `seed`; the caller's random state is left as it was. ConfigError
        where nothing can be loaded, or where there is a head with another number of outputs.
        """
        model, tokenizer, fresh = _load(resolve(name), name, seed, revision, attention, trust_remote_code)
        return cls(model, tokenizer, max_length, fresh, {"backbone": name, "revision": revision, "seed": seed}).eval()

    @classmethod
    def load(cls, directory: str | Path) -> "CrossEncoder":
        """Read what `save` wrote; the same scores, bit for bit. ArtifactError where it is no cross-encoder of ours."""
        directory = Path(directory)
        record = read_record(directory / RECORD_FILE, FORMAT, "cross-encoder")
        model, tokenizer, fresh = _load(str(directory), str(directory), 0, attention=record["attention"])
        if fresh:
            raise ArtifactError(f"{directory} has no weights of a head, which were saved with it; they were changed")
        return cls(model, tokenizer, record["max_length"], provenance=record["provenance"]).eval()

    def save(self, directory: Path) -> None:
        """Write a Hugging Face directory and our record, which comes last, into an existing directory."""
        self.model.save_pretrained(directory)
        # A tokenizer keeps the truncation of its last call, and would write it into its files.
        self.tokenizer([""], truncation=False, padding=False)
        self.tokenizer.save_pretrained(directory)
        record = {
            "format": FORMAT,
            "max_length": self.max_length,
            "attention": getattr(self.model.config, "_attn_implementation", None) or "sdpa",
            "provenance": self.provenance,
        }
        write_atomic(directory / RECORD_FILE, json.dumps(record, indent=1, ensure_ascii=False).encode())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def tokenize(self, queries: Sequence[str], documents: Sequence[str]) -> PairTokens:
        """Query i and document i as the tokenizer's own pair of at most max_length ids.

        The document is cut; where the query alone leaves it no room, the longer of the two is ("longest_first").
        """
        if len(queries) != len(documents):
            raise DataError(f"{len(queries)} queries and {len(documents)} documents are no pairs")
        ids, types = self._pairs(list(queries), list(documents), False)
        cut = [max(0, len(i) - self.max_length) for i in ids]
        rows = [row for row, count in enumerate(cut) if count]
        room = self.max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        bare = self._ids([queries[row] for row in rows], add_special_tokens=False)["input_ids"]
        for strategy, chosen in (
            ("only_second", [row for row, query in zip(rows, bare) if len(query) < room]),
            ("longest_first", [row for row, query in zip(rows, bare) if len(query) >= room]),
        ):
            shorter = self._pairs([queries[row] for row in chosen], [documents[row] for row in chosen], strategy)
            for position, row in enumerate(chosen):
                ids[row] = shorter[0][position]
                if types is not None:
                    types[row] = shorter[1][position]
        return PairTokens(ids, types, cut)

    def batch(self, tokens: PairTokens, rows: Sequence[int] | None = None) -> PairBatch:
        """The pairs with these numbers (by default all), in this order, padded to the longest of them."""
        rows = range(len(tokens)) if rows is None else rows
        lengths = torch.tensor([len(tokens.ids[row]) for row in rows])
        attention = torch.arange(int(lengths.max())) < lengths[:, None]

        def padded(sequences: list[list[int]], fill: int) -> Tensor:
            filled = torch.full(attention.shape, fill, dtype=torch.long)
            filled[attention] = torch.tensor([i for row in rows for i in sequences[row]], dtype=torch.long)
            return filled

        types = None if tokens.types is None else padded(tokens.types, 0)
        return PairBatch(padded(tokens.ids, self.tokenizer.pad_token_id or 0), attention, types)

    def forward(self, batch: PairBatch) -> Tensor:
        """Logits [N] in fp32; the higher, the more relevant."""
        types = {} if batch.types is None else {"token_type_ids": batch.types}
        logits = self.model(input_ids=batch.ids, attention_mask=batch.attention.long(), **types).logits
        return logits[:, 0].float()

    def _pairs(
        self, queries: list[str], documents: list[str], truncation: bool | str
    ) -> tuple[list[list[int]], list[list[int]] | None]:
        encoded = self._ids(queries, documents, truncation=truncation)
        return encoded["input_ids"], encoded.get("token_type_ids")

    def _ids(self, *texts: list[str], truncation: bool | str = False, **options):
        if not texts[0]:
            return {"input_ids": []}
        limit = {"max_length": self.max_length} if truncation else {}
        return self.tokenizer(
            *texts, truncation=truncation, return_attention_mask=False, verbose=False, **limit, **options
        )


@torch.inference_mode()
def score_pairs(
    model: CrossEncoder,
    queries: Sequence[str],
    documents: Sequence[str],
    precision: Precision = "auto",
    batch_tokens: int = 8192,
    bar: Progress | None = None,
) -> tuple[np.ndarray, int]:
    """Score query i against document i: float32 [P] in the order given, and how many pairs were cut.

    `batch_tokens` bounds a batch's ids, padding included (a single longer pair is its own batch). The model is left in
    the mode in which it was found; dropout is off meanwhile.
    """
    tokens = model.tokenize(queries, documents)
    order = np.argsort(tokens.lengths, kind="stable")[::-1]
    scores = np.empty(len(tokens), dtype=np.float32)
    was_training = model.training
    model.eval()
    with autocast(precision, model.device):
        for rows in batches(order, tokens.lengths, batch_tokens):
            scores[rows] = model(model.batch(tokens, rows).to(model.device)).cpu().numpy()
            if bar is not None:
                bar.advance(len(rows), tokens=sum(len(tokens.ids[row]) for row in rows))
    model.train(was_training)
    return scores, sum(count > 0 for count in tokens.cut)


def _load(
    source: str,
    name: str,
    seed: int,
    revision: str | None = None,
    attention: str = "sdpa",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
    """Model, tokenizer, and whether weights were missing and drawn anew."""
    said = {"what": "cross-encoder", "mend": _MEND, "revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = explained(name, AutoTokenizer.from_pretrained, source, **said)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators too.
        torch.default_generator.manual_seed(seed)
        model, info = explained(
            name,
            AutoModelForSequenceClassification.from_pretrained,
            source,
            num_labels=1,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=has_safetensors(source),
            # A head of another size is told below; what transformers raises names no cause.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **said,
        )
    if info["mismatched_keys"]:
        key, found, _ = sorted(info["mismatched_keys"])[0]
        raise ConfigError(
            f"{name!r} is no classifier with one output: its {key} has shape {list(found)}\n"
            "try: a cross-encoder trained with one label, or a backbone without a head",
            "the cross-encoder",
        )
    return aligned(model), tokenizer, bool(info["missing_keys"])
