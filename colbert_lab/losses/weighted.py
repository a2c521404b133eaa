"""A loss composed of weighted terms: what a training step minimises."""

from torch import Tensor, nn

from colbert_lab.errors import ConfigError
from colbert_lab.losses.columns import own_columns


class WeightedLoss(nn.Module):
    """The sum of named terms, each times its weight; terms of weight 0 are not computed.

    A term is a module with a `weight` and a `scope`: "own" takes each query's own documents [B, w]; "teacher" takes
    these and the teacher's scores of the same documents [B, w]; "batch" takes all pairs [B, B_joint·w], the width w,
    the mask of excluded columns and the offset of the first query (`losses.columns`).
    """

    def __init__(self, terms: dict[str, nn.Module]):
        super().__init__()
        self.terms = nn.ModuleDict({name: term for name, term in terms.items() if term.weight != 0})
        if not self.terms:
            raise ConfigError("every term of the loss has weight 0\ntry: loss.terms.NAME.weight=1")

    @property
    def needs_all_pairs(self) -> bool:
        """Whether any term looks at other queries' documents."""
        return any(term.scope == "batch" for term in self.terms.values())

    @property
    def needs_targets(self) -> bool:
        """Whether any term learns from a teacher's scores."""
        return any(term.scope == "teacher" for term in self.terms.values())

    def forward(
        self,
        scores: Tensor,
        width: int,
        excluded: Tensor | None = None,
        targets: Tensor | None = None,
        offset: int = 0,
    ) -> dict[str, Tensor]:
        """Scores [B, B_joint·w], or [B, w] where no term needs all pairs, to {"loss": total, "loss_NAME": each term}.

        `targets` [B, w] are the teacher's scores; ConfigError where a term needs them and there are none.
        """
        if self.needs_targets and targets is None:
            raise ConfigError(self._no_targets())
        own = own_columns(scores, width, offset) if scores.shape[1] != width else scores
        parts = {}
        for name, term in self.terms.items():
            if term.scope == "batch":
                parts[name] = term(scores, width, excluded, offset=offset)
            elif term.scope == "teacher":
                parts[name] = term(own, targets)
            else:
                parts[name] = term(own)
        total = sum(self.terms[name].weight * value for name, value in parts.items())
        return {"loss": total, **{f"loss_{name}": value for name, value in parts.items()}}

    def entropy(self, targets: Tensor) -> Tensor | None:
        """How undecided the teacher is as the first term sees it that can tell (`target_entropy`); None if none can."""
        return next((term.entropy(targets) for term in self.terms.values() if hasattr(term, "entropy")), None)

    @property
    def entropy_band(self) -> tuple[float, float]:
        """Where that term wants the mean of `entropy` to lie; 0 to 1 where no term can tell."""
        return next((term.entropy_band for term in self.terms.values() if hasattr(term, "entropy")), (0.0, 1.0))

    def _no_targets(self) -> str:
        names = ", ".join(name for name, term in self.terms.items() if term.scope == "teacher")
        return (
            f"the loss learns from a teacher's scores ({names}), but the training examples have none\n"
            "try: examples with a teacher's scores, as experiment=colbertv2_small makes them or as examples=tuples "
            "reads them from lines of [qid, [pid, score], ...]"
        )
