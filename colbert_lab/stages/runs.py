"""runs: the local runs below a directory with their headline numbers, as a table for a terminal."""

import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError
from colbert_lab.report.markup import duration, is_number
from colbert_lab.report.records import RunRecord
from colbert_lab.stages.local_runs import find, record

# What of a key follows a name that several have: a dash and four characters.
_KEY = 5
# Leaves of summary names that are worth a column, in this order.
_HEADLINES = ("ndcg_10", "mrr_10", "recall_100")


def run(cfg: DictConfig) -> str:
    """The runs below cfg.root, newest first or best first by cfg.sort, of cfg.kind, with cfg.match in their names."""
    found = [record(place) for place in find([cfg.root]).runs]
    some = [one for one in found if cfg.kind in (None, one.kind) and (cfg.match or "") in one.label]
    if not some:
        kinds = ", ".join(sorted({one.kind for one in found})) or "none"
        raise ConfigError(
            f"there is no such run below {cfg.root}; kinds that are there: {kinds}\ntry: root=outputs kind=null"
        )
    return listing(some, cfg.sort, width())


def listing(some: Sequence[RunRecord], sort: str | None, columns: int) -> str:
    """The table, at most `columns` characters wide: names are cut in the middle before numbers are left out.

    `sort` is a column (objective, ndcg_10, ...), best first; null sorts by time. ConfigError for one that no run has.
    """
    shown = ["objective", *(name for name in _HEADLINES if any(headline(one, name) is not None for one in some))]
    if sort is not None and all(headline(one, sort) is None for one in some):
        raise ConfigError(f"no run has sort={sort}\ntry: sort={shown[-1]}")
    if sort is not None and sort not in shown:
        shown.append(sort)
    if sort is None:
        order = sorted(some, key=lambda one: (-(one.started or 0.0), one.place))
    else:
        order = sorted(some, key=lambda one: (headline(one, sort) is None, -(headline(one, sort) or 0.0), one.place))
    names = _names(some)
    # One year is told by none.
    since = 5 if len({when(one.started)[:5] for one in some if one.started is not None}) < 2 else 0
    rows = [["run", "kind", "state", *shown, "when", "took"]]
    for one in order:
        values = [headline(one, name) for name in shown]
        rows.append(
            [
                names[one.place],
                one.kind,
                one.state,
                *("-" if value is None else f"{value:.4f}" for value in values),
                when(one.started)[since:],
                "-" if one.seconds is None else duration(one.seconds),
            ]
        )
    return _aligned(rows, 3, columns)


def headline(one: RunRecord, name: str) -> float | None:
    """A run's number of this name: of its summary, under any section; else the last of its validation's curve."""
    if name == "objective":
        return one.objective
    for key, value in one.summary.items():
        leaf = key.rpartition("/")[2]
        if is_number(value) and (key == name or leaf == name or leaf.endswith(f"_{name}")):
            return float(value)
    curve = one.curves.get(f"val/{name}")
    return max(value for _, value in curve.points) if curve else None


def when(seconds: float | None) -> str:
    """A time as year-month-day hour:minute, UTC; a dash where none is known."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def width() -> int:
    """Columns of the terminal; 100 where the output goes into a file."""
    return shutil.get_terminal_size((100, 24)).columns


def shorter(text: str, most: int) -> str:
    """Text of at most so many characters, cut in the middle: what tells two runs apart is mostly at an end."""
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[: most - 3 - half]}...{text[-half:] if half else ''}"


def _names(some: Sequence[RunRecord]) -> dict[str, str]:
    """place -> the name without its key; where several have it, with enough of the key: what `show` understands."""
    labels = Counter(one.label for one in some)
    full = {one.place: one.place.rpartition("/")[2] for one in some}
    return {
        one.place: one.label if labels[one.label] == 1 else full[one.place][: len(one.label) + _KEY] for one in some
    }


def _aligned(rows: Sequence[Sequence[str]], texts: int, columns: int) -> str:
    """Rows with the first `texts` columns to the left and the others to the right, the first cut to fit."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(columns - rest, 16))
    lines = [
        "  ".join(
            shorter(cell, size).ljust(size) if i < texts else cell.rjust(size)
            for i, (cell, size) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * min(max(map(len, lines)), columns), *lines[1:]])
