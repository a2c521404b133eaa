"""Where a projection's weights start: at random, along the principal directions of the backbone's own vectors, or not.

A pre-trained encoder's token vectors already retrieve; a random map to fewer dimensions throws much of that away, the
principal directions keep most of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colbert_lab.errors import ConfigError
from colbert_lab.text.tokenizer import Role

# (role, how many texts) -> unit-length backbone vectors of that many sampled texts, in parts [T_i, h].
Vectors = Callable[[Role, int], Iterable[Tensor]]


@dataclass(frozen=True)
class RandomProjection:
    """The papers' start: normal weights of standard deviation 0.02, seeded, [h -> dim]."""

    dim: int = 128

    def build(self, hidden: int, vectors: Vectors, seed: int) -> nn.Linear:
        """A Linear [hidden -> dim]; the sample is not looked at."""
        weight = torch.randn(self.dim, hidden, generator=torch.Generator().manual_seed(seed)) * 0.02
        return linear(weight)


@dataclass(frozen=True)
class PcaProjection:
    """The `dim` leading directions that document and query vectors share, from samples of both.

    They are the leading eigenvectors of C_d C_q + C_q C_d, with C_d and C_q the second moments of document and of query
    vectors. That is a choice by measurement: it retrieves better than the documents' own principal directions, the
    leading eigenvectors of C_d, which are taken where there are no queries (`queries` = 0, or none in the collection).
    Moments are about the origin: they are what makes dot products, and a bias-free map could not subtract a mean.

    A few directions that nearly all tokens share hold much of the vectors' length and tell documents little apart.
    `whiten` divides each direction by its mean square over documents to that power: 0 leaves all as they are, 0.5 makes
    them count alike; a little of it retrieves better (experiments/studies/untrained.md).
    """

    dim: int = 128
    documents: int = 500
    queries: int = 500
    whiten: float = 0.2

    def build(self, hidden: int, vectors: Vectors, seed: int) -> nn.Linear:
        """A Linear [hidden -> dim] from the backbone's vectors of sampled documents and queries."""
        if self.dim > hidden:
            raise ConfigError(
                f"projection.dim={self.dim} exceeds the backbone's {hidden} dimensions, so there are not as many "
                f"principal directions\ntry: projection.dim={hidden} or projection=random"
            )
        if not 0 <= self.whiten <= 0.5:
            raise ConfigError(f"projection.whiten={self.whiten} must lie between 0 (not at all) and 0.5 (fully)")
        moments = documents = _moments(vectors("document", self.documents), hidden)
        queries = _moments(vectors("query", self.queries), hidden) if self.queries else None
        if queries is not None and queries.any():
            moments = moments @ queries + queries @ moments
        _, directions = torch.linalg.eigh(moments)
        weight = directions.flip(1)[:, : self.dim].T
        # An eigenvector's sign is arbitrary: let its largest component be positive, whatever the library did.
        largest = weight.abs().argmax(1, keepdim=True)
        weight = weight * weight.gather(1, largest).sign()
        energy = (weight @ documents * weight).sum(1, keepdim=True)
        # A direction that no document uses must not become the loudest.
        scale = energy.clamp_min(1e-6 * energy.max().clamp_min(1e-30)) ** -self.whiten
        # Rows of unit length on average, as without whitening: a step of the optimiser means the same.
        return linear((weight * scale / scale.square().mean().sqrt()).float())


@dataclass(frozen=True)
class NoProjection:
    """The backbone's own vectors, normalised."""

    def build(self, hidden: int, vectors: Vectors, seed: int) -> None:
        """None: there is no map."""
        return None


def _moments(parts: Iterable[Tensor], hidden: int) -> Tensor:
    """Mean of v vᵀ over all vectors, [hidden, hidden] in fp64; zero where there are none."""
    total, count = torch.zeros(hidden, hidden, dtype=torch.float64), 0
    for part in parts:
        total += part.double().T @ part.double()
        count += len(part)
    return total / max(1, count)


def linear(weight: Tensor) -> nn.Linear:
    """A bias-free Linear [h -> d] of a weight [d, h], in fp32."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer
