"""Sweeps: many runs of one command, a process each, and what they came to."""
