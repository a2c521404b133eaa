"""The files of an index: arrays and lists of strings that grow, and arrays replaced whole, committed together.

    head.json              what is committed: facts, rows, digests; replaced last, by rename
    <name>.npy             an array that only grows; rows beyond the committed ones do not count
    <name>.jsonl           strings, one JSON string a line, that only grow
    <name>-<digest>.npy    an array replaced whole: the new one has another name, the old one goes after the commit

Every .npy and .jsonl file of the directory is one of these; an edit removes those that its head does not name.
Whatever moment a process is killed at, the directory holds the state of the last commit. How a content was cut into
appends and commits leaves no trace in the files of a finished directory.
"""

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.artifact import MANIFEST, hash_json, write_atomic
from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.index import disk, npy

SCHEMA = 1
HEAD = "head.json"
# Digests are kept for blocks of so many bytes, so that an append need not read what stood before it.
_BLOCK = 2**24


class Files:
    """The committed state of a directory, and what is staged to be committed next."""

    def __init__(self, directory: Path, head: dict[str, Any], lock: int | None = None):
        self._directory, self._head, self._lock = directory, head, lock
        self._staged: dict[str, int] = {}
        self._replaced: dict[str, np.ndarray | None] = {}
        self._maps: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, directory: Path, finished: bool = True) -> "Files":
        """For reading: sizes are compared, nothing is read but the head.

        ArtifactError where the directory is unfinished (unless that is asked for, by one of several that make it), or
        names the file that is missing or shorter than committed.
        """
        files = cls(directory, _read_head(directory))
        if finished and not files.finished:
            raise ArtifactError(f"{directory} is an unfinished index; run what makes it again, it goes on where it was")
        files._check_sizes()
        return files

    @classmethod
    def edit(cls, directory: Path, facts: dict[str, Any] | None = None, seen: "Files | None" = None) -> "Files":
        """For writing, alone: begin with `facts`, or go on from the last commit; what lies beyond it is cut off.

        No other may edit until the end of a `with` block, a commit that finishes, or this object. ArtifactError where
        another does; where the directory was begun with other facts, is not as it was when `seen` was read, is part of
        a finished artifact (which never changes: make another one of it), or has lost what was committed.
        """
        if (directory / MANIFEST).exists():
            raise ArtifactError(
                f"{directory} is a finished artifact and never changes\ntry: colbert-lab update, which makes another"
            )
        if facts is None and not (directory / HEAD).exists():
            raise ArtifactError(f"{directory} holds no index")
        directory.mkdir(parents=True, exist_ok=True)
        lock = disk.locked(directory)
        try:
            if not (directory / HEAD).exists():
                _begin(directory, facts)
            files = cls(directory, _read_head(directory))
            begun = files._head["begun"]
            if facts is not None and begun != facts:
                raise ArtifactError(f"{directory} was begun with {begun}, now {facts} are asked for")
            if seen is not None and files._head != seen._head:
                raise ArtifactError(f"{directory} was changed by another since it was opened; open it again")
            files._check_sizes()
            files._tidy()
            files._cut()
        except BaseException:
            os.close(lock)
            raise
        files._lock = lock
        if files.finished and facts is not None:
            files._release()  # nothing is left to make; changing it is another edit
        return files

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def __del__(self) -> None:
        self._release()

    @property
    def facts(self) -> dict[str, Any]:
        """What was said about the content, committed with it."""
        return self._head["facts"]

    @property
    def finished(self) -> bool:
        """Whether the directory is whole: committed once with finished=True."""
        return self._head["finished"]

    def rows(self, name: str) -> int:
        """The committed rows of an array, or the committed strings of a list; 0 where there is none."""
        for kind in ("arrays", "strings", "whole"):
            if name in self._head[kind]:
                return self._head[kind][name]["rows"]
        return 0

    def __contains__(self, name: str) -> bool:
        return any(name in self._head[kind] for kind in ("arrays", "strings", "whole"))

    def array(self, name: str) -> np.ndarray:
        """The committed rows of an array, mapped copy-on-write (nothing that is written to it reaches the disk)."""
        if name not in self._maps:
            facts = self._head["arrays"].get(name) or self._head["whole"][name]
            self._maps[name] = npy.mapped(self._directory / facts["file"], facts)
        return self._maps[name]

    def strings(self, name: str) -> list[str]:
        """The committed strings of a list."""
        facts = self._head["strings"].get(name)
        if not facts:
            return []
        with (self._directory / facts["file"]).open("rb") as handle:
            return [json.loads(line) for line in handle.read(facts["bytes"]).splitlines(keepends=True)]

    def append(self, name: str, rows: np.ndarray) -> None:
        """Stage rows [n] or [n, columns] behind the committed and staged ones; they keep the first append's dtype."""
        rows = np.ascontiguousarray(rows)
        columns = rows.shape[1] if rows.ndim == 2 else None
        fresh = {"file": f"{name}.npy", "dtype": rows.dtype.str, "columns": columns, "rows": 0, "blocks": []}
        facts = self._head["arrays"].setdefault(name, fresh)
        if (facts["dtype"], facts["columns"]) != (rows.dtype.str, columns):
            raise ValueError(f"{name} is {facts['dtype']} [n, {facts['columns']}], not {rows.dtype.str} [n, {columns}]")
        self._stage(name, facts, npy.content(rows), npy.HEADER + facts["rows"] * npy.row_bytes(facts), len(rows))

    def append_strings(self, name: str, values: Sequence[str]) -> None:
        """Stage strings behind the committed and staged ones; DataError for one that UTF-8 cannot hold."""
        fresh = {"file": f"{name}.jsonl", "rows": 0, "bytes": 0, "blocks": []}
        facts = self._head["strings"].setdefault(name, fresh)
        try:
            lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()
        except UnicodeEncodeError as error:
            self._forget()
            wrong = next(value for value in values if value.encode(errors="replace").decode() != value)
            raise DataError(f"{wrong!r} cannot be written in UTF-8: {error.reason}") from error
        self._stage(name, facts, memoryview(lines), facts["bytes"], len(values))

    def replace(self, name: str, array: np.ndarray | None) -> None:
        """Stage a whole array in the place of the one committed under this name; None takes it away.

        An array that had grown by appending can be taken away so too, and be begun again after the commit.
        """
        self._replaced[name] = None if array is None else np.ascontiguousarray(array)

    def commit(self, finished: bool | None = None, **facts: Any) -> None:
        """Bring to the disk what is staged, with facts to change; all of it counts when this returns, or nothing.

        ArtifactError where the disk is full; the state committed before is untouched.
        """
        if self._lock is None:
            raise ValueError(f"{self._directory} is not being edited")
        head = copy.deepcopy(self._head)
        head["finished"] = self.finished if finished is None else finished
        head["facts"].update(facts)
        for name, count in self._staged.items():
            entry = head["arrays" if name in head["arrays"] else "strings"][name]
            entry["rows"] += count
            if "bytes" in entry:
                entry["bytes"] = (self._directory / entry["file"]).stat().st_size
            disk.sync(self._directory / entry["file"])
        for name, array in self._replaced.items():
            head["whole"].pop(name, None)
            head["arrays"].pop(name, None)
            if array is not None:
                head["whole"][name] = self._write_whole(name, array)
        if head["finished"]:
            self._seal(head)
        with disk.telling(self._directory / HEAD):
            write_atomic(self._directory / HEAD, json.dumps({**head, "digest": hash_json(head)}, indent=1).encode())
        self._head = head
        self._forget()
        self._maps = {}
        self._tidy()
        if self.finished:
            self._release()

    def verify(self) -> None:
        """Read every file and compare digests; ArtifactError names the first that differs."""
        self._check_sizes()
        for path, start, length, facts in self._entries():
            if "dtype" in facts:
                npy.check_header(path, facts)
            with path.open("rb") as handle:
                handle.seek(start)
                for number, digest in enumerate(facts["blocks"]):
                    block = handle.read(min(_BLOCK, length - number * _BLOCK))
                    if hashlib.sha256(block).hexdigest() != digest:
                        raise ArtifactError(
                            f"{path} was changed after it was written (block {number} of {_BLOCK >> 20} MiB differs)"
                        )

    def bytes(self) -> int:
        """The size of all committed files, the head included."""
        sizes = sum(start + length for _, start, length, _ in self._entries())
        return sizes + (self._directory / HEAD).stat().st_size

    def _stage(self, name: str, facts: dict[str, Any], content: memoryview, committed: int, count: int) -> None:
        if self._lock is None:
            raise ValueError(f"{self._directory} is not being edited")
        path = self._directory / facts["file"]
        try:
            # Unbuffered: what a full disk did not take must not be written later, behind what came after it.
            with disk.telling(path), path.open("r+b" if path.exists() else "w+b", buffering=0) as handle:
                if name not in self._staged:
                    handle.truncate(committed if path.stat().st_size >= committed else 0)
                    if "dtype" in facts and not facts["rows"]:
                        disk.write(handle, memoryview(npy.header(0, facts)))
                handle.seek(0, os.SEEK_END)
                disk.write(handle, content)
        except BaseException:
            self._forget()
            raise
        self._staged[name] = self._staged.get(name, 0) + count

    def _forget(self) -> None:
        """Of an edit that failed nothing is kept: half of it, with the next one behind, would be committed."""
        self._staged, self._replaced = {}, {}

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_whole(self, name: str, array: np.ndarray) -> dict[str, Any]:
        columns = array.shape[1] if array.ndim == 2 else None
        facts = {"dtype": array.dtype.str, "columns": columns, "rows": len(array)}
        header, content = npy.header(len(array), facts), npy.content(array)
        digest = hashlib.sha256(header)
        digest.update(content)
        path = self._directory / f"{name}-{digest.hexdigest()[:8]}.npy"
        if any(entry["file"] == path.name for entry in self._head["whole"].values()):
            return {"file": path.name, **facts, "blocks": []}  # the same as is committed; others may have it mapped
        # Under its own name at once: no head knows it yet, and what is half written is removed by the next edit.
        with disk.telling(path), path.open("wb", buffering=0) as handle:
            disk.write(handle, memoryview(header))
            disk.write(handle, content)
            os.fsync(handle.fileno())
        return {"file": path.name, **facts, "blocks": []}

    def _seal(self, head: dict[str, Any]) -> None:
        """Complete the arrays' headers and the digests; blocks that were full before are not read again."""
        for path, start, length, facts in _entries(self._directory, head):
            with disk.telling(path), path.open("r+b") as handle:
                if "dtype" in facts and handle.read(npy.HEADER) != (header := npy.header(facts["rows"], facts)):
                    handle.seek(0)
                    handle.write(header)
                    handle.flush()
                    os.fsync(handle.fileno())
                before = facts.get("sealed", 0) // _BLOCK
                blocks = facts["blocks"][:before]
                handle.seek(start + before * _BLOCK)
                for position in range(before * _BLOCK, length, _BLOCK):
                    blocks.append(hashlib.sha256(handle.read(min(_BLOCK, length - position))).hexdigest())
                facts["blocks"], facts["sealed"] = blocks, length

    def _entries(self):
        return _entries(self._directory, self._head)

    def _check_sizes(self) -> None:
        for path, start, length, _ in self._entries():
            if not path.is_file():
                raise ArtifactError(f"{path} is missing; remove {self._directory} and make the index again")
            if path.stat().st_size < start + length:
                raise ArtifactError(f"{path} is shorter than what was committed of it; make the index again")

    def _cut(self) -> None:
        """Take away what a killed edit left behind the committed rows, and what it made of the headers."""
        for path, start, length, facts in self._entries():
            if path.stat().st_size > start + length:
                with path.open("r+b") as handle:
                    handle.truncate(start + length)
                    if "dtype" in facts and self.finished:
                        handle.write(npy.header(facts["rows"], facts))

    def _tidy(self) -> None:
        """Remove arrays and lists that the head does not name (any more), and what a kill left of temporary files."""
        kept = {path.name for path, *_ in self._entries()}
        for pattern in ("*.npy", "*.jsonl", ".*.tmp"):
            for path in self._directory.glob(pattern):
                if path.name not in kept:
                    path.unlink(missing_ok=True)


def _entries(directory: Path, head: dict[str, Any]):
    """For every committed file: its path, where its content starts, how many bytes it has, and its facts."""
    for kind in ("arrays", "strings", "whole"):
        for facts in head[kind].values():
            if kind == "strings":
                yield directory / facts["file"], 0, facts["bytes"], facts
            else:
                yield directory / facts["file"], npy.HEADER, facts["rows"] * npy.row_bytes(facts), facts


def _read_head(directory: Path) -> dict[str, Any]:
    file = directory / HEAD
    if not file.is_file():
        raise ArtifactError(f"{directory} holds no finished index (it has no {HEAD})")
    try:
        head = json.loads(file.read_text(encoding="utf-8"))
        digest = head.pop("digest")
        schema = head["schema"]
    except (ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{file} was changed after it was written: {error}") from error
    if digest != hash_json(head):
        raise ArtifactError(f"{file} was changed after it was written (its digest differs)")
    if schema != SCHEMA:
        raise ArtifactError(f"{directory} was written with layout {schema}, this version reads {SCHEMA}; index again")
    return head


def _begin(directory: Path, facts: dict[str, Any] | None) -> None:
    """An empty head, in a directory whose .npy and .jsonl files will be the index's alone."""
    foreign = sorted(path.name for pattern in ("*.npy", "*.jsonl") for path in directory.glob(pattern))
    if foreign:
        raise ArtifactError(
            f"{directory} holds {foreign[0]}, which is no index's; an index needs a directory of its own"
        )
    head = {"schema": SCHEMA, "finished": False, "begun": facts, "facts": dict(facts or {})}
    head |= {"arrays": {}, "strings": {}, "whole": {}}
    with disk.telling(directory / HEAD):
        write_atomic(directory / HEAD, json.dumps({**head, "digest": hash_json(head)}, indent=1).encode())
