import pytest

TEXTS = [
    "The small river was described by a visitor.",
    "Hello, world! A (short) list: copper; forest; planet.",
    "",
    "violin " * 60,
    "winter market, harvest",
    "what color is amber urine",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of very different lengths, one empty, one over the maximum of `make`'s models."""
    return TEXTS


@pytest.fixture(scope="session")
def make(tiny_backbone):
    """make(dim=16, directory=..., **contract): a ColBERT model over the tiny backbone, its projection seeded."""
    from colbert_lab.models.backbone import Backbone
    from colbert_lab.models.colbert import ColBERT
    from colbert_lab.models.projection import RandomProjection
    from colbert_lab.text.contract import Contract
    from colbert_lab.text.tokenizer import ColBERTTokenizer

    def build(dim: int | None = 16, directory=tiny_backbone, backbone: dict | None = None, **contract) -> ColBERT:
        text = Contract(**{"query_length": 16, "document_length": 48, **contract})
        markers = (text.query_marker, text.document_marker)
        encoder, tokenizer = Backbone(str(directory), **(backbone or {})).load(markers)
        projection = RandomProjection(dim).build(encoder.config.hidden_size, None, 0) if dim else None
        return ColBERT(encoder, ColBERTTokenizer(tokenizer, text), projection).eval()

    return build
