"""Writing Stanford's index directories: what `StanfordDirectory` reads, and what Stanford's own loader opens.

A codec of kind "stanford" is written bit for bit. Any other is decoded and encoded anew, around the same centroids,
with buckets from a sample: what that costs is told as the mean cosine between the vectors before and after.
"""

import errno
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.compression.residual import Codec, train_residuals
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.index.stanford import Chunk
from colbert_lab.index.stanford_ids import IDS, OF_PASSAGES

# Passages of a chunk at most, as Stanford's indexer has them on one process.
CHUNK = 25_000
# Vectors that buckets are taken from, and vectors that are decoded and encoded together.
_SAMPLE = 2**16
_DECODED = 2**15
# The codes, packed residuals, scales (or None) and lengths of the rows [n] (ascending).
Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]]


def check_writable(codec: Codec, bits: int, reencode: bool) -> None:
    """ConfigError where `codec` cannot be written, or not bit for bit and `reencode` does not allow another way."""
    if codec.dim % (8 * bits):
        allowed = [str(b) for b in (1, 2, 4, 8) if codec.dim % (8 * b) == 0]
        mend = f"try: bits={' or '.join(allowed)}" if allowed else "no number of bits fits this dimension"
        raise ConfigError(
            f"Stanford's decoder wants dimensions divisible by 8·bits, not {codec.dim} at {bits} bits\n{mend}"
        )
    if not reencode and (codec.kind, codec.bits) != ("stanford", bits):
        raise ConfigError(
            f"a {codec.kind} codec of {codec.bits} bits cannot be written as Stanford's of {bits} bits bit for bit\n"
            "try: reencode=true, which decodes and encodes anew and tells the loss"
        )


def write_stanford(
    directory: Path,
    codec: Codec,
    ids: Sequence[str],
    rows: np.ndarray,
    lengths: np.ndarray,
    read: Read,
    bits: int | None = None,
    reencode: bool = True,
    config: dict[str, Any] | None = None,
    average_residual: float | None = None,
    seed: int = 0,
    of_passages: bool = False,
) -> dict[str, Any]:
    """Write the documents `ids` that stand in `rows` (ascending) of an index, with `lengths`; returns what came of it.

    read: gives the contents of some of the rows. bits: of a residual's dimension, by default the codec's. config: more
    settings of Stanford's (doc_maxlen, ...). average_residual: as it was read, where it was. of_passages: `ids` are of
    documents' passages, which the metadata then say. metadata.json comes last.
    The counts: documents, vectors, bits, chunks, empty (centroids without a vector), and where it was encoded anew
    mean_cosine. ConfigError as by `check_writable`; DataError where there is no vector.
    """
    bits = codec.bits if bits is None else bits
    check_writable(codec, bits, reencode)
    if not lengths.sum():
        raise DataError("an index without any vector cannot be written as Stanford's")
    directory.mkdir(parents=True, exist_ok=True)
    written = codec
    cosines: list[float] = []
    if (codec.kind, codec.bits) != ("stanford", bits):
        written = _stanford_codec(codec, rows, lengths, read, bits, seed)
    firsts = range(0, len(rows), CHUNK)
    lists = _Lists(len(written.centroids))
    absolute = offset = 0
    for number, first in enumerate(firsts):
        chunk = _encoded(codec, written, rows[first : first + CHUNK], lengths[first : first + CHUNK], read, cosines)
        _write_chunk(directory, number, chunk, first, offset)
        lists.add(chunk, first)
        offset += len(chunk.codes)
        if average_residual is None:
            absolute += float(_mean_absolute(written, chunk.packed)) * len(chunk.codes)
    average = absolute / offset if average_residual is None else average_residual
    flat, counts = lists.whole()
    _save(directory, "ivf.pid.pt", (torch.from_numpy(flat), torch.from_numpy(counts)))
    _save(directory, "centroids.pt", written.centroids.half())
    _save(directory, "avg_residual.pt", torch.tensor(average, dtype=torch.float32))
    _save(directory, "buckets.pt", (written.cutoffs.float(), written.weights.float()))
    _write(directory, IDS, json.dumps(list(ids), ensure_ascii=False, indent=0))
    shape = {"config": {**(config or {}), "dim": codec.dim, "nbits": bits}}
    shape |= {"num_chunks": len(firsts), "num_partitions": len(written.centroids)}
    shape |= {OF_PASSAGES: True} if of_passages else {}
    mean = offset / len(rows)
    _write_json(directory, "plan.json", {**shape, "num_embeddings_est": float(offset), "avg_doclen_est": mean})
    _write_json(directory, "metadata.json", {**shape, "num_embeddings": offset, "avg_doclen": mean})
    facts = {"documents": len(rows), "vectors": offset, "bits": bits, "chunks": len(firsts)}
    facts["empty_centroids"] = int((counts == 0).sum())
    return facts | ({"mean_cosine": sum(cosines) / offset} if written is not codec else {})


def _stanford_codec(codec: Codec, rows: np.ndarray, lengths: np.ndarray, read: Read, bits: int, seed: int) -> Codec:
    """Buckets for the vectors of a seeded sample of documents, around the codec's own centroids."""
    order = np.random.default_rng(seed).permutation(len(rows))
    taken = 1 + int(np.searchsorted(lengths[order].cumsum(), _SAMPLE))
    sample = np.sort(order[:taken])
    codes, packed, scales, _ = read(rows[sample])
    vectors = F.normalize(_decoded(codec, codes, packed, scales), dim=1)
    return train_residuals(vectors, codec.centroids, bits, "stanford", seed)


def _encoded(
    codec: Codec, written: Codec, rows: np.ndarray, lengths: np.ndarray, read: Read, cosines: list[float]
) -> Chunk:
    """The content of rows in the codec that is written; the sums of cosines to what it was go to `cosines`."""
    if written is codec:
        codes, packed, _, _ = read(rows)
        return Chunk(codes, packed, lengths)
    all_codes, all_packed = [], []
    ends = np.searchsorted(lengths.cumsum(), np.arange(_DECODED, lengths.sum() + _DECODED, _DECODED), side="right")
    for part in np.split(rows, np.unique(ends)):  # whole documents, of about so many vectors
        codes, packed, scales, _ = read(part)
        before = _decoded(codec, codes, packed, scales)
        codes, packed, _ = written.encode(F.normalize(before, dim=1))
        cosines.append(float(F.cosine_similarity(before, written.decode(codes, packed)).double().sum()))
        all_codes.append(codes.numpy())
        all_packed.append(packed.numpy())
    return Chunk(np.concatenate(all_codes), np.concatenate(all_packed), lengths)


def _decoded(codec: Codec, codes: np.ndarray, packed: np.ndarray, scales: np.ndarray | None) -> Tensor:
    given = [None if array is None else torch.from_numpy(array) for array in (codes, packed, scales)]
    return codec.decode(*given)


def _mean_absolute(codec: Codec, packed: np.ndarray) -> float:
    """The mean of |residual| over the values of packed [n, bytes], as they are decoded."""
    per = 8 // codec.bits
    means = codec.table[0, :, :per].abs().mean(1).double()
    return float((means * torch.from_numpy(np.bincount(packed.ravel(), minlength=256))).sum()) / max(1, packed.size)


class _Lists:
    """Inverted lists put together from chunks in passage order, at four bytes an entry."""

    def __init__(self, partitions: int):
        self._partitions = partitions
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, chunk: Chunk, first: int) -> None:
        """Take in a chunk whose passages are numbered from `first`."""
        count = max(1, len(chunk.lengths))
        passages = np.repeat(np.arange(len(chunk.lengths)), chunk.lengths)
        pairs = np.unique(chunk.codes.astype(np.int64) * count + passages)
        counts = np.bincount(pairs // count, minlength=self._partitions)
        self._parts.append(((pairs % count + first).astype(np.int32), counts))

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """All lists end to end (int32; each ascending and unique) and their lengths [K] (int64)."""
        lengths = np.sum([counts for _, counts in self._parts], axis=0, dtype=np.int64)
        flat = np.empty(lengths.sum(), dtype=np.int32)
        cursor = lengths.cumsum() - lengths
        for passages, counts in self._parts:
            within = np.arange(len(passages)) - np.repeat(counts.cumsum() - counts, counts)
            flat[np.repeat(cursor, counts) + within] = passages
            cursor += counts
        return flat, lengths


def _write_chunk(directory: Path, number: int, chunk: Chunk, passages: int, vectors: int) -> None:
    _save(directory, f"{number}.codes.pt", torch.from_numpy(np.ascontiguousarray(chunk.codes, dtype=np.int32)))
    _save(directory, f"{number}.residuals.pt", torch.from_numpy(np.ascontiguousarray(chunk.packed)))
    _write(directory, f"doclens.{number}.json", json.dumps(chunk.lengths.tolist(), separators=(",", ":")))
    facts = {"passage_offset": passages, "num_passages": len(chunk.lengths)}
    facts |= {"num_embeddings": len(chunk.codes), "embedding_offset": vectors}
    _write_json(directory, f"{number}.metadata.json", facts)


def _save(directory: Path, name: str, value: Any) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    _write_bytes(directory / name, buffer.getvalue())


def _write_json(directory: Path, name: str, value: Any) -> None:
    _write(directory, name, json.dumps(value, indent=4))


def _write(directory: Path, name: str, text: str) -> None:
    _write_bytes(directory / name, (text + "\n").encode())


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        path.unlink(missing_ok=True)
        raise ArtifactError(f"the disk is full: {path} could not be written; make room and run it again") from error
