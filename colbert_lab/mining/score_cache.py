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
# The same bytes with the key as two numbers: these compare many times as fast.
_NUMBERS = np.dtype([("first", "<u8"), ("second", "<u8"), ("score", "<f4")])
_HEAD = 20
_MAGIC = b"colbert_lab scores 1\n"


def pair_key(teacher_key: str, query: str, document: str) -> bytes:
    """16 bytes that name a teacher's score of two texts; lengths go in too, so that no two pairs run together."""
    return _named(_framed(teacher_key) + _framed(query), document)


def pair_keys(teacher_key: str, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """The keys [P] of query i and document i, as ScoreCache takes them."""
    begun = {query: _framed(teacher_key) + _framed(query) for query in set(queries)}
    joined = b"".join(_named(begun[q], d) for q, d in zip(queries, documents, strict=True))
    return np.frombuffer(joined, dtype=KEY)


def _named(begun: bytes, document: str) -> bytes:
    return blake2b(begun + _framed(document), digest_size=16).digest()


def _framed(text: str) -> bytes:
    content = text.encode("utf-8")
    return len(content).to_bytes(8, "little") + content


class KnownScores:
    """N known scores, found by key; of a pair that is there twice the first score counts.

    `records` are the two numbers of each key and the scores, three arrays [N] in the order in which they were added;
    they are put in another. Takes 20 bytes a record, 36 while it is made.
    """

    def __init__(self, records: tuple[np.ndarray, np.ndarray, np.ndarray]):
        self._first, self._second, self._scores = records
        # By the first number alone: stable, so that what was added first stays first.
        order = np.argsort(self._first, kind="stable")
        for column in records:
            # In its place, so that one column at a time is held twice.
            column[:] = column[order]

    def __len__(self) -> int:
        return len(self._scores)

    def lookup(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [P] of keys [P], NaN where there is none, and the mask [P] of those found."""
        scores, found = np.full(len(keys), np.nan, dtype=np.float32), np.zeros(len(keys), dtype=bool)
        first, second = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2).T
        places = np.searchsorted(self._first, first)
        open_ = np.flatnonzero(places < len(self))
        while len(open_ := open_[self._first[places[open_]] == first[open_]]):
            same = self._second[places[open_]] == second[open_]
            scores[open_[same]] = self._scores[places[open_[same]]]
            found[open_[same]] = True
            # Another key with the same first number lies before the one that is looked for.
            open_ = open_[~same]
            places[open_] += 1
            open_ = open_[places[open_] < len(self)]
        return scores, found


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

    def known(self) -> KnownScores:
        """All scores that are there now, read once for many small look-ups; what is added later is not among them."""
        if not self.path.exists():
            return KnownScores(_columns(0))
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as handle:
            records = _columns(os.fstat(handle).st_size // _RECORD.itemsize)
            count = 0
            for end, content in self._commits(handle, len(self._header)):
                self._checked = end
                part = np.frombuffer(content, dtype=_NUMBERS)
                for column, name in zip(records, _NUMBERS.names):
                    column[count : count + len(part)] = part[name]
                count += len(part)
        return KnownScores(tuple(column[:count] for column in records))

    def lookup(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Like that of KnownScores, of all scores that are there now; `known` saves reading them each time."""
        return self.known().lookup(keys)

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
            end = start
            for last, _ in self._commits(handle, start):
                end = last
            begun = size >= len(self._header)
            os.ftruncate(handle, end if begun else 0)
            _write(handle, (b"" if begun else self._header) + _checksum(content) + content)
            self._checked = os.fstat(handle).st_size

    def _commits(self, handle: int, start: int) -> Iterator[tuple[int, bytes]]:
        """Where each whole commit from `start` on ends, and its records, up to a torn one."""
        size = os.fstat(handle).st_size
        header = os.pread(handle, len(self._header), 0)
        if header != self._header:
            if self._header.startswith(header) and size < len(self._header):
                return
            raise ArtifactError(f"{self.path} holds the scores of another teacher, or none; remove it")
        while start + _HEAD <= size:
            head = os.pread(handle, _HEAD, start)
            end = start + _HEAD + _RECORD.itemsize * int.from_bytes(head[16:], "little")
            if end > size:
                return
            content = os.pread(handle, end - start - _HEAD, start + _HEAD)
            if head[:16] != _checksum(head[16:] + content):
                if end == size:
                    return
                raise ArtifactError(f"{self.path} was changed at byte {start}; remove it, its pairs are scored again")
            yield end, content
            start = end

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        handle = os.open(self.path, flags | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, lock)
            yield handle
        finally:
            os.close(handle)


def _columns(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for the numbers of the keys and the scores of so many records."""
    return tuple(np.empty(count, dtype=_NUMBERS[name]) for name in _NUMBERS.names)


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _write(handle: int, content: bytes) -> None:
    """Append it all and wait until it is on disk."""
    os.lseek(handle, 0, os.SEEK_END)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)
