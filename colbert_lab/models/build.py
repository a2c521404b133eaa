"""Building an untrained ColBERT model: backbone, contract, and a projection started on a sample of texts."""

from collections.abc import Sequence
from typing import Protocol

from colbert_lab.models.backbone import Backbone
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import backbone_vectors
from colbert_lab.models.precision import Precision, best_device
from colbert_lab.models.projection import NoProjection, PcaProjection, RandomProjection
from colbert_lab.scoring.maxsim import Similarity
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer, Role


class Sample(Protocol):
    """Texts to start a projection on."""

    def documents(self, count: int) -> Sequence[str]:
        """At most `count` documents."""

    def queries(self, count: int) -> Sequence[str]:
        """At most `count` queries, of those that may be looked at; possibly none."""


def build_model(
    backbone: Backbone,
    text: Contract,
    projection: RandomProjection | PcaProjection | NoProjection,
    similarity: Similarity,
    seed: int,
    sample: Sample,
    precision: Precision = "fp32",
) -> ColBERT:
    """An untrained model on the CPU, in eval mode; `sample` is for projections that look at texts."""
    encoder, tokenizer = backbone.load((text.query_marker, text.document_marker), seed)
    provenance = {"backbone": backbone.name, "revision": backbone.revision, "projection": type(projection).__name__}
    model = ColBERT(encoder, ColBERTTokenizer(tokenizer, text), None, similarity, provenance)
    model.to(best_device())
    hidden = encoder.config.hidden_size

    def vectors(role: Role, count: int):
        texts = sample.documents(count) if role == "document" else sample.queries(count)
        return backbone_vectors(model, texts, role, precision)

    model.projection = projection.build(hidden, vectors, seed)
    return model.cpu().eval()
