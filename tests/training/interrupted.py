"""Runs that are interrupted, and how they are compared with runs that are not."""

import torch

from colbert_lab.tracking.read import read_metrics

_CLOCK = {"time", "train/queries_per_s", "train/tokens_per_s", "val/seconds"}


class Stopping:
    """A stream that breaks at one batch."""

    def __init__(self, stream, at):
        self._stream, self._at = stream, at

    def __getitem__(self, index):
        if index == self._at:
            raise OSError(f"batch {index}")
        return self._stream[index]


def curves(folder):
    """What was logged beside `folder/training`, without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in _CLOCK} for line in read_metrics(folder / "log")]


def same(one, other):
    """Whether two modules have the same weights, bit for bit."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
