"""ColBERT: a held backbone, one bias-free linear map, unit-length token embeddings.

    E = normalise(backbone(ids, attention) · Wᵀ)      [N, L, d]

Queries and documents share everything but their marker. A v1 or a v2 system is a choice of loss, data and index; the
model is the same (arXiv 2004.12832, 2112.01488).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from colbert_lab.errors import ConfigError
from colbert_lab.models.backbone import hidden_states, max_positions
from colbert_lab.scoring.maxsim import Similarity
from colbert_lab.text.tokenizer import Batch, ColBERTTokenizer


class ColBERT(nn.Module):
    """Token embeddings of queries and documents.

    `projection` is a Linear [h -> d] without bias, or None to keep the backbone's own h dimensions. `similarity` is how
    the model's vectors are meant to be compared. `provenance` says where it came from; it is saved and not used.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: ColBERTTokenizer,
        projection: nn.Linear | None,
        similarity: Similarity = "cosine",
        provenance: dict[str, Any] | None = None,
    ):
        """ConfigError where the contract asks for more than the backbone can do."""
        super().__init__()
        check_fit(backbone, tokenizer)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.projection = projection
        self.similarity = similarity
        self.provenance = provenance or {}

    @property
    def dim(self) -> int:
        """d, the dimension of a token embedding."""
        return self.backbone.config.hidden_size if self.projection is None else self.projection.out_features

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    def forward(self, batch: Batch) -> Tensor:
        """Unit-length embeddings [N, L, d] in fp32 of every position, scored or not; a zero vector stays zero."""
        states = hidden_states(self.backbone, batch.ids, batch.attention)
        projected = states if self.projection is None else self.projection(states)
        return F.normalize(projected.float(), dim=-1)

    def scored(self, batch: Batch) -> Tensor:
        """Which of forward's vectors take part in MaxSim: [N, L], True where one does."""
        return batch.scored


def check_fit(backbone: PreTrainedModel, tokenizer: ColBERTTokenizer) -> None:
    """ConfigError where a contract asks for more positions than a backbone has, or for what it cannot attend to."""
    contract = tokenizer.contract
    limit = max_positions(backbone)
    problems = [
        f"text.{side}_length={length} exceeds the {limit} positions of this backbone\ntry: text.{side}_length={limit}"
        for side, length in (("query", contract.query_length), ("document", contract.document_length))
        if limit is not None and length > limit
    ]
    flash = getattr(backbone.config, "_attn_implementation", "") == "flash_attention_2"
    if flash and contract.expansion != "off" and not contract.attend_to_expansion:
        problems.append(
            "flash attention gives unattended mask tokens constant vectors, so query expansion would be dead\n"
            "try: backbone.attention=sdpa, text.attend_to_expansion=true or text.expansion=off"
        )
    if problems:
        raise ConfigError(problems, "the model")
