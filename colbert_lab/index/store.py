"""A memory-mapped store of token embeddings, written as a stream and safe to kill.

    values.npy     [T, d]  float32, float16, or bfloat16 kept as int16
    lengths.npy    [N]     int32
    ids.jsonl      one JSON string a line, in row order
    store.json     dtype, similarity, counts; written last

While it grows, `journal.json` holds how much of each file is committed; what lies beyond is cut off at the next start.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from colbert_lab.artifact import write_atomic
from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.ragged import Ragged
from colbert_lab.scoring.maxsim import Similarity

StoreDtype = Literal["fp32", "fp16", "bf16"]
_ON_DISK = {"fp32": np.float32, "fp16": np.float16, "bf16": np.int16}
_TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class StoreWriter:
    """Append documents to a store; every `append` is committed before it returns."""

    def __init__(self, directory: Path, dim: int, dtype: StoreDtype, similarity: Similarity):
        """Begin, or go on from what the journal in `directory` says is committed; a finished store stays finished."""
        self._directory, self._dtype = directory, dtype
        self._facts = {"dim": dim, "dtype": dtype, "similarity": similarity}
        fresh = {**self._facts, "documents": 0, "vectors": 0, "id_bytes": 0}
        self._finished = (directory / "store.json").exists()
        file = directory / ("store.json" if self._finished else "journal.json")
        self._journal = json.loads(file.read_text()) if file.exists() else fresh
        if any(self._journal[name] != value for name, value in self._facts.items()):
            raise ArtifactError(f"{directory} was begun with {self._journal}, now {self._facts} are asked for")
        if self._finished:
            return
        header = _header((0, dim), _ON_DISK[dtype])
        values = len(header) + self._journal["vectors"] * dim * np.dtype(_ON_DISK[dtype]).itemsize
        self._values = _reopen(directory / "values.npy", values if self._journal["documents"] else 0)
        self._lengths = _reopen(directory / "lengths.raw", self._journal["documents"] * 4)
        self._ids = _reopen(directory / "ids.jsonl", self._journal["id_bytes"])
        if not self._journal["documents"]:
            self._values.write(header)

    @property
    def documents(self) -> int:
        """How many documents are committed."""
        return self._journal["documents"]

    def append(self, ids: Sequence[str], embeddings: Ragged) -> None:
        """Add documents with their embeddings and commit them to the disk."""
        if self._finished:
            raise ValueError(f"the store in {self._directory} is finished; nothing can be added")
        if len(ids) != len(embeddings):
            raise ValueError(f"{len(ids)} ids for {len(embeddings)} documents")
        if embeddings.dim != self._facts["dim"]:
            raise ValueError(f"vectors have {embeddings.dim} dimensions, the store {self._facts['dim']}")
        broken = ~torch.isfinite(embeddings.values.to(_TORCH[self._dtype])).all(1)
        if broken.any():
            document = int(torch.searchsorted(embeddings.offsets, int(broken.nonzero()[0, 0]), right=True)) - 1
            raise DataError(
                f"the embedding of document {ids[document]!r} is not finite in {self._dtype}; the model is broken"
            )
        lines = "".join(json.dumps(i, ensure_ascii=False) + "\n" for i in ids).encode()
        self._values.write(_to_numpy(embeddings.values, self._dtype).tobytes())
        self._lengths.write(embeddings.lengths.numpy().astype(np.int32).tobytes())
        self._ids.write(lines)
        for handle in (self._values, self._lengths, self._ids):
            handle.flush()
            os.fsync(handle.fileno())
        self._journal["documents"] += len(ids)
        self._journal["vectors"] += len(embeddings.values)
        self._journal["id_bytes"] += len(lines)
        write_atomic(self._directory / "journal.json", json.dumps(self._journal).encode())

    def finish(self) -> None:
        """Complete the headers and write store.json; DataError for an id that came twice."""
        if not self._finished:
            self._complete()
        # What a kill leaves of these is removed by the next finish: store.json stands already.
        (self._directory / "journal.json").unlink(missing_ok=True)
        (self._directory / "lengths.raw").unlink(missing_ok=True)

    def _complete(self) -> None:
        shape = (self._journal["vectors"], self._facts["dim"])
        # numpy leaves room in a header for the first axis to grow, so the new one takes the place of the old.
        self._values.seek(0)
        self._values.write(_header(shape, _ON_DISK[self._dtype]))
        for handle in (self._values, self._lengths, self._ids):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
        lengths = np.fromfile(self._directory / "lengths.raw", dtype=np.int32)
        np.save(self._directory / "lengths.npy", lengths)
        _refuse_repeated(_read_ids(self._directory))
        facts = {**self._facts, "documents": self._journal["documents"], "vectors": self._journal["vectors"]}
        write_atomic(self._directory / "store.json", json.dumps(facts, indent=1).encode())
        self._finished = True


@dataclass(frozen=True)
class Store:
    """An opened store: ids [N] and embeddings, a Ragged of N whose values are mapped from the disk."""

    ids: list[str]
    embeddings: Ragged
    facts: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Map the store in `directory`; ArtifactError where it is unfinished."""
        file = directory / "store.json"
        if not file.is_file():
            raise ArtifactError(f"{directory} holds no finished store of embeddings")
        facts = json.loads(file.read_text())
        lengths = torch.from_numpy(np.load(directory / "lengths.npy").astype(np.int64))
        # Copy-on-write, so that torch may map it; nothing writes.
        values = torch.from_numpy(np.load(directory / "values.npy", mmap_mode="c"))
        if facts["dtype"] == "bf16":
            values = values.view(torch.bfloat16)
        return cls(_read_ids(directory), Ragged(values, lengths), facts)


def _to_numpy(values: torch.Tensor, dtype: StoreDtype) -> np.ndarray:
    values = values.to(_TORCH[dtype])
    return values.view(torch.int16).numpy() if dtype == "bf16" else values.numpy()


def _header(shape: tuple[int, int], dtype: type) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    record = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, record)
    return buffer.getvalue()


def _reopen(path: Path, size: int):
    path.touch()
    if path.stat().st_size < size:
        raise ArtifactError(f"{path} is shorter than what was committed of it; remove {path.parent} and begin anew")
    handle = path.open("r+b")
    # A kill between a write and its commit leaves more than the journal knows of.
    handle.truncate(size)
    handle.seek(0, os.SEEK_END)
    return handle


def _read_ids(directory: Path) -> list[str]:
    with (directory / "ids.jsonl").open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _refuse_repeated(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        repeated = next(i for i in ids if i in seen or seen.add(i))
        raise DataError(f"document id {repeated!r} was indexed twice")
