"""Texts: N texts with string ids in a memory-mapped Arrow file, found by row or by id; and the writer of one.

    texts.arrow       id, text (Arrow stream)
    characters.npy    [N] int64, the length of each text in characters
    content.npy       [N] uint64, a hash of each text: equal texts have equal hashes
    hashes.npy        [N] uint64, the hashes of the ids, ascending
    rows.npy          [N] int64, the row of each of them

No Python object is kept per text: a look-up by id is a binary search and one comparison with the id itself.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from colbert_lab.errors import DataError

_BATCH = 1000


class Texts:
    """N texts with ids. `texts[rows]` for a list, array or slice of row numbers, `texts.get(ids)` for ids."""

    def __init__(self, path: Path, name: str):
        self.path = Path(path)
        self.name = name
        self._hashes = self._load("hashes")
        self._rows = self._load("rows")

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) is not None

    def __getitem__(self, rows: "Sequence[int] | np.ndarray | slice") -> list[str]:
        """The texts of these rows, in this order; IndexError for a row that does not exist."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        return self._text.take(rows)

    def id(self, row: int) -> str:
        """The id of a row."""
        return self._id.take([row])[0]

    def ids(self, rows: "Sequence[int] | np.ndarray") -> list[str]:
        """The ids of these rows, in this order; IndexError for a row that does not exist."""
        return self._id.take(rows)

    def all_ids(self) -> list[str]:
        """All ids by row."""
        return self.ids(range(len(self)))

    def row(self, id: str) -> int:
        """The row of an id; DataError where it is unknown."""
        row = self._find(id)
        if row is None:
            raise DataError(f"{id!r} is no id in {self.name}")
        return row

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """[len(ids)] int64, the rows of these ids; DataError naming the first that is unknown."""
        rows = self.find(ids)
        if (rows < 0).any():
            raise DataError(f"{ids[int((rows < 0).argmax())]!r} is no id in {self.name}")
        return rows

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """[len(ids)] int64, the rows of these ids, -1 where one is unknown."""
        ids = list(ids)
        if not ids or not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        hashes = np.fromiter((hash_text(id) for id in ids), dtype=np.uint64, count=len(ids))
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self) - 1)
        rows = np.where(self._hashes[places] == hashes, self._rows[places], -1)
        held = np.flatnonzero(rows >= 0)
        for i, found in zip(held.tolist(), self.ids(rows[held])):
            if found != ids[i]:
                # Two ids of one hash; the right one, if there is one, is a neighbour.
                other = self._find(ids[i])
                rows[i] = -1 if other is None else other
        return rows

    def get(self, ids: Sequence[str]) -> list[str]:
        """The texts of these ids; DataError naming the first that is unknown."""
        return self[self.rows(ids)]

    @cached_property
    def characters(self) -> np.ndarray:
        """[N] int64, the length of each text in characters (memory-mapped)."""
        return self._load("characters")

    @cached_property
    def content(self) -> np.ndarray:
        """[N] uint64, a hash of each text: texts are equal where hashes are (memory-mapped)."""
        return self._load("content")

    def _find(self, id: str) -> int | None:
        wanted = np.uint64(hash_text(id))
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self) and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self.id(row) == id:
                return row
            place += 1
        return None

    @cached_property
    def _id(self) -> "_Column":
        return _Column(self.path / "texts.arrow", "id")

    @cached_property
    def _text(self) -> "_Column":
        return _Column(self.path / "texts.arrow", "text")

    def __reduce__(self):
        # Maps are opened anew by the process that receives this, not copied to it.
        return Texts, (self.path, self.name)

    def _load(self, name: str) -> np.ndarray:
        file = self.path / f"{name}.npy"
        try:
            return np.load(file, mmap_mode="r")
        except ValueError:
            # An empty file of numbers cannot be mapped.
            return np.load(file)


class _Column:
    """One column of strings of a memory-mapped Arrow file, by row; cheaper per row than a data set's own access."""

    def __init__(self, file: Path, name: str):
        from datasets import Dataset

        self._chunks = Dataset.from_file(str(file)).data.column(name).chunks
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    def take(self, rows: "Sequence[int] | np.ndarray") -> list[str]:
        rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._starts[-1]):
            raise IndexError(f"row {rows.min() if rows.min() < 0 else rows.max()} of {self._starts[-1]}")
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        within = rows - self._starts[chunks]
        return [self._chunks[chunk][i].as_py() for chunk, i in zip(chunks.tolist(), within.tolist())]


class DuplicateId(Exception):
    """Two rows have the same id; `rows` says which, in ascending order."""

    def __init__(self, id: str, rows: tuple[int, int]):
        super().__init__(f"{id!r} in rows {rows[0]} and {rows[1]}")
        self.id = id
        self.rows = rows


def write_texts(path: Path, texts: Iterable[tuple[str, str]]) -> None:
    """Write (id, text) pairs, in their order, as the directory that Texts reads; DuplicateId where an id repeats."""
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    path.mkdir(parents=True, exist_ok=True)
    features = Features({"id": Value("string"), "text": Value("large_string")})
    hashes, content, characters = array("Q"), array("Q"), array("q")
    with ArrowWriter(features=features, path=str(path / "texts.arrow"), writer_batch_size=_BATCH) as writer:
        for batch in _batches(texts):
            ids, bodies = [id for id, _ in batch], [text for _, text in batch]
            hashes.extend(map(hash_text, ids))
            content.extend(map(hash_text, bodies))
            characters.extend(map(len, bodies))
            writer.write_batch({"id": ids, "text": bodies})
        writer.finalize()
    ordered = np.frombuffer(hashes, dtype=np.uint64) if hashes else np.empty(0, np.uint64)
    # Stable, so that rows of one hash ascend and what is written depends on nothing but the ids.
    rows = np.argsort(ordered, kind="stable")
    np.save(path / "hashes.npy", ordered[rows])
    np.save(path / "rows.npy", rows.astype(np.int64))
    np.save(path / "characters.npy", np.array(characters, dtype=np.int64))
    np.save(path / "content.npy", np.array(content, dtype=np.uint64))
    _refuse_duplicates(Texts(path, "what was written"), ordered[rows], rows)


def hash_text(text: str) -> int:
    """A 64-bit hash of a text that is the same on every machine and in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def _refuse_duplicates(texts: Texts, hashes: np.ndarray, rows: np.ndarray) -> None:
    seen: dict[str, int] = {}
    previous = None
    for place in np.flatnonzero(hashes[1:] == hashes[:-1]):
        if previous is None or hashes[place] != previous:
            seen, previous = {}, hashes[place]
            seen[texts.id(int(rows[place]))] = int(rows[place])
        row = int(rows[place + 1])
        id = texts.id(row)
        if id in seen:
            raise DuplicateId(id, (seen[id], row))
        seen[id] = row


def _batches(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
