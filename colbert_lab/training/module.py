"""RankingModule: what every training step has in common. Seed, score, take the loss, note the figures, clip, step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from colbert_lab.losses.columns import own_columns
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.training.batches import RankingBatch
from colbert_lab.training.gather import rank_offset


class Scores(NamedTuple):
    """Scores of B queries, fp32: [B, w] against their own documents, or [B, N·w] against those of all N queries.

    excluded, of the latter shape, is True where a document is no negative; offset is the place of the first of the B
    among the N (0 in a single process).
    """

    values: Tensor
    excluded: Tensor | None = None
    offset: int = 0

    def own(self, width: int) -> Tensor:
        """The scores of each query's own documents, [B, w]."""
        return self.values if self.values.shape[1] == width else own_columns(self.values, width, self.offset)


class RankingModule(pl.LightningModule, ABC):
    """A model that learns to rank the documents of a batch; a subclass says how it scores and how it is saved.

    `optimiser` makes an optimiser of parameters; `factor` maps a step to a factor on the learning rate. `last` holds
    the figures of the latest batch, for callbacks: the loss, its terms, the mean margin between positive and negatives;
    `last_scores` the scores themselves, detached, of its positives and of their own negatives.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: WeightedLoss,
        optimiser: Callable[..., torch.optim.Optimizer],
        factor: Callable[[int], float],
        seed: int,
    ):
        super().__init__()
        # Lightning leaves every module in the mode it finds it in, and a model comes built or loaded in eval mode.
        self.model, self.loss = model.train(), loss
        self._optimiser, self._factor, self._seed = optimiser, factor, seed
        self.last: dict[str, float] = {}
        self.last_scores: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    @abstractmethod
    def scores(self, batch: RankingBatch) -> Scores:
        """The model's scores of a batch: all pairs where the loss looks at other queries' documents."""

    @abstractmethod
    def export(self, directory: Path) -> None:
        """Write the model as it is into an existing directory."""

    def figures(self, scores: Scores, batch: RankingBatch) -> dict[str, float]:
        """What else to log of a batch, from its detached scores."""
        return {"score_margin": _margin(scores, batch.width)}

    def training_step(self, batch: RankingBatch, batch_idx: int) -> Tensor:
        """The loss of one batch. ConfigError where the loss needs a teacher's scores and the batch has none."""
        # Dropout is decided by (seed, batch), whatever drew random numbers in between: a resumed run repeats it. Each
        # process of several has masks of its own.
        torch.manual_seed(self._seed * 1_000_003 + batch.index + rank_offset(2**40))
        scores = self.scores(batch)
        parts = self.loss(scores.values, batch.width, scores.excluded, batch.targets, scores.offset)
        self.last = {name: float(value.detach()) for name, value in parts.items()}
        detached = scores._replace(values=scores.values.detach())
        self.last |= self.figures(detached, batch)
        self.last_scores = _parted(detached, batch.width)
        return parts["loss"]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip by norm. Lightning refuses to for a fused optimiser under bf16, though nothing is scaled there."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict:
        """The optimiser and its schedule, stepped with it."""
        optimiser = self._optimiser([p for p in self.model.parameters() if p.requires_grad])
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": LambdaLR(optimiser, self._factor), "interval": "step"},
        }


def _parted(scores: Scores, width: int) -> tuple[Tensor, Tensor]:
    """The scores of the positives [B] and of the negatives that `_margin` holds them against, one after another."""
    if width > 1:
        own = scores.own(width)
        return own[:, 0], own[:, 1:].flatten()
    own = torch.arange(len(scores.values), device=scores.values.device) + scores.offset
    others = torch.arange(scores.values.shape[1], device=scores.values.device) != own[:, None]
    return scores.values[~others], scores.values[others]


def _margin(scores: Scores, width: int) -> float:
    """Mean of positive minus own negatives; minus the other queries' documents where a query has none of its own."""
    if width > 1:
        own = scores.own(width)
        return float((own[:, :1] - own[:, 1:]).mean())
    count, total = scores.values.shape
    if total == 1:
        return 0.0
    own = torch.arange(count, device=scores.values.device) + scores.offset
    others = torch.arange(total, device=scores.values.device) != own[:, None]
    return float((scores.values.gather(1, own[:, None]) - scores.values)[others].mean())
