"""Interpolation: judge and export a model part of the way from its start to where training has led it.

    weights = start + share · (trained - start)

A short training on little or noisy data buys recall with some of what the start knew; halfway between the two has most
of both (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903, WiSE-FT). Training itself goes on
from the trained weights as if nothing had been interpolated.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Interpolation:
    """Remembers a model's weights as they are now, its start; `share` is between 0 (the start) and 1 (the trained)."""

    def __init__(self, model: nn.Module, share: float):
        self._model, self._share = model, share
        # Nothing to remember where nothing is interpolated: a copy is as large as the model.
        self._start = {} if share == 1 else {name: p.detach().clone() for name, p in model.named_parameters()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this the model has the interpolated weights; afterwards, bit for bit, those that it had."""
        if self._share == 1:
            yield
            return
        trained = {name: p.detach().clone() for name, p in self._model.named_parameters()}
        self._set(
            {name: torch.lerp(s.to(trained[name]), trained[name], self._share) for name, s in self._start.items()}
        )
        try:
            yield
        finally:
            self._set(trained)

    @torch.no_grad()
    def _set(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.copy_(weights[name])
