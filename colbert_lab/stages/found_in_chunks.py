"""A run that is found some queries at a time, so that a kill costs one chunk of them.

    searched/<n>.trec     what a chunk of queries found, until run.trec.gz holds all of them
    log/searched.jsonl    a line a chunk, written when its hits are on the disk: what it found, and what that cost

The file that comes of it is the one that `write_trec` makes of the whole run, byte for byte.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from colbert_lab.artifact import Builder
from colbert_lab.index import disk
from colbert_lab.progress import progress
from colbert_lab.run import Run, create_text, open_text, write_trec
from colbert_lab.stages import chunk_log

# Queries a chunk: seconds to a minute of work for most indexes, and enough for every batched kernel. The vectors of a
# query may depend in their last bits on what it is encoded with, so that another number would make other bytes.
CHUNK = 1024
RUN = "run.trec.gz"


def found_in_chunks(
    builder: Builder,
    queries: Sequence[str],
    find: Callable[[Sequence[str]], tuple[Run, Mapping[str, float]]],
    tag: str = "colbert_lab",
) -> dict[str, float]:
    """Write the run of `queries` as run.trec.gz, and return the sums of what each chunk told of itself.

    `find` gives the hits of a chunk of queries, and numbers that can be added up; `queries` and `results`, how many
    there are, are counted here. Chunks that an earlier start found are not asked for again. ArtifactError where the
    disk is full.
    """
    parts, whole, record = builder.path / "searched", builder.path / RUN, builder.log / "searched.jsonl"
    chunk_log.keep(record, done := chunk_log.noted(record))
    chunks = [queries[first : first + CHUNK] for first in range(0, len(queries), CHUNK)]
    left = list(enumerate(chunks))[len(done) :]
    parts.mkdir(exist_ok=True)
    with progress("search", len(queries), "queries", done=sum(map(len, chunks[: len(done)]))) as bar:
        for number, chunk in left:
            run, facts = find(chunk)
            with disk.telling(_part(parts, number)):
                write_trec(run, _part(parts, number), tag)
            disk.sync(_part(parts, number))
            done.append({"queries": len(run), "results": sum(map(len, run.values())), **facts})
            chunk_log.note(record, done[-1])
            bar.advance(len(chunk))
    if left or not whole.exists():
        _join([_part(parts, number) for number in range(len(chunks))], parts / RUN)
        os.replace(parts / RUN, whole)
    # Not before the run is whole: until then a restart needs them.
    shutil.rmtree(parts)
    names = dict.fromkeys(["queries", "results", *(name for line in done for name in line)])
    return {name: sum(line[name] for line in done) for name in names}


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:05}.trec"


def _join(parts: Sequence[Path], whole: Path) -> None:
    with disk.telling(whole), create_text(whole) as joined:
        for part in parts:
            with open_text(part) as lines:
                joined.writelines(lines)
