"""Searching an index, re-ranking a run, and lexical search."""
