"""Indexes: embeddings in, ranked documents out; no model is known here."""
