"""A teacher's scores on disk, by content: a pair of texts is scored once, whatever run or round it comes from.

One file a teacher, `<key[:16]>.bin`, that is only ever appended to:

    header     magic, length of the teacher's key (uint16), the key
    commit     20 bytes: checksum (16) of what follows, how many records follow (uint32)
    record     20 bytes: the pair's key (16), its score (float32)           ... as many as the commit says

A commit counts whole or not at all. So scoring that was killed goes on at the boundary of a batch, with the batches,
and therefore the bytes, that it would have had undisturbed. Little-endian throughout.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.index import disk

KEY = np.dtype("V16")
_RECORD = np.dtype([("key", KEY), ("score", "<f4")])
_HEAD = 20
_MAGIC = b"colbert_lab scores 1\n"


def pair_key(teacher_key: str, query: str, document: str) -> bytes:
    """16 bytes that name a teacher's score of two texts; lengths go in too, so that no two pairs run together."""
    digest = blake2b(digest_size=16)
    for text in (teacher_key, query, document):
        content = text.encode("utf-8")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def pair_keys(teacher_key: str, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """The keys [P] of query i and document i, as ScoreCache takes them."""
    joined = b"".join(pair_key(teacher_key, q, d) for q, d in zip(queries, documents, strict=True))
    return np.frombuffer(joined, dtype=KEY)


class ScoreCache:
    """The known scores of one teacher below `directory`; processes may share it.

    `teacher_key` names the teacher by content (letters, digits, `-`, `_`). Raises ArtifactError where its file is
    another teacher's or was changed, DataError for scores that are no numbers.
    """

    def __init__(self, directory: str | Path, teacher_key: str):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", teacher_key):
            raise DataError(f"the teacher's key {teacher_key!r} must be letters, digits, - and _ only")
        self.path = Path(directory) / f"{teacher_key[:16]}.bin"
        self._header = _MAGIC + len(teacher_key).to_bytes(2, "little") + teacher_key.encode()
        self._checked = len(self._header)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def lookup(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [P] of keys [P], NaN where there is none, and the mask [P] of those found.

        Of a pair that was added twice the first score counts. Takes memory of three times the file's size.
        """
        scores = np.full(len(keys), np.nan, dtype=np.float32)
        records = self._read()
        if not len(records) or not len(keys):
            return scores, np.zeros(len(keys), dtype=bool)
        order = np.argsort(records["key"], kind="stable")
        known = records["key"][order]
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        found = known[place] == keys
        scores[found] = records["score"][order[place[found]]]
        return scores, found

    def add(self, keys: np.ndarray, scores: np.ndarray) -> None:
        """Append scores [P] under keys [P] as one commit, on disk when this returns; a torn commit is cut off first."""
        if len(keys) != len(scores):
            raise DataError(f"{len(keys)} keys, but {len(scores)} scores")
        if bad := int((~np.isfinite(scores)).sum()):
            raise DataError(f"{bad} of {len(scores)} scores are not finite; a teacher's score must be a number")
        if not len(keys):
            return
        records = np.empty(len(keys), dtype=_RECORD)
        records["key"], records["score"] = keys, scores
        content = len(records).to_bytes(4, "little") + records.tobytes()
        with disk.telling(self.path), self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as handle:
            size = os.fstat(handle).st_size
            # Commits that were checked before need no second look, unless somebody removed the file.
            start = self._checked if self._checked <= size else len(self._header)
            commits = self._commits(handle, start)
            end = commits[-1][1] if commits else start
            begun = size >= len(self._header)
            os.ftruncate(handle, end if begun else 0)
            _write(handle, (b"" if begun else self._header) + _checksum(content) + content)
            self._checked = os.fstat(handle).st_size

    def _read(self) -> np.ndarray:
        """All records of whole commits, in the order in which they were added."""
        if not self.path.exists():
            return np.empty(0, dtype=_RECORD)
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as handle:
            commits = self._commits(handle, len(self._header))
            parts = [os.pread(handle, end - start, start) for start, end in commits]
        return np.frombuffer(b"".join(parts), dtype=_RECORD)

    def _commits(self, handle: int, start: int) -> list[tuple[int, int]]:
        """Where the records of each whole commit from `start` on begin and end, up to a torn one."""
        size = os.fstat(handle).st_size
        header = os.pread(handle, len(self._header), 0)
        if header != self._header:
            if self._header.startswith(header) and size < len(self._header):
                return []
            raise ArtifactError(f"{self.path} holds the scores of another teacher, or none; remove it")
        found = []
        while start + _HEAD <= size:
            head = os.pread(handle, _HEAD, start)
            end = start + _HEAD + _RECORD.itemsize * int.from_bytes(head[16:], "little")
            if end > size:
                break
            if head[:16] != _checksum(head[16:] + os.pread(handle, end - start - _HEAD, start + _HEAD)):
                if end == size:
                    break
                raise ArtifactError(f"{self.path} was changed at byte {start}; remove it, its pairs are scored again")
            found.append((start + _HEAD, end))
            start = end
        return found

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        handle = os.open(self.path, flags | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, lock)
            yield handle
        finally:
            os.close(handle)


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _write(handle: int, content: bytes) -> None:
    """Append it all and wait until it is on disk."""
    os.lseek(handle, 0, os.SEEK_END)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)
