"""colbert_lab: train, index and judge late-interaction retrieval models."""

__version__ = "0.1.0"
