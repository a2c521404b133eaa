"""`index=single_vector`: one vector a document, searched exactly; token embeddings are pooled on their way in.

What a bi-encoder's index is. The model of a single-vector baseline gives one vector a text already, which passes as it
is; of a late-interaction model's vectors it tells what MaxSim adds over their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from colbert_lab.errors import ConfigError
from colbert_lab.index.exact import ExactIndex
from colbert_lab.index.store import StoreDtype, StoreWriter
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run
from colbert_lab.scoring.maxsim import Similarity

VectorPooling = Literal["mean", "first"]


@dataclass(frozen=True)
class SingleVectorIndexKind:
    """`index=single_vector`: the "mean" of a text's vectors, or their "first" (the state of `[CLS]`), in `dtype`."""

    pooling: VectorPooling = "mean"
    dtype: StoreDtype = "fp16"
    takes: ClassVar[Literal["embeddings"]] = "embeddings"
    probe: ClassVar[None] = None
    # Token vectors, which MaxSim is computed of: they are pooled away.
    keeps_vectors: ClassVar[bool] = False

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> "SingleVectorWriter":
        """Begin, or go on with, the index in this directory."""
        store = StoreWriter(directory, dim, self.dtype, similarity, pooling=self.pooling)
        return SingleVectorWriter(store, self.pooling)

    def open(self, directory: Path) -> "SingleVectorIndex":
        """The finished index in this directory."""
        return SingleVectorIndex(directory)


def pooled(embeddings: Ragged, pooling: VectorPooling) -> Ragged:
    """One unit vector (fp32) for every sequence, its mean or its first; none where it has none.

    A sequence of one vector keeps it, bit by bit.
    """
    counts = embeddings.lengths
    some = counts > 0
    values = embeddings.values.float()
    first = values[embeddings.offsets[:-1][some]]
    if pooling == "mean":
        owner = torch.arange(len(counts)).repeat_interleave(counts)
        sums = torch.zeros(len(counts), embeddings.dim).index_add_(0, owner, values)
        chosen = sums[some] / counts[some][:, None]
    else:
        chosen = first
    alone = (counts[some] == 1)[:, None]
    return Ragged(torch.where(alone, first, F.normalize(chosen, dim=1)), some.to(torch.int64))


class SingleVectorWriter:
    """Pools documents as they come, into a store; every `append` is committed before it returns."""

    def __init__(self, store: StoreWriter, pooling: VectorPooling):
        self._store, self._pooling = store, pooling

    @property
    def documents(self) -> int:
        """How many documents are committed."""
        return self._store.documents

    def append(self, ids: Sequence[str], documents: Ragged) -> None:
        """Add documents, from all their vectors."""
        self._store.append(ids, pooled(documents, self._pooling))

    def finish(self) -> None:
        """Complete the index; DataError for an id that came twice."""
        self._store.finish()


class SingleVectorIndex:
    """An exact index of one vector a document; queries and documents are pooled alike before they reach it."""

    def __init__(self, directory: Path):
        self._exact = ExactIndex(directory)
        self._pooling: VectorPooling = self._exact.stats()["pooling"]

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""
        return self._exact.ids

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def similarity(self) -> Similarity:
        """How its vectors are compared."""
        return self._exact.similarity

    def stats(self) -> dict[str, Any]:
        """Documents, vectors, dimensions, dtype, pooling and bytes of all files."""
        return self._exact.stats()

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""
        self._exact.verify()

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged,
        k: int,
        only: Sequence[str] | None = None,
        probe: None = None,
    ) -> Run:
        """The best min(k, N) of every query by its one vector's product with theirs (or minus the squared distance).

        Equal scores by id; a document without a vector comes last. ConfigError where `probe` is given.
        """
        if probe is not None:
            raise ConfigError(
                f"a single-vector index has nothing to probe, {type(probe).__name__} was given\ntry: probe=auto"
            )
        return self._exact.search(query_ids, pooled(queries, self._pooling), k, only)

    def add(self, ids: Sequence[str], documents: Ragged) -> None:
        """Add documents; all are there when it returns, or none. DataError for an id that is there already."""
        self._exact.add(ids, pooled(documents, self._pooling))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents from every later search; DataError for an unknown id."""
        self._exact.delete(ids)

    def update(self, ids: Sequence[str], documents: Ragged) -> None:
        """Put other vectors in the place of these documents' own; DataError for an unknown id."""
        self._exact.update(ids, pooled(documents, self._pooling))
