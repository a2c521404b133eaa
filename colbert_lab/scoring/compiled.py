"""Compiling loops where there may be no place to keep what was compiled."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: numba's njit without the GIL and with these options, kept on the disk between processes if possible.

    Where no directory can be written to (a read-only installation without a home), every process compiles anew.
    """

    def compile_it(function: Callable) -> Callable:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no such directory
            return njit(nogil=True, **options)(function)

    return compile_it
