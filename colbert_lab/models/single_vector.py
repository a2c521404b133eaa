"""A single-vector bi-encoder: a held backbone, its token states pooled into one unit-length vector a text.

    E = normalise(pool(backbone(ids, attention)))      [N, 1, d]

The alternative that late interaction is measured against (Sentence-BERT, arXiv 1908.10084). It has a ColBERT model's
interface with one vector a text, so that encoding, the exact index and search serve it as they are: MaxSim between
single unit vectors is their cosine.
"""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from colbert_lab.errors import ConfigError
from colbert_lab.models.backbone import Backbone, hidden_states
from colbert_lab.models.colbert import check_fit
from colbert_lab.scoring.maxsim import Similarity
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import Batch, ColBERTTokenizer

Pooling = Literal["mean", "cls"]


class SingleVector(nn.Module):
    """One embedding of a query or a document.

    `pooling` is "mean", over all attended tokens with the special ones, or "cls", the first token's state.
    `provenance` says where the model came from; it is saved and not used.
    """

    similarity: Similarity = "cosine"

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: ColBERTTokenizer,
        pooling: Pooling = "mean",
        provenance: dict[str, Any] | None = None,
    ):
        """ConfigError where the contract asks for what one vector a text cannot have, or more than the backbone has."""
        super().__init__()
        _check_contract(tokenizer, pooling)
        check_fit(backbone, tokenizer)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.provenance = provenance or {}

    @classmethod
    def from_pretrained(
        cls, backbone: Backbone, pooling: Pooling = "mean", query_length: int = 32, document_length: int = 180
    ) -> "SingleVector":
        """A backbone's own bi-encoder, in eval mode; lengths in ids with special tokens, longer texts are cut."""
        contract = Contract(
            query_marker=None,
            document_marker=None,
            query_length=query_length,
            document_length=document_length,
            expansion="off",
            skip_punctuation="off",
        )
        encoder, tokenizer = backbone.load()
        provenance = {"backbone": backbone.name, "revision": backbone.revision}
        return cls(encoder, ColBERTTokenizer(tokenizer, contract), pooling, provenance).eval()

    @property
    def dim(self) -> int:
        """d, the dimension of an embedding."""
        return self.backbone.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    def forward(self, batch: Batch) -> Tensor:
        """Unit-length embeddings [N, 1, d] in fp32; a text without any id has a zero vector."""
        states = hidden_states(self.backbone, batch.ids, batch.attention).float()
        # Filled and not multiplied: a row without attention may hold what is no number.
        states = states.masked_fill(~batch.attention[:, :, None], 0.0)
        if self.pooling == "cls":
            pooled = states[:, :1]
        else:
            pooled = states.sum(1, keepdim=True) / batch.attention.sum(1).clamp(min=1)[:, None, None]
        return F.normalize(pooled, dim=-1)

    def scored(self, batch: Batch) -> Tensor:
        """Which of forward's vectors take part in MaxSim: the only one, [N, 1]."""
        return torch.ones(len(batch.ids), 1, dtype=torch.bool, device=batch.ids.device)


def _check_contract(tokenizer: ColBERTTokenizer, pooling: str) -> None:
    problems = []
    if pooling not in get_args(Pooling):
        problems.append(f"pooling is {pooling!r}, it can be {' or '.join(get_args(Pooling))}")
    if pooling == "cls" and not tokenizer.prefix:
        problems.append("pooling is 'cls', but this tokenizer puts no special token before a text\ntry: pooling=mean")
    for name in ("expansion", "skip_punctuation"):
        if (value := getattr(tokenizer.contract, name)) != "off":
            problems.append(
                f"{name}={value} is about token embeddings, this model has one vector a text\ntry: {name}=off"
            )
    if problems:
        raise ConfigError(problems, "the single-vector model")
