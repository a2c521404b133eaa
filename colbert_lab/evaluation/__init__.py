"""Judging runs: metrics, significance, tables, relevance judgements."""
