"""Tracking: what a run was given, did and found; the local log always, W&B beside it where asked for."""
