"""Learning-rate schedules as functions of the step, for torch's LambdaLR."""

from collections.abc import Callable
from dataclasses import dataclass

from colbert_lab.errors import ConfigError


@dataclass(frozen=True)
class Linear:
    """Linear warm-up over `warmup` steps (below 1: a share of all steps), then linear decay to zero at the last."""

    warmup: float = 0.1

    def __post_init__(self):
        if self.warmup < 0:
            raise ConfigError(f"schedule.warmup={self.warmup} must not be negative")

    def factor(self, steps: int) -> Callable[[int], float]:
        """Step -> factor on the learning rate, for a run of `steps`."""
        warmup = round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        return lambda step: min((step + 1) / (warmup + 1), max(0.0, (steps - step) / max(1, steps - warmup)))


@dataclass(frozen=True)
class Constant:
    """The same learning rate at every step, as in ColBERT v1's code."""

    def factor(self, steps: int) -> Callable[[int], float]:
        """Step -> 1."""
        return lambda step: 1.0
