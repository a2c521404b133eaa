"""A comparison as text: a line a system with its metrics and its costs, what differs, what others have published."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colbert_lab.evaluation.comparison import Compared

_HEADS = {"ndcg": "nDCG", "mrr": "MRR", "recall": "R", "success": "S", "precision": "P", "map": "MAP"}
_LEVEL = 0.05
WIDTH = 110


def comparison_table(told: Mapping[str, Any], compared: Sequence[Compared], notes: Sequence[str]) -> str:
    """The tables of a comparison (comparison.json) and its notes, ending with a newline."""
    systems, reference = told["systems"], told["baseline"]
    parts = [f"{told['collection']} {told['split']}, {told['queries']:,} queries, corpus: {told['corpus']}", ""]
    parts += _table(systems, _quality(systems, compared) + _costs())
    legend = ["* best of the column"] if len(systems) > 1 else []
    if compared:
        legend.append(f"+ - better, worse than {reference} ({compared[0].test.test}, Holm, p < {_LEVEL:g})")
    parts += ["   ".join(legend)] if legend else []
    parts += [f"{name}: {one['label']}" for name, one in systems.items()]
    parts += ["", "where a query's time goes (p50 of each part, ms), and operations by formula", ""]
    parts += _table({name: one for name, one in systems.items() if one["cost"]}, _parts(systems))
    if compared:
        parts += _against(compared, reference)
    if any(one["seeds"] > 1 for one in systems.values()):
        parts += ["over seeds, mean and standard deviation", ""]
        parts += _table({n: o for n, o in systems.items() if o["seeds"] > 1}, _seeds(systems))
    parts += published_lines(told["published"])
    parts += [line for note in notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
    return "\n".join(parts) + "\n"


def head(metric: str) -> str:
    """`ndcg_10` as it is read: nDCG@10."""
    family, _, depth = metric.partition("_")
    return _HEADS.get(family, family) + (f"@{depth}" if depth else "")


def amount(value: float | None, unit: str = "") -> str:
    """A count in three digits: 7.03G."""
    if value is None:
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}{unit}"
    return f"{value:.3g}{unit}"


Column = tuple[str, Callable[[str, Mapping[str, Any]], str]]


def _quality(systems: Mapping[str, Any], compared: Sequence[Compared]) -> list[Column]:
    marks = {(c.system, c.metric): c.mark(_LEVEL) for c in compared}
    columns: list[Column] = []
    for metric in dict.fromkeys(metric for one in systems.values() for metric in one["means"]):
        shown = {name: f"{one['means'][metric]:.4f}" for name, one in systems.items() if metric in one["means"]}
        best = max(shown.values(), key=float) if len(shown) > 1 else None

        def cell(name: str, _: Any, metric=metric, shown=shown, best=best) -> str:
            star = "*" if best is not None and shown.get(name) == best else ""
            return shown.get(name, "-") + (star + marks.get((name, metric), "")).ljust(2)

        columns.append((head(metric) + "  ", cell))
    return columns


def _costs() -> list[Column]:
    return [
        ("FLOPs", _cost("flops_query", amount)),
        ("p50 ms", _cost("p50_ms", _ms)),
        ("p95 ms", _cost("p95_ms", _ms)),
        ("bytes", _cost("index_bytes", amount)),
        ("index s", _cost("index_seconds", lambda value: f"{value:,.0f}")),
    ]


def _parts(systems: Mapping[str, Any]) -> list[Column]:
    def part(name: str) -> Callable[[str, Mapping[str, Any]], str]:
        return lambda _, one: "-" if one["cost"]["parts_ms"][name] is None else _ms(one["cost"]["parts_ms"][name])

    energy = any(one["cost"] and one["cost"]["joules_query"] is not None for one in systems.values())
    return [
        *((name, part(name)) for name in ("encode", "search", "interact")),
        ("timed", lambda _, one: f"{one['cost']['timed']:,}"),
        ("FLOPs", _cost("flops_query", amount)),
        ("formula", _cost("flops_analytic", amount)),
        *([("J/query", _cost("joules_query", lambda value: f"{value:.3g}"))] if energy else []),
    ]


def _seeds(systems: Mapping[str, Any]) -> list[Column]:
    metrics = dict.fromkeys(metric for one in systems.values() for metric in one["deviations"])
    columns: list[Column] = [("seeds", lambda _, one: str(one["seeds"]))]
    for metric in metrics:
        columns.append(
            (
                head(metric),
                lambda _, one, metric=metric: (
                    f"{one['means'][metric]:.4f} ± {one['deviations'][metric]:.4f}"
                    if metric in one["deviations"]
                    else "-"
                ),
            )
        )
    return columns


def _against(compared: Sequence[Compared], reference: str) -> list[str]:
    """The first metric's differences, one system a line."""
    metric = next((c.metric for c in compared if c.metric == "ndcg_10"), compared[0].metric)
    some = {c.system: {"test": c} for c in compared if c.metric == metric}
    columns: list[Column] = [
        ("difference", lambda _, one: f"{one['test'].test.mean_difference:+.4f}"),
        ("95 % interval", lambda _, one: f"{one['test'].test.low:+.4f} to {one['test'].test.high:+.4f}"),
        ("p (Holm)", lambda _, one: f"{one['test'].p:.4f}"),
        ("won", lambda _, one: f"{one['test'].test.wins:,}"),
        ("tied", lambda _, one: f"{one['test'].test.ties:,}"),
        ("lost", lambda _, one: f"{one['test'].test.losses:,}"),
    ]
    return [f"{head(metric)} against {reference}", "", *_table(some, columns)]


def published_lines(found: Sequence[Mapping[str, Any]], numbered: Mapping[str, int] | None = None) -> list[str]:
    """A table of published figures beside ours, with their sources and what differs, ending with an empty line.

    `numbered`: sources that are told elsewhere, under these numbers.
    """
    if not found:
        return []
    rows = {str(i): one for i, one in enumerate(found)}
    columns: list[Column] = [
        ("metric", lambda _, one: head(one["metric"]) if one["metric"].split("_")[0] in _HEADS else one["metric"]),
        ("published", lambda _, one: f"{one['value']:.4f}"),
        ("measured", lambda _, one: "-" if one["measured"] is None else f"{one['measured']:.4f}"),
        ("difference", lambda _, one: "-" if one["difference"] is None else f"{one['difference']:+.4f}"),
        ("here", lambda _, one: one.get("ours") or "-"),
    ]
    numbers = numbered or {source: i for i, source in enumerate(dict.fromkeys(one["source"] for one in found), 1)}
    lines = ["published elsewhere, beside the system here that is most like it", ""]
    lines += _table(rows, columns, lambda key, one: f"{one['system']} [{numbers[one['source']]}]")
    for source, number in numbers.items() if numbered is None else ():
        lines += textwrap.wrap(f"[{number}] {source}", WIDTH, subsequent_indent="    ")
    why = dict.fromkeys((one["system"], tuple(one["protocol"])) for one in found if one["protocol"])
    for system, sentences in why:
        lines += textwrap.wrap(f"{system}: {'; '.join(sentences)}", WIDTH, subsequent_indent="    ")
    return [*lines, ""]


def _table(
    rows: Mapping[str, Any], columns: Sequence[Column], named: Callable[[str, Any], str] = lambda name, _: name
) -> list[str]:
    if not rows:
        return []
    cells = [["system", *(title for title, _ in columns)]]
    cells += [[_short(named(name, row)), *(cell(name, row) for _, cell in columns)] for name, row in rows.items()]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        " ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]).rstrip()
        for line in cells
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:], ""]


def _short(name: str, limit: int = 44) -> str:
    return name if len(name) <= limit else f"{name[: limit - 23]}...{name[-20:]}"


def _cost(name: str, shown: Callable[[float], str]) -> Callable[[str, Mapping[str, Any]], str]:
    return lambda _, one: "-" if not one["cost"] or one["cost"].get(name) is None else shown(one["cost"][name])


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
