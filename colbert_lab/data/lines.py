"""Text files line by line, streamed with their line numbers or addressed at random; a line ends with \\n, nothing else.

Blank lines are passed over, a byte order mark and the \\r of Windows files are dropped. Whatever cannot be read is a
DataError that names file and line.
"""

import gzip
import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.errors import DataError

_MARK = b"\xef\xbb\xbf"


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(where, line) of every line of a UTF-8 file that is not blank, plain or .gz; `where` is "file:line"."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                where = f"{path}:{number}"
                line = decode_line(raw, where)
                if line:
                    yield where, line
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}:{number + 1}: the compressed file is damaged or cut short: {error}") from error


def decode_line(raw: bytes, where: str) -> str:
    """A line's text without its end; the empty string for a blank line. DataError where it is not UTF-8."""
    if where.endswith(":1"):
        raw = raw.removeprefix(_MARK)
    if not raw.strip():
        return ""
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte {error.object[error.start]:#04x} at column {error.start + 1}); "
            "convert the file, with iconv for example"
        ) from error
    return line.rstrip("\r\n")


def parse_json(line: str, where: str) -> Any:
    """The JSON value in a line; DataError where there is none."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not a line of JSON ({error}): {line[:80]!r}") from error


def json_id(value: Any, where: str, what: str = "id") -> str:
    """An id out of JSON as a string: strings as they are, integers in decimal; DataError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}: the {what} must be a string or an integer, not {value!r:.80}")


class Lines:
    """The lines of an uncompressed file that are not blank, by number from 0, read where they lie.

    Making one reads the file once: an offset (int64) and a line number (int64) are kept for each line, and the SHA-256
    of the file in `digest`; `visit`, if given, is called with (where, line) of each. It can be read from forked
    processes and pickled. DataError for a file that is missing, .gz or not UTF-8.
    """

    def __init__(self, path: str | Path, visit: Callable[[str, str], None] | None = None):
        self.path = Path(path).expanduser().absolute()
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist")
        if self.path.suffix == ".gz":
            raise DataError(f"{self.path} is compressed and cannot be read at random; first run: gunzip -k {self.path}")
        offsets, numbers, digest, position = array("q"), array("q"), hashlib.sha256(), 0
        with self.path.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                where = f"{self.path}:{number}"
                if line := decode_line(raw, where):
                    offsets.append(position)
                    numbers.append(number)
                    if visit is not None:
                        visit(where, line)
                position += len(raw)
                digest.update(raw)
        offsets.append(position)
        self.digest = digest.hexdigest()
        self._offsets = np.frombuffer(offsets, dtype=np.int64)
        self._numbers = np.frombuffer(numbers, dtype=np.int64)
        self._handle: int | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[str, str]:
        """(where, line), `where` being "file:line"."""
        if not 0 <= index < len(self):
            raise IndexError(f"line {index} of {len(self)} in {self.path}")
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDONLY)
        start = int(self._offsets[index])
        # pread has no file position, so processes that share the descriptor after a fork do not disturb each other.
        raw = os.pread(self._handle, int(self._offsets[index + 1]) - start, start).split(b"\n", 1)[0]
        where = f"{self.path}:{self._numbers[index]}"
        return where, decode_line(raw, where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)
