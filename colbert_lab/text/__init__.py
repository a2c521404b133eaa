"""Strings to token ids: the tokenisation contract that travels with a model."""
