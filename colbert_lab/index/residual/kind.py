"""`index=residual`: ColBERTv2's compression (arXiv 2112.01488), searched in the manner of PLAID (arXiv 2205.09707)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from colbert_lab.compression.residual import Kind, check
from colbert_lab.errors import ConfigError
from colbert_lab.index.residual.build import ResidualWriter
from colbert_lab.index.residual.probe import ResidualProbe
from colbert_lab.scoring.maxsim import Similarity

if TYPE_CHECKING:
    from colbert_lab.index.residual.index import ResidualIndex


@dataclass(frozen=True)
class ResidualIndexKind:
    """Centroids and `bits` a dimension for the rest.

    codec                 how residuals become bytes: compression/residual.py
    partitions            centroids; None: 2^floor(log2(16·sqrt(vectors)))
    sample_per_centroid   training vectors for each centroid, at most
    points_per_centroid   and at least: tiny collections get fewer centroids
    iterations, seed      of k-means; equal seeds make equal bytes
    processes             that compress, each with its share of the threads; as many make the same bytes as one
    """

    bits: int = 2
    codec: Kind = "product"
    partitions: int | None = None
    sample_per_centroid: int = 16
    points_per_centroid: int = 4
    iterations: int = 4
    seed: int = 0
    processes: int = 1
    takes: ClassVar[Literal["embeddings"]] = "embeddings"
    probe: ClassVar[type] = ResidualProbe
    # What says how an index is made and leaves no trace in it.
    unrecorded: ClassVar[tuple[str, ...]] = ("processes",)

    def __post_init__(self):
        counts = ("partitions", "sample_per_centroid", "points_per_centroid", "iterations", "processes")
        wrong = [
            f"{name}={value}, but it must be at least 1\ntry: index.{name}={getattr(type(self), name)}"
            for name in counts
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.sample_per_centroid < self.points_per_centroid:
            wrong.append(
                f"sample_per_centroid={self.sample_per_centroid} training vectors a centroid are fewer than "
                f"points_per_centroid={self.points_per_centroid}\ntry: index.points_per_centroid=1"
            )
        if wrong:
            raise ConfigError(wrong, "index=residual")

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> ResidualWriter:
        """Begin, or go on with, the index in this directory; ConfigError where `bits` do not fill whole bytes."""
        check(dim, self.bits, self.codec)
        facts = {"dim": dim, "dtype": "fp16", "similarity": similarity, **self.recorded()}
        return ResidualWriter(directory, facts, self.processes)

    def recorded(self) -> dict[str, Any]:
        """The parameters that an index keeps: all but `unrecorded`."""
        return {name: value for name, value in asdict(self).items() if name not in self.unrecorded}

    def open(self, directory: Path) -> "ResidualIndex":
        """The finished index in this directory."""
        from colbert_lab.index.residual.index import ResidualIndex  # its kernels take a moment to load

        return ResidualIndex(directory)
