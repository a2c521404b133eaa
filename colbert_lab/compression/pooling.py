"""Token pooling: the vectors of a document that say nearly the same become one, so that the index holds fewer.

Hierarchical clustering by Ward's rule over cosine distances 1 - cos; every cluster becomes its mean. A factor of 2 kept
all of BEIR's quality and 3 kept 99 % (Clavié, Chaffin and Adams, arXiv 2409.14683).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from torch import Tensor

from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged

Distances = Literal["condensed", "rows"]


@dataclass(frozen=True)
class Pooling:
    """Pools the vectors of every document; `factor` 1 changes nothing.

    factor         a document of p unprotected vectors keeps max(1, p // factor) clusters of them
    protected      its first vectors, that are kept as they are and stay first ([CLS] and the marker)
    renormalise    means scaled to norm 1: shorter ones would cost a document points (Stanford and PyLate do not scale)
    distances      "condensed": Ward's rule on the pairs' 1 - cos. "rows": on the rows of the square matrix of 1 - cos
                   taken for points, as Stanford and PyLate up to 1.3.4 do; another clustering
    count          what is divided by the factor: "unprotected" vectors, or "all" of the document's (Stanford)
    """

    factor: int = 1
    protected: int = 1
    renormalise: bool = True
    distances: Distances = "condensed"
    count: Literal["unprotected", "all"] = "unprotected"

    def __post_init__(self):
        problems = []
        if self.factor < 1:
            problems.append(f"factor={self.factor}, but a cluster holds at least one vector\ntry: factor=2")
        if self.protected < 0:
            problems.append(f"protected={self.protected}, but a number of vectors is 0 or more\ntry: protected=1")
        if self.distances not in ("condensed", "rows"):
            problems.append(f"distances={self.distances}\ntry: distances=condensed or distances=rows")
        if self.count not in ("unprotected", "all"):
            problems.append(f"count={self.count}\ntry: count=unprotected or count=all")
        if problems:
            raise ConfigError(problems, "the token pooling")

    def __call__(self, embeddings: Ragged) -> Ragged:
        """The documents with pooled vectors, each document's clusters in the order of their first vectors.

        Documents without a vector stay so; where pooling would reduce nothing a document passes unchanged. The result
        of a document does not depend on the others.
        """
        if self.factor == 1 or len(embeddings) == 0:
            return embeddings
        return Ragged.from_list([self._pool(document) for document in embeddings])

    def _pool(self, document: Tensor) -> Tensor:
        protected, rest = document[: self.protected], document[self.protected :]
        counted = len(document) if self.count == "all" else len(rest)
        clusters = max(1, counted // self.factor)
        if len(rest) < 2 or clusters >= len(rest):
            return document
        vectors = rest.float()
        labels = torch.from_numpy(_clusters(vectors, clusters, self.distances))
        means = torch.zeros(int(labels.max()) + 1, document.shape[1]).index_add_(0, labels, vectors)
        means /= labels.bincount()[:, None]
        if self.renormalise:
            means = F.normalize(means, dim=1)
        return torch.cat([protected, means.to(document.dtype)])


def _clusters(vectors: Tensor, clusters: int, distances: Distances) -> np.ndarray:
    """The cluster of each of vectors [n, d], n >= 2: at most `clusters`, numbered by their first vectors."""
    units = F.normalize(vectors, dim=1).double()
    # Rounding must leave the distances symmetric and none below 0.
    square = (1 - units @ units.T).clamp(min=0).numpy()
    pairs = pdist(square) if distances == "rows" else square[np.triu_indices(len(square), 1)]
    tree = linkage(pairs, method="ward")
    labels = fcluster(tree, clusters, criterion="maxclust")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
