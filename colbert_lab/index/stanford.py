"""Stanford's index directories (ColBERTv2, PLAID, RAGatouille), opened and checked; `stanford_write` writes them.

    metadata.json, plan.json          configuration and counts; without the first the directory is unfinished
    centroids.pt, buckets.pt          the codec; avg_residual.pt is informational
    {i}.codes.pt, {i}.residuals.pt    chunk i: centroid numbers int32 [n], packed residuals uint8 [n, dim·bits/8]
    doclens.{i}.json                  vectors of each of its passages; {i}.metadata.json: their numbers and offsets
    ivf.pid.pt                        for every centroid the passages with a vector there; old ones: ivf.pt, the vectors

A passage's number is its place; its id is a side file's (stanford_ids.py). The files are pickles of tensors, and they
are read as tensors alone: nothing in them is executed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colbert_lab.compression.residual import BITS, Codec
from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.index.stanford_ids import IDS, OF_PASSAGES, RAGATOUILLE_IDS, ragatouille_ids, refuse_repeated


@dataclass(frozen=True)
class Chunk:
    """Consecutive passages: codes [n] int32, packed residuals [n, bytes] uint8, lengths [passages] int32 (sum n)."""

    codes: np.ndarray
    packed: np.ndarray
    lengths: np.ndarray


class StanfordDirectory:
    """An opened directory: `codec`, `lengths`, `ids`, and `chunks()` one after another."""

    def __init__(self, path: str | Path):
        """Check the small files against each other; the chunks are checked as they are read.

        ArtifactError, naming the file, for anything that is missing, no tensor, or not what another file says.
        """
        self.path = Path(path).expanduser()
        self.unfinished = not (self.path / "metadata.json").is_file()
        if self.unfinished and not (self.path / "plan.json").is_file():
            raise ArtifactError(f"{self.path} is no Stanford index: it has neither metadata.json nor plan.json")
        name = "plan.json" if self.unfinished else "metadata.json"
        self.facts: dict[str, Any] = self._json(name, dict)
        self.config: dict[str, Any] = self.facts.get("config", self.facts)
        self._chunks = [self._chunk_lengths(number) for number in range(self._count("num_chunks", name))]
        self.codec = self._codec()
        self.lengths = self._lengths()
        if not self.unfinished and self._count("num_embeddings", name) != self.lengths.sum():
            raise self._wrong(
                name, f"says {self.facts['num_embeddings']} vectors, the passages' lengths sum to {self.lengths.sum()}"
            )

    def __len__(self) -> int:
        """N, the number of passages, removed ones included."""
        return len(self.lengths)

    @cached_property
    def average_residual(self) -> float | None:
        """What avg_residual.pt says, where there is one; nothing is computed from it."""
        if not (self.path / "avg_residual.pt").is_file():
            return None
        return float(self._tensor("avg_residual.pt").float().mean())

    def chunks(self, first: int = 0) -> Iterator[Chunk]:
        """The chunks that start at passage `first` or later, one in memory at a time.

        ArtifactError where codes, residuals, lengths and the chunk's own metadata do not fit together.
        """
        start = 0
        for number, lengths in enumerate(self._chunks):
            if start >= first:
                yield self._chunk(number, lengths)
            start += len(lengths)

    @cached_property
    def lists(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The passages of every centroid's list, end to end (int32), and the lists' lengths [K] (int64).

        Those of old directories, which hold vectors' numbers, are converted; None where an unfinished one has no lists.
        """
        old = not (self.path / "ivf.pid.pt").is_file()
        name = "ivf.pt" if old else "ivf.pid.pt"
        if self.unfinished and not (self.path / name).is_file():
            return None
        flat, lengths = self._pair(name)
        flat, lengths = flat.long().numpy(), lengths.long().numpy()
        partitions = len(self.codec.centroids)
        if len(lengths) != partitions or (lengths < 0).any():
            raise self._wrong(name, f"has {len(lengths)} lists for {partitions} centroids")
        if lengths.sum() > len(flat):
            raise self._wrong(name, f"has lists of {lengths.sum()} entries in all, but {len(flat)} entries")
        # Beyond the last list some versions leave zeros.
        flat = flat[: lengths.sum()]
        most = int(self.lengths.sum()) if old else len(self)
        if len(flat) and (flat.min() < 0 or flat.max() >= most):
            raise self._wrong(name, f"names {'vector' if old else 'passage'} {flat.max()}, there are {most}")
        if old:
            flat, lengths = self._passages_of(flat, lengths)
        return flat.astype(np.int32), lengths

    @cached_property
    def removed(self) -> np.ndarray:
        """The passages that Stanford's IndexUpdater took out, ascending: never found again.

        They are in no list, and have no vectors any more where that was kept on the disk. An export of ours (one with
        our ids.json) may hold documents without vectors; Stanford's own have at least [CLS], marker and [SEP].
        """
        empty = self.lengths == 0
        gone = empty & (not (self.path / IDS).is_file())
        if self.lists is not None:
            listed = np.zeros(len(self), dtype=bool)
            listed[self.lists[0]] = True
            gone |= ~listed & ~empty
        return np.flatnonzero(gone)

    @cached_property
    def ids(self) -> list[str] | None:
        """The passages' ids by the side file, or None where there is none; see stanford_ids.py."""
        if not (self.path / IDS).is_file():
            return None if self._ragatouille is None else self._ragatouille[0]
        ids = self._json(IDS, list)
        self.check_ids(ids, self.path / IDS)
        return ids

    @property
    def split_documents(self) -> int:
        """Documents that RAGatouille cut into several passages."""
        return 0 if self._ragatouille is None else self._ragatouille[1]

    @property
    def of_passages(self) -> bool:
        """Whether `ids` are of documents' passages, `D#n`: RAGatouille's, or an index of passages' that we wrote."""
        return self.split_documents > 0 or bool(self.facts.get(OF_PASSAGES))

    def check_ids(self, ids: list[str], source: str | Path) -> None:
        """DataError where these are not one id a passage, each its own (a removed passage's does not count)."""
        if len(ids) != len(self):
            raise DataError(f"{source} has {len(ids)} ids, {self.path} has {len(self)} passages")
        wrong = [i for i in ids if not isinstance(i, str)]
        if wrong:
            raise DataError(f"{source}: an id is a string, {wrong[0]!r} is not")
        refuse_repeated(ids, self.removed, source)

    @cached_property
    def _ragatouille(self) -> tuple[list[str], int] | None:
        file = self.path / RAGATOUILLE_IDS
        if (self.path / IDS).is_file() or not file.is_file():
            return None
        return ragatouille_ids(self._json(file.name, dict), len(self), self.removed, file)

    def _codec(self) -> Codec:
        centroids = self._tensor("centroids.pt")
        cutoffs, weights = self._pair("buckets.pt")
        if centroids.dim() != 2 or not len(centroids) or not torch.isfinite(centroids.float()).all():
            raise self._wrong("centroids.pt", f"must be finite [K, dim], it is {list(centroids.shape)}")
        partitions, dim = centroids.shape
        for key, found in (("num_partitions", partitions), ("dim", dim)):
            said = {**self.config, **self.facts}.get(key, found)
            if said != found:
                raise self._wrong("centroids.pt", f"has {key} {found}, the metadata says {said}")
        bits = self.config.get("nbits")
        if bits is None:
            bits = int(np.log2(max(1, weights.numel())))
        if bits not in BITS or dim * bits % 8:
            raise self._wrong(
                "metadata.json", f"nbits is {bits} for {dim} dimensions; 1, 2, 4 or 8 filling whole bytes can be read"
            )
        if (cutoffs.numel(), weights.numel()) != (2**bits - 1, 2**bits):
            raise self._wrong(
                "buckets.pt", f"has {cutoffs.numel()} cutoffs and {weights.numel()} weights, nbits is {bits}"
            )
        arrays = {
            "centroids": centroids.half(),
            "cutoffs": cutoffs.float().flatten(),
            "weights": weights.float().flatten(),
        }
        return Codec.from_arrays(arrays, {"codec": "stanford", "bits": bits})

    def _chunk_lengths(self, number: int) -> np.ndarray:
        name = f"doclens.{number}.json"
        lengths = self._json(name, list)
        if any(not isinstance(length, int) or length < 0 for length in lengths):
            raise self._wrong(name, "a length is a whole number, 0 or more")
        return np.array(lengths, dtype=np.int32)

    def _lengths(self) -> np.ndarray:
        passages = vectors = 0
        for number, lengths in enumerate(self._chunks):
            name = f"{number}.metadata.json"
            said = self._json(name, dict)
            found = {
                "passage_offset": passages,
                "num_passages": len(lengths),
                "num_embeddings": int(lengths.sum()),
                "embedding_offset": vectors,
            }
            # Offsets of vectors are written when an index is finished.
            for key, value in found.items():
                if said.get(key, value) != value:
                    raise self._wrong(name, f"{key} is {said[key]}, by doclens it is {value}")
            passages += len(lengths)
            vectors += found["num_embeddings"]
        return np.concatenate([np.empty(0, dtype=np.int32), *self._chunks])

    def _chunk(self, number: int, lengths: np.ndarray) -> Chunk:
        vectors = int(lengths.sum())
        name = f"{number}.codes.pt"
        codes = self._tensor(name)
        if codes.shape != (vectors,) or codes.is_floating_point():
            raise self._wrong(name, f"is {codes.dtype} {list(codes.shape)}, doclens.{number}.json says {vectors} codes")
        partitions = len(self.codec.centroids)
        if vectors and not 0 <= int(codes.min()) <= int(codes.max()) < partitions:
            raise self._wrong(
                name, f"has codes {int(codes.min())} to {int(codes.max())}, there are {partitions} centroids"
            )
        name = f"{number}.residuals.pt"
        packed = self._tensor(name)
        wanted = (vectors, self.codec.bytes)
        if packed.dtype != torch.uint8 or packed.shape != wanted:
            raise self._wrong(
                name,
                f"is {packed.dtype} {list(packed.shape)}, {list(wanted)} bytes are needed at {self.codec.bits} bits",
            )
        return Chunk(codes.int().numpy(), packed.contiguous().numpy(), lengths)

    def _passages_of(self, vectors: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lists of vectors as lists of passages, ascending and unique."""
        passages = np.searchsorted(self.lengths.astype(np.int64).cumsum(), vectors, side="right")
        centroids = np.repeat(np.arange(len(lengths)), lengths)
        pairs = np.unique(centroids * len(self) + passages)
        return pairs % max(1, len(self)), np.bincount(pairs // max(1, len(self)), minlength=len(lengths))

    def _count(self, key: str, name: str) -> int:
        value = self.facts.get(key)
        if not isinstance(value, int) or value < 0:
            raise self._wrong(name, f"{key} must be a whole number, it is {value!r}")
        return value

    def _json(self, name: str, kind: type) -> Any:
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except ValueError as error:
            raise self._wrong(name, f"cannot be read: {error}") from error
        if not isinstance(value, kind):
            raise self._wrong(name, f"must hold a {kind.__name__}, it holds a {type(value).__name__}")
        return value

    def _load(self, name: str) -> Any:
        try:
            # To the CPU: an index that was made on a GPU says so in its files.
            return torch.load(self.path / name, weights_only=True, map_location="cpu")
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except UnpicklingError as error:
            raise self._wrong(
                name,
                "is a pickle of more than tensors, which could run any code when it is opened, so it is not opened; "
                f"make the index again ({str(error).splitlines()[0]})",
            ) from error
        except (RuntimeError, EOFError, ValueError, OSError) as error:
            raise self._wrong(name, f"cannot be read: {str(error).splitlines()[0]}") from error

    def _tensor(self, name: str) -> Tensor:
        value = self._load(name)
        if not isinstance(value, Tensor):
            raise self._wrong(name, f"must hold a tensor, it holds a {type(value).__name__}")
        return value

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        value = self._load(name)
        if not (isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, Tensor) for v in value)):
            raise self._wrong(name, "must hold two tensors")
        return value[0], value[1]

    def _missing(self, name: str) -> ArtifactError:
        state = "; it is unfinished (no metadata.json)" if self.unfinished else ""
        return ArtifactError(f"{self.path} lacks {name}{state}; finish its indexing, or copy it again")

    def _wrong(self, name: str, what: str) -> ArtifactError:
        return ArtifactError(f"{self.path / name}: {what}")
