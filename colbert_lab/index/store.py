"""A memory-mapped store of token embeddings, written as a stream and safe to kill.

    values     [T, d]  float32, float16, or bfloat16 kept as int16
    lengths    [N]     int32
    ids        N strings, in row order
    deleted    row numbers, where there are any

How these lie on the disk: index/files.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from colbert_lab.errors import DataError
from colbert_lab.index.files import Files
from colbert_lab.index.rows import Rows, refuse_repeated
from colbert_lab.ragged import Ragged
from colbert_lab.scoring.maxsim import Similarity

StoreDtype = Literal["fp32", "fp16", "bf16"]
_TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class StoreWriter:
    """Append documents to a store; every `append` is committed before it returns."""

    def __init__(self, directory: Path, dim: int, dtype: StoreDtype, similarity: Similarity, **facts: Any):
        """Begin, or go on from what is committed in `directory`, kept with `facts`; a finished store stays finished."""
        self._files = Files.edit(directory, {"dim": dim, "dtype": dtype, "similarity": similarity, **facts})

    @property
    def documents(self) -> int:
        """How many documents are committed."""
        return self._files.rows("ids")

    def append(self, ids: Sequence[str], embeddings: Ragged) -> None:
        """Add documents with their embeddings and commit them to the disk."""
        if self._files.finished:
            raise ValueError("the store is finished; nothing can be appended")
        stage(self._files, ids, embeddings)
        self._files.commit()

    def finish(self) -> None:
        """Complete the store; DataError for an id that came twice."""
        if not self._files.finished:
            refuse_repeated(self._files.strings("ids"))
            self._files.commit(finished=True)


@dataclass(frozen=True)
class Store:
    """An opened store: ids [R], their embeddings (a Ragged of R whose values are mapped from the disk), deleted rows.

    Rows that were deleted are among the ids and embeddings; `rows` knows which count.
    """

    ids: list[str]
    embeddings: Ragged
    rows: Rows
    facts: dict[str, Any]
    files: Files

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Map the store in `directory`; ArtifactError where it is unfinished or a file is missing or cut off."""
        return cls.of(Files.open(directory))

    @classmethod
    def of(cls, files: Files) -> "Store":
        """The store in files that are open already."""
        dtype, dim = files.facts["dtype"], files.facts["dim"]
        ids = files.strings("ids")
        if ids:
            lengths = torch.from_numpy(files.array("lengths").astype(np.int64))
            values = torch.from_numpy(files.array("values"))
            values = values.view(torch.bfloat16) if dtype == "bf16" else values
        else:
            lengths, values = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dim, dtype=_TORCH[dtype])
        rows = Rows(ids, files.array("deleted") if "deleted" in files else None)
        counts = {"documents": len(rows), "vectors": int(lengths[torch.from_numpy(rows.live)].sum())}
        return cls(ids, Ragged(values, lengths), rows, {**files.facts, **counts}, files)


def stage(files: Files, ids: Sequence[str], embeddings: Ragged) -> None:
    """Check documents and stage them behind those in `files`, whose facts say dim and dtype; the caller commits.

    DataError, naming the document, for a vector that is not finite in that dtype.
    """
    dim, dtype = files.facts["dim"], files.facts["dtype"]
    if len(ids) != len(embeddings):
        raise ValueError(f"{len(ids)} ids for {len(embeddings)} documents")
    if embeddings.dim != dim:
        raise ValueError(f"vectors have {embeddings.dim} dimensions, the store {dim}")
    broken = ~torch.isfinite(embeddings.values.to(_TORCH[dtype])).all(1)
    if broken.any():
        document = int(torch.searchsorted(embeddings.offsets, int(broken.nonzero()[0, 0]), right=True)) - 1
        raise DataError(f"the embedding of document {ids[document]!r} is not finite in {dtype}; the model is broken")
    files.append("values", _to_numpy(embeddings.values, dtype))
    files.append("lengths", embeddings.lengths.numpy().astype(np.int32))
    files.append_strings("ids", ids)


def edit_rows(
    files: Files, rows: Rows, removed: Sequence[str] = (), added: Sequence[str] = (), replace: bool = False
) -> None:
    """Check an edit and stage the rows that it deletes: `removed`, and of `added` those present where `replace` allows.

    DataError for an id that is not in the index, that is there already, or that comes twice; nothing is staged then.
    """
    refuse_repeated(list(removed))
    if replace:
        refuse_repeated(list(added))
        gone = rows.of([*removed, *added])
    else:
        rows.refuse_present(added)
        gone = rows.of(removed)
    if len(gone):
        before = files.array("deleted") if "deleted" in files else np.empty(0, dtype=np.int64)
        files.replace("deleted", np.sort(np.concatenate([before, gone])))


def _to_numpy(values: torch.Tensor, dtype: StoreDtype) -> np.ndarray:
    values = values.to(_TORCH[dtype])
    return values.view(torch.int16).numpy() if dtype == "bf16" else values.numpy()
