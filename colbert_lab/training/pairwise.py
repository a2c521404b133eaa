"""PairwiseModule: one training step of ColBERT on queries with a positive and negatives. No mathematics of its own."""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.colbert import ColBERT
from colbert_lab.scoring.maxsim import maxsim, maxsim_grouped
from colbert_lab.training.batches import TrainingBatch


class PairwiseModule(pl.LightningModule):
    """Encode, score, take the loss.

    `optimiser` makes an optimiser of parameters; `factor` maps a step to a factor on the learning rate. `last` holds
    the figures of the latest batch, for callbacks: the loss, its terms, the mean margin between positive and negatives.
    """

    def __init__(
        self,
        model: ColBERT,
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

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        # Dropout is decided by (seed, batch), whatever drew random numbers in between: a resumed run repeats it.
        torch.manual_seed(self._seed * 1_000_003 + batch.index)
        queries, documents = self.model(batch.queries), self.model(batch.documents)
        scores = self.scores(queries, documents, batch)
        parts = self.loss(scores, batch.width, batch.excluded)
        self.last = {name: float(value.detach()) for name, value in parts.items()}
        self.last["score_margin"] = _margin(scores.detach(), batch.width)
        return parts["loss"]

    def scores(self, queries: Tensor, documents: Tensor, batch: TrainingBatch) -> Tensor:
        """All pairs [B, B·w] where the loss looks at other queries' documents, else each query's own [B, w]; fp32."""
        similarity = self.model.similarity
        # Out of autocast: similarities in 16 bits would undo the fp32 of the sum.
        with torch.autocast(queries.device.type, enabled=False):
            queries, documents = queries.float(), documents.float()
            if self.loss.needs_all_pairs:
                return maxsim(queries, documents, batch.queries.scored, batch.documents.scored, similarity)
            grouped = documents.view(len(queries), batch.width, *documents.shape[1:])
            mask = batch.documents.scored.view(len(queries), batch.width, -1)
            return maxsim_grouped(queries, grouped, batch.queries.scored, mask, similarity)

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


def _margin(scores: Tensor, width: int) -> float:
    """Mean of positive minus own negatives; minus the other queries' documents where a query has none of its own."""
    batch = len(scores)
    if scores.shape[1] == width:
        positive, rest = scores[:, :1], scores[:, 1:]
        return float((positive - rest).mean()) if width > 1 else 0.0
    if width > 1:
        own = scores.view(batch, batch, width).diagonal(dim1=0, dim2=1).T
        return float((own[:, :1] - own[:, 1:]).mean())
    return float(
        (scores.diagonal()[:, None] - scores)[~torch.eye(batch, dtype=torch.bool, device=scores.device)].mean()
    )
