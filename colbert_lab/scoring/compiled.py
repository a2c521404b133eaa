"""Compiling loops where there may be no place to keep what was compiled."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

# Where compiled loops stand, which call one another.
_FOLDERS = ("scoring", "compression", "index/residual")


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: numba's njit without the GIL and with these options, kept on the disk between processes if possible.

    What is kept holds until a source of any compiled loop changes. Where no directory can be written to (a read-only
    installation without a home), every process compiles anew.
    """

    def compile_it(function: Callable) -> Callable:
        try:
            return _dated(njit(nogil=True, cache=True, **options)(function))
        except RuntimeError:  # numba found no such directory
            return njit(nogil=True, **options)(function)

    return compile_it


def _dated(function: Any) -> Any:
    """The compiled function, which is compiled again when any of the sources has changed.

    numba looks at the function's own file alone, and would go on with what it inlined from another.
    """
    kept = function._cache._cache_file
    kept._source_stamp = (kept._source_stamp, sources())
    return function


@cache
def sources() -> tuple:
    """Name, size and time of every file that can hold a compiled loop."""
    package = Path(__file__).parents[1]
    files = sorted(file for folder in _FOLDERS for file in (package / folder).glob("*.py"))
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime) for file in files)
