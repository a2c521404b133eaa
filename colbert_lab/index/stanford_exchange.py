"""Between residual indexes and Stanford's directories: a codec of kind "stanford" goes over bit for bit, either way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colbert_lab.compression.residual import Codec
from colbert_lab.errors import ConfigError
from colbert_lab.index.files import Files
from colbert_lab.index.residual.build import stage_lists
from colbert_lab.index.residual.codes import Codes, stage_codec
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.rows import Rows
from colbert_lab.index.stanford import Chunk, StanfordDirectory
from colbert_lab.index.stanford_write import write_stanford

# Vectors of a chunk, at most, by which its distance from the centroids is estimated.
_GAUGED = 2**15


def kind_of(source: StanfordDirectory) -> ResidualIndexKind:
    """The residual index that opens what `import_stanford` makes of this directory."""
    return ResidualIndexKind(bits=source.codec.bits, codec="stanford", partitions=len(source.codec.centroids))


def import_stanford(source: StanfordDirectory, directory: Path, ids: Sequence[str] | None = None) -> dict[str, Any]:
    """Make the residual index of a Stanford directory in `directory`, or go on with it; every chunk is committed.

    `ids` are the passages' ids, by default those of the side file, else "0", "1", ... Passages that Stanford's
    IndexUpdater removed are deleted rows. Returns counts: removed, split_documents (RAGatouille's), and
    whether the directory is unfinished. ArtifactError where the directory is not what it says, DataError for ids.
    """
    ids = (source.ids or [str(number) for number in range(len(source))]) if ids is None else list(ids)
    source.check_ids(ids, "what was given")
    codec, removed = source.codec, source.removed
    # Which of the two Stanford's model was trained with; vectors are of unit norm, so they rank alike.
    similarity = "l2" if source.config.get("similarity") == "l2" else "cosine"
    files = Files.edit(
        directory, {"dim": codec.dim, "dtype": "fp16", "similarity": similarity, **kind_of(source).recorded()}
    )
    if not files.finished:
        if "codec-centroids" not in files:
            stage_codec(files, codec)
            kept = {"config": source.config, "average_residual": source.average_residual}
            _append(files, codec, [], Chunk(*_nothing(codec)))
            files.commit(stanford=kept, distance=0.0, added_vectors=0, added_distance=0.0)
        first = files.rows("ids")
        for chunk in source.chunks(first):
            before, count = files.facts["distance"], files.rows("codes")
            distance = _distance(codec, chunk)
            _append(files, codec, ids[first : first + len(chunk.lengths)], chunk)
            # The running mean over vectors.
            weight = len(chunk.codes) / max(1, count + len(chunk.codes))
            files.commit(distance=before + (distance - before) * weight)
            first += len(chunk.lengths)
        stage_lists(files, files.array("codes"), files.array("lengths"), len(codec.centroids))
        if len(removed):
            files.replace("deleted", removed.astype(np.int64))
        files.commit(finished=True)
    return {
        "removed": len(removed),
        "split_documents": source.split_documents,
        "unfinished": source.unfinished,
    }


def residual_files(index: Path) -> Files:
    """The files of the residual index in `index`; ConfigError where it is of another kind."""
    files = Files.open(index)
    if "codec" not in files.facts:
        raise ConfigError(
            f"{index} has no codec, and Stanford's directories hold compressed vectors\n"
            "try: index with index=residual index.codec=stanford first"
        )
    return files


def export_stanford(
    index: Path,
    directory: Path,
    bits: int | None = None,
    reencode: bool = True,
    seed: int = 0,
    of_passages: bool = False,
) -> dict[str, Any]:
    """Write the residual index in `index` as a Stanford directory; deleted rows are left out.

    `of_passages` says that its ids are of documents' passages. Returns the counts of `write_stanford` and deleted_rows.
    ConfigError where the index is of another kind, or where `bits` (by default its own) or `reencode` keep it from
    being written.
    """
    files = residual_files(index)
    codes, all_ids, lengths = Codes.of(files), files.strings("ids"), files.array("lengths").astype(np.int64)
    live = Rows(all_ids, files.array("deleted") if "deleted" in files else None).live
    rows = np.flatnonzero(live)

    def read(some: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        count = lengths[some]
        within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
        at = np.repeat(codes.offsets[some], count) + within
        scales = codes.scales[at] if codes.codec.scaled else None
        return codes.codes[at].astype(np.int32), codes.packed[at], scales, count

    kept = files.facts.get("stanford") or {}
    counts = write_stanford(
        directory,
        codes.codec,
        [all_ids[row] for row in rows],
        rows,
        lengths[rows],
        read,
        bits,
        reencode,
        kept.get("config") or {"similarity": files.facts["similarity"]},
        kept.get("average_residual"),
        seed,
        of_passages,
    )
    return counts | {"deleted_rows": len(all_ids) - len(rows)}


def _append(files: Files, codec: Codec, ids: Sequence[str], chunk: Chunk) -> None:
    narrow = np.uint16 if len(codec.centroids) <= 2**16 else np.uint32
    files.append("codes", chunk.codes.astype(narrow))
    files.append("packed", chunk.packed)
    files.append("lengths", chunk.lengths)
    files.append_strings("ids", ids)


def _nothing(codec: Codec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an index of no passages has: its arrays are there all the same."""
    return np.empty(0, np.int32), np.empty((0, codec.bytes), np.uint8), np.empty(0, np.int32)


def _distance(codec: Codec, chunk: Chunk) -> float:
    """The mean distance of the chunk's vectors, as they are decoded, from their centroids."""
    some = slice(None, None, max(1, len(chunk.codes) // _GAUGED))
    if not len(chunk.codes):
        return 0.0
    codes = torch.from_numpy(chunk.codes[some])
    vectors = codec.decode(codes, torch.from_numpy(chunk.packed[some]))
    return float((vectors - codec.centroids[codes.long()]).norm(dim=1).double().mean())
