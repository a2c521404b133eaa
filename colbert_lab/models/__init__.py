"""Backbones, the ColBERT model over them, encoding, checkpoints."""
