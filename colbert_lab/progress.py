"""Progress bars with rates, on a terminal; in a file or a pipe, a line now and then instead of a bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Progress:
    """A count of work done: `advance(n, tokens=...)` moves it; extra keywords are counted too and shown as rates."""

    def __init__(self, bar: tqdm):
        self._bar = bar
        self._extra: dict[str, float] = {}
        self._start = time.perf_counter()

    def advance(self, n: int = 1, **extra: float) -> None:
        """`n` more units are done; `extra` are other quantities to be shown per second."""
        for name, amount in extra.items():
            self._extra[name] = self._extra.get(name, 0) + amount
        if extra:
            elapsed = max(time.perf_counter() - self._start, 1e-9)
            rates = ", ".join(f"{amount / elapsed:,.0f} {name}/s" for name, amount in self._extra.items())
            self._bar.set_postfix_str(rates, refresh=False)
        self._bar.update(n)

    def note(self, text: str) -> None:
        """Show this text beside the bar."""
        self._bar.set_postfix_str(text, refresh=False)


@contextmanager
def progress(what: str, total: int | None, unit: str, done: int = 0, quiet: bool = False) -> Iterator[Progress]:
    """A bar for `total` units of work, `done` of them already from an earlier start."""
    interactive = sys.stderr.isatty()
    with tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=f" {unit}",
        disable=quiet,
        dynamic_ncols=interactive,
        ncols=None if interactive else 100,
        mininterval=0.2 if interactive else 20,
        file=sys.stderr,
    ) as bar:
        yield Progress(bar)
