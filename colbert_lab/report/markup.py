"""Markup: HTML and SVG elements from Python calls, with everything that is not markup already escaped.

tag("td", "a < b", class_="num")     <td class="num">a &lt; b</td>
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_VOID = frozenset({"meta", "link", "input", "br"})
# Rows beyond which a table scrolls within itself.
_TALL = 30


class Html(str):
    """Text that is markup already; any other text is escaped when it becomes part of an element."""

    __slots__ = ()


Child = str | None | Iterable["Child"]


def markup(*children: Child) -> Html:
    """The children one after the other: Html as it is, other text escaped, None left out, iterables flattened."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(escape(child, quote=False))
        elif child is not None:
            parts.append(markup(*child))
    return Html("".join(parts))


def tag(name: str, /, *children: Child, **attributes: Any) -> Html:
    """An element: `class_` is class, data_run is data-run; None and False leave an attribute out, True has no value."""
    given = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        given.append(f" {written}" if value is True else f' {written}="{escape(_attribute(value))}"')
    opening = f"<{name}{''.join(given)}>"
    return Html(opening if name in _VOID else f"{opening}{markup(*children)}</{name}>")


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it shows, what it sorts by (None: last), a class, and what a pointer on it is told."""

    shown: str
    sort: float | str | None = None
    style: str = ""
    told: str | None = None


@dataclass(frozen=True)
class Column:
    """A column's head; `number` aligns to the right, `told` explains it, `style` is a class of all its cells."""

    name: str
    number: bool = True
    told: str | None = None
    style: str = ""


def table(
    columns: Sequence[Column],
    rows: Sequence[tuple[str | None, Sequence[Cell]]],
    caption: str,
    name: str,
    filtered: bool | None = None,
) -> Html:
    """A table that sorts by its heads; a row is (key of its run or None, cells), the first cell its head.

    `filtered`, by default with more than seven rows, puts a filter above it. `name` must be the page's only one.
    """
    head = tag(
        "tr",
        (
            tag(
                "th",
                tag("button", column.name, type="button", title=column.told),
                scope="col",
                class_=_classes("num" if column.number else "", column.style),
            )
            for column in columns
        ),
    )
    body = (
        tag(
            "tr",
            (
                tag(
                    "th" if i == 0 else "td",
                    cell.shown,
                    scope="row" if i == 0 else None,
                    class_=_classes("num" if column.number else "", column.style, cell.style),
                    data_sort=cell.sort if cell.sort is not None else None,
                    title=cell.told,
                )
                for i, (column, cell) in enumerate(zip(columns, cells, strict=True))
            ),
            data_run=run,
        )
        for run, cells in rows
    )
    shown = tag(
        "table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_="sortable", id=f"table-{name}"
    )
    kind = "scroll tall" if len(rows) > _TALL else "scroll"
    scrolled = tag("div", shown, class_=kind, tabindex="0", role="region", aria_label=caption)
    if filtered is None:
        filtered = len(rows) > 7
    return markup(_filter(name, len(rows)) if filtered else None, scrolled)


def number_cell(value: Any, digits: int = 4, style: str = "", told: str | None = None) -> Cell:
    """A number with so many decimals, or a dash where there is none."""
    if not is_number(value):
        return Cell("–" if value is None else str(value), None if value is None else str(value), style, told)
    return Cell(f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}", value, style, told)


def is_number(value: Any) -> bool:
    """Whether the value is a finite number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """A list of names and what they are; pairs without a value are left out."""
    return tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in pairs if value not in (None, "")))


def folded(summary: Child, *content: Child, opened: bool = False) -> Html:
    """Content that a click on its summary shows; printing shows it too."""
    return tag("details", tag("summary", summary), *content, open=opened)


def significant(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, without trailing noughts: 0.0312, 12,340, 3e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e9:
        return f"{value:.{digits - 1}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """Seconds as a person says them: 48 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _classes(*names: str) -> str | None:
    return " ".join(filter(None, names)) or None


def _attribute(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _filter(name: str, rows: int) -> Html:
    return tag(
        "div",
        tag("label", "Filter", for_=f"filter-{name}"),
        tag(
            "input",
            type="search",
            id=f"filter-{name}",
            data_filter=f"table-{name}",
            placeholder="words, or column>0.7",
            autocomplete="off",
            spellcheck="false",
        ),
        tag("span", f"{rows} rows", class_="count", role="status"),
        class_="filter",
    )
