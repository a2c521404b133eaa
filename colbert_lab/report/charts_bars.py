"""Charts of lengths: bars, histograms, and the queries that a system won and lost, all as SVG inside a page."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from colbert_lab.report.charts import HEIGHT, WIDTH, figure
from colbert_lab.report.markup import Html, markup, significant, tag
from colbert_lab.report.scales import Scale, fitted, tick_text

_BAR = 24
# Steps of a side, the outermost, that tell a pointer which query they are of.
_TOLD = 20


def bar_chart(title: str, bars: Sequence[tuple[str, float]], x_label: str, digits: int = 3) -> Html:
    """Lying bars from 0, one a line, in the order given, each with its name and value."""
    left = min(190.0, 12 + 6.1 * max(len(name) for name, _ in bars))
    across = fitted([value for _, value in bars], left, WIDTH - 52, nought=True, room=0)
    height = _BAR * len(bars) + 22
    drawn = []
    for i, (name, value) in enumerate(bars):
        y = 4 + i * _BAR
        start, end = sorted((across(0), across(value)))
        shown = name if len(name) <= 30 else name[:29] + "…"
        drawn += [
            tag("text", tag("title", name), shown, x=f"{left - 8:.1f}", y=y + 15, class_="tick left ink"),
            tag("rect", x=f"{start:.1f}", y=y + 4, width=f"{max(end - start, 0.5):.1f}", height=_BAR - 9, class_="bar"),
            tag("text", f"{value:.{digits}f}", x=f"{end + 6:.1f}", y=y + 15, class_="tick right-of"),
        ]
    label = tag("text", x_label, x=WIDTH - 4, y=height - 4, class_="axis right")
    return figure(title, markup(drawn, label), size=(WIDTH, height))


def histogram_chart(title: str, parts: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str) -> Html:
    """Histograms over one another: name -> (edges, counts), each as a share of its own total so that they compare."""
    edges = [edge for some, _ in parts.values() for edge in some]
    across = fitted(edges, 46, WIDTH - 12, room=0.02)
    shares = {
        name: [count / (sum(counts) or 1) / ((b - a) or 1) for count, (a, b) in zip(counts, pairwise(some))]
        for name, (some, counts) in parts.items()
    }
    up = fitted([0.0, *(share for some in shares.values() for share in some)], HEIGHT - 38, 26, nought=True)
    base = up(0)
    drawn = [tag("path", d=f"M46,{base:.1f}H{WIDTH - 12}", class_="grid")]
    drawn += [
        tag("text", tick_text(value), x=f"{across(value):.1f}", y=HEIGHT - 23, class_="tick")
        for value in across.ticks()
    ]
    for i, (name, (some, counts)) in enumerate(parts.items()):
        path = f"M{across(some[0]):.1f},{base:.1f}"
        for share, right in zip(shares[name], some[1:]):
            path += f"V{up(share):.1f}H{across(right):.1f}"
        drawn += [
            tag(
                "path", tag("title", f"{name}: {sum(counts):,.0f} values"), d=f"{path}V{base:.1f}Z", class_=f"area c{i}"
            ),
            tag("text", name, x=52 + i * 110, y=14, class_=f"mark c{i}"),
        ]
    label = tag("text", x_label, x=WIDTH - 12, y=HEIGHT - 6, class_="axis right")
    return figure(title, markup(drawn, label), size=(WIDTH, HEIGHT))


def difference_chart(title: str, differences: Sequence[tuple[str, float]], metric: str) -> Html:
    """A thin bar for every query whose value differs, most won first; those that tie are a gap with their number.

    Where they are more than there are pixels, two stepped areas, a step a pixel: a page of many collections would
    else be megabytes of bars that cover each other. A step is the mean of its queries, so that areas stay true.
    """
    order = sorted(differences, key=lambda pair: (-pair[1], pair[0]))
    won = [pair for pair in order if pair[1] > 0]
    lost = [pair for pair in order if pair[1] < 0]
    ties = len(order) - len(won) - len(lost)
    left, right, gap = 46.0, WIDTH - 12.0, 46.0 if ties else 10.0
    up = fitted([0.0, *(value for _, value in order)], HEIGHT - 24, 24, nought=True, room=0.02)
    step = (right - left - gap) / max(len(won) + len(lost), 1)
    middle = left + len(won) * step + gap / 2
    stepped = step < 1
    draw = _steps if stepped else _bars
    drawn = [draw(won, left, step, up, "won"), draw(lost, middle + gap / 2, step, up, "lost")]
    level = "".join(f"M{left},{up(value):.1f}H{right}" for value in up.ticks(4))
    texts = [
        tag("text", tick_text(value), x=left - 6, y=f"{up(value) + 3.6:.1f}", class_="tick left")
        for value in up.ticks(4)
    ]
    texts.append(tag("text", f"{len(won):,} won", x=left, y=14, class_="mark won"))
    texts.append(tag("text", f"{len(lost):,} lost", x=right, y=14, class_="mark lost right"))
    if ties:
        texts.append(tag("text", f"{ties:,} tied", x=f"{middle:.1f}", y=f"{up(0) - 5:.1f}", class_="tick"))
    texts.append(tag("text", metric, x=right, y=HEIGHT - 6, class_="axis right"))
    note = f"A step is the mean of about {significant(1 / step, 2)} queries; the {_TOLD} outermost of a side name one."
    content = markup(tag("path", d=level, class_="grid"), drawn, texts)
    return figure(title, content, note=note if stepped else None)


def _bars(pairs: Sequence[tuple[str, float]], left: float, step: float, up: Scale, side: str) -> list[Html]:
    """A bar a query from `left` on, each `step` wide."""
    return [
        _bar(left + i * step, max(step - (0.8 if step > 3 else 0), 0.6), value, up, side, f"{query}: {value:+.3f}")
        for i, (query, value) in enumerate(pairs)
    ]


def _bar(x: float, width: float, value: float, up: Scale, side: str, tip: str) -> Html:
    top, end = sorted((up(0), up(value)))
    height = f"{max(end - top, 0.6):.1f}"
    return tag("rect", x=f"{x:.1f}", y=f"{top:.1f}", width=f"{width:.1f}", height=height, class_=side, data_tip=tip)


def _steps(pairs: Sequence[tuple[str, float]], left: float, step: float, up: Scale, side: str) -> list[Html]:
    """The same as one area of a pixel a step; what a pointer is told of the steps of the largest lies above it."""
    if not pairs:
        return []
    count = math.ceil(len(pairs) * step)
    wide = len(pairs) * step / count
    parts = [pairs[i * len(pairs) // count : (i + 1) * len(pairs) // count] for i in range(count)]
    path = f"M{left:.1f},{up(0):.1f}"
    for i, part in enumerate(parts, 1):
        path += f"V{up(sum(value for _, value in part) / len(part)):.1f}H{left + i * wide:.1f}"
    drawn = [tag("path", d=f"{path}V{up(0):.1f}Z", class_=side)]
    # Most won come first, most lost last.
    for i in range(min(_TOLD, count)) if side == "won" else range(max(count - _TOLD, 0), count):
        query, value = max(parts[i], key=lambda pair: abs(pair[1]))
        told = f"{query}: {value:+.3f}" + (f", the largest of {len(parts[i]):,} here" if len(parts[i]) > 1 else "")
        drawn.append(_bar(left + i * wide, wide, value, up, "told", told))
    return drawn


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    matrix: Sequence[Sequence[float]],
    best: Sequence[int],
    label: str,
) -> Html:
    """Query tokens by document tokens, the darker the more alike, with the column that each row chose framed.

    Only columns that some row chose are drawn, in the order of the document: the others add nothing to the score.
    """
    chosen = sorted({j for j in best if j >= 0})
    cell, left, top = 15, 86, 74
    width, height = left + cell * len(chosen) + 62, top + cell * len(rows) + 6
    values = [row[j] for row in matrix for j in chosen]
    low, high = min(values, default=0.0), max(values, default=1.0)
    levels: dict[int, list[str]] = {}
    for i, row in enumerate(matrix):
        for place, j in enumerate(chosen):
            level = round(9 * (row[j] - low) / ((high - low) or 1))
            if level:
                levels.setdefault(level, []).append(f"M{left + cell * place},{top + cell * i}h14v14h-14z")
    heat = [tag("path", d="".join(parts), class_=f"heat h{level}") for level, parts in sorted(levels.items())]
    frames = [
        tag(
            "rect",
            x=left + cell * chosen.index(j) + 0.5,
            y=top + cell * i + 0.5,
            width=13,
            height=13,
            class_="chosen",
            data_tip=f"{rows[i]} – {columns[j]}: {significant(matrix[i][j], 3)}",
        )
        for i, j in enumerate(best)
        if j >= 0
    ]
    names = [
        tag("text", _token(name), x=left - 6, y=top + cell * i + 11, class_="tick left ink")
        for i, name in enumerate(rows)
    ]
    heads = [
        tag(
            "text",
            _token(columns[j]),
            transform=f"translate({left + cell * place + 10},{top - 6}) rotate(-50)",
            class_="tick head ink",
        )
        for place, j in enumerate(chosen)
    ]
    svg = tag(
        "svg",
        markup(heat, frames, names, heads),
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_="chart matrix",
    )
    note = f"{len(chosen)} of {len(columns)} document tokens: those that a query token chose"
    return tag(
        "figure",
        tag("figcaption", label),
        tag("div", svg, class_="scroll", tabindex="0"),
        tag("p", note, class_="note"),
    )


def _token(token: str) -> str:
    return token if len(token) <= 13 else token[:12] + "…"
