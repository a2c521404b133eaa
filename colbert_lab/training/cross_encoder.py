"""CrossEncoderModule: a cross-encoder's training step, each query beside its own documents."""

from collections.abc import Callable
from pathlib import Path

import torch

from colbert_lab.errors import ConfigError
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.cross_encoder import CrossEncoder
from colbert_lab.training.batches import PairTrainingBatch
from colbert_lab.training.distillation import TeacherWatch
from colbert_lab.training.module import RankingModule, Scores


class CrossEncoderModule(RankingModule):
    """Score each query's own documents, a pair at a time. Where the loss learns from a teacher, it is watched.

    Other queries' documents are never scored: each would be another pass of the whole model, not a product of vectors.
    """

    def __init__(
        self,
        model: CrossEncoder,
        loss: WeightedLoss,
        optimiser: Callable[..., torch.optim.Optimizer],
        factor: Callable[[int], float],
        seed: int,
    ):
        """ConfigError where a term of the loss looks at other queries' documents."""
        check_loss(loss)
        super().__init__(model, loss, optimiser, factor, seed)
        self._watch = TeacherWatch(loss) if loss.needs_targets else None

    def scores(self, batch: PairTrainingBatch) -> Scores:
        """Each query's own documents, [B, w], fp32."""
        return Scores(self.model(batch.pairs).view(-1, batch.width))

    def export(self, directory: Path) -> None:
        """Write the model's checkpoint into an existing directory."""
        self.model.save(directory)

    def figures(self, scores: Scores, batch: PairTrainingBatch) -> dict[str, float]:
        """The margin; with a teacher, how it and the student stand to each other."""
        found = super().figures(scores, batch)
        return found if self._watch is None else found | self._watch.figures(scores.values, batch.targets)


def check_loss(loss: WeightedLoss) -> None:
    """ConfigError where a term of the loss looks at other queries' documents."""
    terms = [name for name, term in loss.terms.items() if term.scope == "batch"]
    if terms:
        raise ConfigError(
            f"a cross-encoder scores a query with its own documents only, but terms of the loss look at other "
            f"queries' documents: {', '.join(terms)}\n"
            f"try: {' '.join(f'teacher_loss.terms.{name}.weight=0' for name in terms)}"
        )
