"""Results as plain text: systems by metrics, the best of each column marked, within the width of a terminal.

scifact test, 300 queries

system                          ndcg_10    mrr_10  recall_100
-------------------------------------------------------------
bm25                             0.6760    0.6410      0.9130
colbert, round 1                 0.7011+   0.6702      0.9387
colbert, round 2                 0.7184*+  0.6893*+    0.9453*

* best of the column   + - better, worse than bm25 (randomisation, Holm, p < 0.05)
"""

from collections.abc import Iterable, Mapping, Sequence

from colbert_lab.errors import DataError
from colbert_lab.evaluation.comparison import Compared

WIDTH = 100
_DIGITS = 4
# Room behind a value for `*` and for `+` or `-`; and between two columns.
_FLAGS = 2
_GAP = 2


def results_table(
    means: Mapping[str, Mapping[str, float]],
    collection: str,
    split: str,
    queries: int,
    compared: Iterable[Compared] = (),
    level: float = 0.05,
    notes: Sequence[str] = (),
    width: int = WIDTH,
) -> str:
    """The table of `means` (system -> metric -> value), with the collection, its split and query count above it.

    `compared` marks what differs significantly, at `level`; `notes` are lines to print below (a pool corpus, for
    example). Columns beyond `width` go to a second table. A value that a system lacks is shown as a dash. Ends with a
    newline. DataError where there is no system.
    """
    if not means:
        raise DataError("there are no results to show")
    compared = list(compared)
    marks = {(c.system, c.metric): c.mark(level) for c in compared}
    metrics = list(dict.fromkeys(metric for row in means.values() for metric in row))
    columns = [_column(means, metric, marks) for metric in metrics]
    names = ["system", *_short(list(means), width // 2)]
    parts = [f"{collection} {split}, {queries:,} {'query' if queries == 1 else 'queries'}", ""]
    for block in _fitting(columns, width - max(map(len, names))):
        parts += _lines(names, block)
    parts += _legend(means, compared, level)
    return "\n".join([*parts, *notes]) + "\n"


def plain_table(means: Mapping[str, Mapping[str, float]], columns: Sequence[str], width: int = WIDTH) -> list[str]:
    """The lines of a table of `means` without marks, its columns in this order; none where there are no rows."""
    found = [_column(means, one, {}, False) for one in columns if any(one in row for row in means.values())]
    names = ["system", *_short(list(means), width // 2)]
    return [line for block in _fitting(found, width - max(map(len, names))) for line in _lines(names, block) if found]


def _column(
    means: Mapping[str, Mapping[str, float]], metric: str, marks: Mapping[tuple[str, str], str], starred: bool = True
) -> list[str]:
    """Head and cells of a metric, all of the same width; `starred` marks the best."""
    shown = {system: f"{row[metric]:.{_DIGITS}f}" for system, row in means.items() if metric in row}
    best = max(shown.values(), key=float) if starred else None
    cells = []
    for system in means:
        star = "*" if len(shown) > 1 and shown.get(system) == best else ""
        flags = star + marks.get((system, metric), "")
        cells.append(shown.get(system, "-") + flags.ljust(_FLAGS))
    head = metric + " " * _FLAGS
    size = max(map(len, [head, *cells]))
    return [cell.rjust(size) for cell in [head, *cells]]


def _short(names: list[str], limit: int) -> list[str]:
    """Names cut in the middle to `limit` characters: what tells two variants apart is mostly at an end."""
    half = (limit - 3) // 2
    return [name if len(name) <= limit else f"{name[: limit - 3 - half]}...{name[-half:]}" for name in names]


def _fitting(columns: list[list[str]], room: int) -> list[list[list[str]]]:
    """The columns in groups that fit beside the names, at least one to a group."""
    groups: list[list[list[str]]] = [[]]
    used = 0
    for column in columns:
        size = len(column[0]) + _GAP
        if groups[-1] and used + size > room:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += size
    return groups


def _lines(names: list[str], columns: list[list[str]]) -> list[str]:
    first = max(map(len, names))
    rows = [
        (name.ljust(first) + "".join(" " * _GAP + column[i] for column in columns)).rstrip()
        for i, name in enumerate(names)
    ]
    return [rows[0], "-" * max(map(len, rows)), *rows[1:], ""]


def _legend(means: Mapping[str, Mapping[str, float]], compared: Sequence[Compared], level: float) -> list[str]:
    parts = ["* best of the column"] if len(means) > 1 else []
    if compared:
        how = f"{compared[0].test.test}, Holm, p < {level:g}"
        parts.append(f"+ - better, worse than {compared[0].baseline} ({how})")
    return ["   ".join(parts)] if parts else []
