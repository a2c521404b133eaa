"""Distillation losses: a student's scores of a query's documents held to a teacher's scores of the same documents.

Scores and targets are [B, w], the positive in column 0. A student's score of at most `ABSENT` says that the document
has no vector at all (scoring ranks it last with such a score): that document is left out of the comparison, on both
sides, and gets no gradient. Everything is computed in fp32 (fp64 for fp64 inputs).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from colbert_lab.errors import ConfigError, DataError

Normalise = Literal["none", "student", "teacher", "both"]

# Half of what scoring gives a document without vectors, so that rounding to 16 bits does not hide one; far below any
# sum over unit vectors, which is at least -m for m query vectors (-4m for squared distances).
ABSENT = -5e3


def kl_divergence(
    scores: Tensor,
    targets: Tensor,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    rescale: bool = False,
) -> Tensor:
    """KL(teacher ‖ student), the mean over queries: Σ_j t_j (log t_j - log s_j), as ColBERTv2 is trained (2112.01488).

    s = softmax(scores / student_temperature), t = softmax(targets / teacher_temperature); both temperatures divide, so
    the `distillation_alpha` of Stanford's ColBERT, which multiplies, is 1 / teacher_temperature. `rescale` multiplies
    by student_temperature², which keeps the size of the gradients as that temperature is changed (1503.02531).
    [B, w] and [B, w] -> scalar. DataError where the shapes differ.
    """
    scores, targets = _same_shape(scores, targets)
    absent = scores <= ABSENT
    # A finite filling: a query none of whose documents has a vector gives 0, and no NaN.
    floor = torch.finfo(scores.dtype).min
    student = (scores / student_temperature).masked_fill(absent, floor).log_softmax(1)
    teacher = (targets / teacher_temperature).masked_fill(absent, floor).log_softmax(1)
    terms = teacher.exp() * (teacher.masked_fill(absent, 0) - student.masked_fill(absent, 0))
    factor = student_temperature**2 if rescale else 1.0
    return factor * terms.sum(1).mean()


def margin_mse(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over the B·(w - 1) pairs of ((S⁺ - S⁻) - (T⁺ - T⁻))², MarginMSE (2010.02666).

    Margins keep their scale: student and teacher must score in comparable units. A pair with a document that has no
    vector adds 0. [B, w] and [B, w] -> scalar. DataError where the shapes differ, ConfigError without a negative.
    """
    scores, targets = _same_shape(scores, targets)
    if scores.shape[1] < 2:
        raise ConfigError("MarginMSE compares a positive with negatives, but queries have none\ntry: train.negatives=1")
    errors = (scores[:, :1] - scores[:, 1:]) - (targets[:, :1] - targets[:, 1:])
    absent = scores <= ABSENT
    return errors.masked_fill(absent[:, :1] | absent[:, 1:], 0).square().mean()


def min_max(scores: Tensor) -> Tensor:
    """Each row of [B, w] moved and scaled to [0, 1]; a row of one value becomes zeros, and its gradients are finite.

    A score of at most `ABSENT` is neither minimum nor maximum, and stays what it is.
    """
    scores = _wide(scores)
    present = scores > ABSENT
    high = scores.amax(1, keepdim=True)
    low = torch.where(present, scores, high.detach()).amin(1, keepdim=True)
    span = high - low
    return torch.where(present, (scores - low) / torch.where(span > 0, span, 1.0), scores)


def target_entropy(targets: Tensor, teacher_temperature: float = 1.0) -> Tensor:
    """How undecided a teacher is: the entropy of softmax(targets / temperature) over log w, the mean over queries.

    0: all the weight on one document, nothing is learned that the label does not say. 1: all documents equal, nothing
    is learned at all. [B, w] -> scalar; 0 where w = 1.
    """
    if targets.shape[1] < 2:
        return _wide(targets).new_zeros(())
    teacher = (_wide(targets) / teacher_temperature).log_softmax(1)
    return -(teacher.exp() * teacher).sum(1).mean() / math.log(targets.shape[1])


class KL(nn.Module):
    """`kl_divergence` as a term of a loss.

    `normalise` scales each query's scores to [0, 1] first (`min_max`): of the student, the teacher, both, or "none".
    Student's scores in [0, 1] over a temperature of 1 are almost flat whatever the model does, so they want a
    temperature well below 1. `entropy_band` is where the teacher's mean `entropy` should lie, as shares of the most
    possible; the loss does not depend on it, training warns by it. ConfigError where a temperature is not above 0,
    `normalise` is none of the four, or the band is no interval within 0 to 1.
    """

    scope = "teacher"
    # What the loss does not depend on.
    unrecorded = ("entropy_band",)

    def __init__(
        self,
        student_temperature: float = 1.0,
        teacher_temperature: float = 1.0,
        normalise: Normalise = "none",
        rescale: bool = False,
        weight: float = 1.0,
        entropy_band: tuple[float, float] = (0.05, 0.95),
    ):
        super().__init__()
        temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
        problems = [
            f"{name}={value} of the KL loss must be above 0: scores are divided by it\ntry: loss.terms.NAME.{name}=1.0"
            for name, value in temperatures.items()
            if not (value > 0 and math.isfinite(value))
        ]
        if normalise not in ("none", "student", "teacher", "both"):
            problems.append(
                f"normalise={normalise} of the KL loss must be none, student, teacher or both\n"
                "try: loss.terms.NAME.normalise=none"
            )
        if len(entropy_band) != 2 or not 0 <= entropy_band[0] < entropy_band[1] <= 1:
            shown = ",".join(map(str, entropy_band))
            problems.append(
                f"entropy_band=[{shown}] of the KL loss must be an interval within 0 to 1\n"
                "try: loss.terms.NAME.entropy_band=[0.05,0.95]"
            )
        if problems:
            raise ConfigError(problems)
        self.entropy_band = (entropy_band[0], entropy_band[1])
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.normalise, self.rescale, self.weight = normalise, rescale, weight

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Own scores [B, w] and the teacher's [B, w] -> scalar."""
        if self.normalise in ("student", "both"):
            scores = min_max(scores)
        targets = self._seen(targets)
        return kl_divergence(scores, targets, self.student_temperature, self.teacher_temperature, self.rescale)

    def entropy(self, targets: Tensor) -> Tensor:
        """`target_entropy` of the teacher's scores [B, w] as this loss sees them: normalised, over the temperature."""
        return target_entropy(self._seen(targets), self.teacher_temperature)

    def _seen(self, targets: Tensor) -> Tensor:
        return min_max(targets) if self.normalise in ("teacher", "both") else targets


class MarginMSE(nn.Module):
    """`margin_mse` as a term of a loss."""

    scope = "teacher"

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Own scores [B, w] and the teacher's [B, w] -> scalar."""
        return margin_mse(scores, targets)


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def _same_shape(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the student's wide dtype; shapes that merely broadcast would compare documents with others."""
    if scores.shape != targets.shape:
        raise DataError(
            f"the model's scores are {list(scores.shape)}, the teacher's {list(targets.shape)}; "
            "each document of each query needs one of both"
        )
    scores = _wide(scores)
    return scores, targets.to(scores.dtype)
