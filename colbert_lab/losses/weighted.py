"""A loss composed of weighted terms: what a training step minimises."""

from torch import Tensor, nn

from colbert_lab.errors import ConfigError
from colbert_lab.losses.columns import own_columns


class WeightedLoss(nn.Module):
    """The sum of named terms, each times its weight; terms of weight 0 are not computed.

    A term is a module with a `weight` and a `scope`: "own" takes each query's own documents [B, w], "batch" takes all
    pairs [B, B·w], the width w and the mask of excluded columns.
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

    def forward(self, scores: Tensor, width: int, excluded: Tensor | None = None) -> dict[str, Tensor]:
        """Scores [B, B·w], or [B, w] where no term needs all pairs, to {"loss": total, "loss_NAME": each term}."""
        own = own_columns(scores, width) if scores.shape[1] != width else scores
        parts = {
            name: term(scores, width, excluded) if term.scope == "batch" else term(own)
            for name, term in self.terms.items()
        }
        total = sum(self.terms[name].weight * value for name, value in parts.items())
        return {"loss": total, **{f"loss_{name}": value for name, value in parts.items()}}
