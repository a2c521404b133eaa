"""Making a residual index: a spool of vectors, a codec trained on a sample of it, and codes chunk after chunk.

Each of the steps is committed when it is done, and a build that was killed goes on with the first that is not. Chunks
are so many vectors each, however they were appended, and depend on nothing but the spool and the codec: R processes
make what one makes.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colbert_lab.compression.kmeans import partitions
from colbert_lab.compression.residual import Codec, train_codec
from colbert_lab.errors import DataError
from colbert_lab.index.files import Files
from colbert_lab.index.residual.codes import has_codec, offsets, stage_codec, stored_codec
from colbert_lab.index.residual.lists import build_lists
from colbert_lab.index.rows import refuse_repeated
from colbert_lab.index.store import stage
from colbert_lab.processes import in_order
from colbert_lab.progress import progress
from colbert_lab.ragged import Ragged

# Vectors compressed at once and committed together: 64 MB of them at 128 dimensions in fp32.
CHUNK = 2**17
# Every so manieth vector of the build tells how far vectors are from their centroids.
GAUGED = 8
# How far from 1 the norm of a unit vector may be after rounding to 16 bits and pooling.
_UNIT = 0.02


@dataclass(frozen=True)
class Chunk:
    """The codes of some vectors, as they are stored, and the mean distance of these vectors from their centroids."""

    codes: np.ndarray
    packed: np.ndarray
    scales: np.ndarray | None
    distance: float

    def stage(self, files: Files) -> None:
        """Stage it behind what is stored."""
        files.append("codes", self.codes)
        files.append("packed", self.packed)
        if self.scales is not None:
            files.append("scales", self.scales)


class ResidualWriter:
    """Append documents to the spool; `finish` trains, compresses and removes it."""

    def __init__(self, directory: Path, facts: dict[str, Any], processes: int = 1):
        """Begin, or go on from what is committed in `directory`; facts: dim, similarity, the kind's parameters."""
        self._directory, self._processes = directory, processes
        self._files = Files.edit(directory, facts)

    @property
    def documents(self) -> int:
        """How many documents are committed."""
        return self._files.rows("ids")

    def append(self, ids: Sequence[str], embeddings: Ragged) -> None:
        """Add documents with their embeddings to the spool and commit them.

        DataError for a vector that is not finite, or not of unit norm.
        """
        if self._files.finished or has_codec(self._files):
            raise ValueError("the index was being finished; nothing can be appended, but its add() takes documents")
        check_documents(self._files.facts, ids, embeddings)
        stage(self._files, ids, embeddings)
        self._files.commit()

    def finish(self) -> None:
        """Train the codec, compress every chunk, make the inverted lists; DataError for an id that came twice."""
        files = self._files
        if files.finished:
            return
        if not has_codec(files):
            refuse_repeated(files.strings("ids"))
            if "values" not in files:
                stage(files, [], Ragged(torch.empty(0, files.facts["dim"]), torch.zeros(0, dtype=torch.int64)))
                files.commit()
            stage_codec(files, train(files.facts, files.array("values"), files.array("lengths")))
            files.commit(distance=0.0, added_vectors=0, added_distance=0.0)
        codec, values = stored_codec(files), files.array("values")
        count, done = chunks(len(values)), files.rows("codes")
        with progress("compress", len(values), "vectors", done=done) as bar:
            numbers = range(-(-done // CHUNK), count)
            if self._processes == 1:
                made = (compress(_part(values, number, CHUNK), codec, GAUGED) for number in numbers)
            else:
                made = in_order(self._processes, _compressing, (self._directory, CHUNK), numbers)
            with closing(made):
                for number, chunk in zip(numbers, made, strict=True):
                    chunk.stage(files)
                    before = files.facts["distance"]
                    # The running mean over chunks, in their order.
                    files.commit(distance=before + (chunk.distance - before) / (number + 1))
                    bar.advance(len(chunk.codes))
        stage_lists(files, files.array("codes"), files.array("lengths"), len(codec.centroids))
        files.replace("values", None)
        files.commit(finished=True)


def chunks(vectors: int) -> int:
    """How many chunks so many vectors are, at least one."""
    return max(1, -(-vectors // CHUNK))


def compress(vectors: torch.Tensor, codec: Codec, gauged: int = 1) -> Chunk:
    """The codes of vectors [T, d] fp32; their distance from the centroids is taken of every `gauged`-th."""
    codes, packed, scales = codec.encode(vectors)
    some = vectors[::gauged]
    distances = (some - codec.centroids[codes[::gauged].long()]).norm(dim=1)
    narrow = np.uint16 if len(codec.centroids) <= 2**16 else np.uint32
    return Chunk(
        codes.numpy().astype(narrow),
        packed.numpy(),
        None if scales is None else scales.numpy(),
        float(distances.double().mean()) if len(some) else 0.0,
    )


def _compressing(directory: Path, size: int) -> Callable[[int], Chunk]:
    """What makes the chunk of a number, of `size` vectors each, from what is spooled in the directory."""
    files = Files.open(directory, finished=False)
    values, codec = files.array("values"), stored_codec(files)
    return lambda number: compress(_part(values, number, size), codec, GAUGED)


def _part(values: np.ndarray, number: int, size: int) -> torch.Tensor:
    return torch.from_numpy(values[number * size : (number + 1) * size]).float()


def train(facts: dict[str, Any], values: np.ndarray, lengths: np.ndarray, most: int = 2**32) -> Codec:
    """The codec for vectors [T, d] fp16 of documents of these lengths, trained on a sample by the facts' parameters.

    It has at most `most` centroids.
    """
    wanted = facts["partitions"] or partitions(len(values), 1)
    sample = sample_vectors(lengths, wanted * facts["sample_per_centroid"], facts["seed"])
    wanted = max(1, min(wanted, len(sample) // facts["points_per_centroid"], most))
    vectors = torch.from_numpy(values[sample]).float()
    with progress("train the codec", None, "steps") as bar:
        codec = train_codec(vectors, wanted, facts["bits"], facts["codec"], facts["seed"], facts["iterations"])
        bar.advance()
    return codec


def sample_vectors(lengths: np.ndarray, most: int, seed: int) -> np.ndarray:
    """The numbers (ascending) of at most `most` vectors, drawn by `seed` from a sample of all documents.

    The sample has 1 + 16·sqrt(120·N) documents, that is all of them up to 30,720: ColBERTv2, arXiv 2112.01488.
    """
    generator = np.random.default_rng(seed)
    count = min(1 + int(16 * np.sqrt(120 * len(lengths))), len(lengths))
    documents = np.sort(generator.permutation(len(lengths))[:count])
    starts, lengths = offsets(lengths)[documents], lengths[documents].astype(np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if count else 0
    drawn = np.arange(total) if total <= most else np.sort(generator.choice(total, most, replace=False, shuffle=False))
    document = np.searchsorted(ends, drawn, side="right")
    return starts[document] + drawn - (ends - lengths)[document]


def stage_lists(files: Files, codes: np.ndarray, lengths: np.ndarray, centroids: int) -> None:
    """Stage the inverted lists of all the codes."""
    lists, sizes = build_lists(codes, offsets(lengths), centroids)
    files.replace("lists", lists)
    files.replace("list_bytes", sizes)


def check_documents(facts: dict[str, Any], ids: Sequence[str], embeddings: Ragged) -> None:
    """ValueError for what does not fit together; DataError for a vector not finite in 16 bits, or not of norm 1.

    Both codecs keep directions alone, so that another norm would be lost without a word.
    """
    if len(ids) != len(embeddings):
        raise ValueError(f"{len(ids)} ids for {len(embeddings)} documents")
    if embeddings.dim != facts["dim"]:
        raise ValueError(f"vectors have {embeddings.dim} dimensions, the index {facts['dim']}")
    norms = embeddings.values.half().float().norm(dim=1)
    if len(wrong := (~torch.isfinite(norms)).nonzero()[:, 0]):
        raise DataError(f"the embedding of document {_document(ids, embeddings, wrong)!r} is not finite in fp16")
    if len(wrong := ((norms - 1).abs() > _UNIT).nonzero()[:, 0]):
        raise DataError(
            f"{len(wrong)} vectors are not of unit norm, the first, of document {_document(ids, embeddings, wrong)!r}, "
            f"has {float(norms[wrong[0]]):.3f}; residual codecs keep directions only\ntry: index=exact"
        )


def _document(ids: Sequence[str], embeddings: Ragged, vectors: torch.Tensor) -> str:
    return ids[int(torch.searchsorted(embeddings.offsets, int(vectors[0]), right=True)) - 1]
