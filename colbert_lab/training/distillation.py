"""DistillationModule: an encoder's training step on documents that a teacher has scored; and a watch on the teacher."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from colbert_lab.errors import ConfigError
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.encoding import Encoder
from colbert_lab.training.batches import TrainingBatch
from colbert_lab.training.gather import rank_offset
from colbert_lab.training.module import Scores
from colbert_lab.training.pairwise import PairwiseModule

_logger = logging.getLogger(__name__)

# The queries after which the mean entropy is taken for the run's.
_ENOUGH = 32


class TeacherWatch:
    """What a teacher's scores say of a batch; warns once, through logging, where they cannot teach.

    target_entropy: the entropy of the teacher's softmax as the loss sees it, as a share of its most, log w; only where
    the loss has a term with a softmax. A teacher on another scale than the loss expects (logits, probabilities)
    makes it nearly 0, labels in disguise, or nearly 1, no preference at all: where its mean over the queries seen, 32
    or more, is outside of the loss's `entropy_band`, a warning says so. teacher_agreement: the share of queries whose
    best document by the student is the teacher's best, or equal to it.
    """

    def __init__(self, loss: WeightedLoss):
        self._loss = loss
        self._low, self._high = loss.entropy_band
        self._total, self._queries, self._warned = 0.0, 0, False

    def figures(self, own: Tensor, targets: Tensor) -> dict[str, float]:
        """The figures of a batch: the student's scores of each query's own documents [B, w], the teacher's [B, w]."""
        chosen = targets.gather(1, own.argmax(1, keepdim=True))[:, 0]
        found = {"teacher_agreement": float((chosen == targets.amax(1)).float().mean())}
        entropy = self._loss.entropy(targets)
        if entropy is not None and targets.shape[1] > 1:
            found["target_entropy"] = float(entropy)
            self._look(found["target_entropy"], len(targets))
        return found

    def _look(self, entropy: float, queries: int) -> None:
        self._total, self._queries = self._total + entropy * queries, self._queries + queries
        mean = self._total / self._queries
        # One process of several speaks for all.
        if self._warned or self._queries < _ENOUGH or self._low <= mean <= self._high or rank_offset(1):
            return
        self._warned = True
        what = (
            "puts nearly all its weight on one document, which says little more than a label"
            if mean < self._low
            else "hardly prefers any document, so there is little to learn from it"
        )
        _logger.warning(
            "the teacher %s: the entropy of its scores is %.3f of the most possible over %d queries, outside of "
            "[%g, %g]\ntry: %s",
            *(what, mean, self._queries, self._low, self._high, self._change(mean < self._low)),
        )

    def _change(self, sharp: bool) -> str:
        """The override to try first: the temperature of the term whose entropy it is, times or over 4."""
        for name, term in self._loss.terms.items():
            if (temperature := getattr(term, "teacher_temperature", None)) is not None:
                changed = temperature * 4 if sharp else temperature / 4
                return f"teacher_temperature={changed:g} in the term {name} of the loss (it is {temperature:g})"
        return f"a {'higher' if sharp else 'lower'} teacher_temperature"


class DistillationModule(PairwiseModule):
    """A PairwiseModule whose loss learns from the batches' targets; `last` has the figures of a TeacherWatch too."""

    def __init__(
        self,
        model: Encoder,
        loss: WeightedLoss,
        optimiser: Callable[..., torch.optim.Optimizer],
        factor: Callable[[int], float],
        seed: int,
    ):
        """ConfigError where no term of the loss learns from a teacher."""
        if not loss.needs_targets:
            raise ConfigError(
                "distillation needs a loss that learns from a teacher's scores, but none of its terms "
                f"({', '.join(loss.terms)}) does\ntry: loss=kl, or loss=margin_mse"
            )
        super().__init__(model, loss, optimiser, factor, seed)
        self._watch = TeacherWatch(loss)

    def figures(self, scores: Scores, batch: TrainingBatch) -> dict[str, float]:
        """The margin, and how the teacher and the student stand to each other."""
        return super().figures(scores, batch) | self._watch.figures(scores.own(batch.width), batch.targets)
