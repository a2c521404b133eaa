"""Quality against cost as an SVG: every setting a dot, those that no other beats joined by a line and labelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# Dark enough to read as text on white, apart for the colour-blind as well (after Okabe & Ito).
_COLOURS = ("#0b5fa5", "#c24a00", "#00795c", "#a8437e", "#7a6200", "#5b4fa8", "#2b7fa8", "#8c2d19")
_GREY = "#555555"
# Where a label may stand beside its dot, in points: to the right, above, below, to the left; then farther away.
_PLACES = [
    (x * far, y * far)
    for far in (1.0, 1.8, 2.8, 4.0, 5.5)
    for x, y in ((7, 0), (6, 7), (6, -7), (-7, 0), (-6, 7), (-6, -7), (0, 9), (0, -9))
]


@dataclass(frozen=True)
class Point:
    """One setting: its series (a colour), a few characters that set it apart in that, whether it is on the front."""

    series: str
    label: str
    cost: float
    quality: float
    front: bool


def pareto_plot(path: Path, points: Sequence[Point], title: str, cost: str, quality: str, note: str = "") -> None:
    """Draw the points, cost on a logarithmic axis; every series is named at its best, `note` says what labels mean.

    ValueError for a cost that is not positive, which has no place on the axis.
    """
    if any(point.cost <= 0 for point in points):
        raise ValueError(f"a cost must be positive: {min(point.cost for point in points)}")
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Ids and dates in the file would differ from one drawing to the next.
    with matplotlib.rc_context({"svg.hashsalt": "colbert_lab", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(8.6, 5.2))
        FigureCanvasSVG(figure)
        draw(figure, points, title, cost, quality, note)
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw(figure: Any, points: Sequence[Point], title: str, cost: str, quality: str, note: str = "") -> None:
    """Draw the points on an empty figure, whatever its canvas."""
    axes = figure.add_axes((0.085, 0.11, 0.875, 0.80))
    names = list(dict.fromkeys(point.series for point in points))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    front = sorted((p for p in points if p.front), key=lambda p: (p.cost, p.quality))
    axes.plot([p.cost for p in front], [p.quality for p in front], color="#bbbbbb", linewidth=1.5, zorder=1)
    for name in names:
        for on_front in (False, True):
            some = [p for p in points if p.series == name and p.front == on_front]
            axes.scatter(
                [p.cost for p in some],
                [p.quality for p in some],
                s=46 if on_front else 22,
                color=colours[name],
                alpha=1.0 if on_front else 0.45,
                linewidths=0,
                zorder=3 if on_front else 2,
            )
    axes.set_xscale("log")
    _scales(axes, points)
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(color="#999999", labelcolor=_GREY)
    axes.set_xlabel(cost, color=_GREY)
    axes.set_title(f"{title}\n", loc="left", fontsize=11)
    axes.text(0, 1.02, quality, transform=axes.transAxes, color=_GREY, ha="left", va="bottom")
    axes.text(1, 1.02, note, transform=axes.transAxes, color=_GREY, fontsize=8.5, ha="right", va="bottom")
    _label(figure, axes, points, front, colours)


def _scales(axes: Any, points: Sequence[Point]) -> None:
    """Limits with room for labels, and ticks at 1, 2, 5 in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    costs, heights = [p.cost for p in points], [p.quality for p in points]
    axes.set_xlim(min(costs) / 1.35, max(costs) * 1.9)
    reach = max(max(heights) - min(heights), 0.01)
    axes.set_ylim(min(heights) - 0.10 * reach, max(heights) + 0.12 * reach)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _label(figure: Any, axes: Any, points: Sequence[Point], front: Sequence[Point], colours: dict[str, str]) -> None:
    """Name every series at its best, in bold, and every dot of the front by its label, none over another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    scale = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    line = _line(axes, front)
    taken = [_around(x, y, 4 * scale) for x, y in axes.transData.transform([(p.cost, p.quality) for p in points])]
    taken += [_around(x, y, scale) for x, y in line]
    best = {p.series: p for p in sorted(points, key=lambda p: (p.quality, p.front, -p.cost))}
    # Names first: they are longest and belong at one place.
    for point in best.values():
        text = f"{point.series}  {point.label}".rstrip() if point.front else point.series
        taken.append(_place(axes, renderer, point, text, colours[point.series], True, taken, frame, scale))
    for point in front:
        if point.label and point != best[point.series]:
            taken.append(_place(axes, renderer, point, point.label, colours[point.series], False, taken, frame, scale))


def _line(axes: Any, front: Sequence[Point]) -> list[tuple[float, float]]:
    """Places along the line through the front, near enough to each other that no label fits between."""
    corners = axes.transData.transform([(p.cost, p.quality) for p in front]).tolist()
    return [
        (x0 + step * (x1 - x0) / 40, y0 + step * (y1 - y0) / 40)
        for (x0, y0), (x1, y1) in pairwise(corners)
        for step in range(41)
    ]


def _place(
    axes: Any,
    renderer: Any,
    point: Point,
    text: str,
    colour: str,
    bold: bool,
    taken: Sequence[tuple[float, float, float, float]],
    frame: Any,
    scale: float,
) -> tuple[float, float, float, float]:
    """Write `text` at the first place beside the dot where it covers nothing; returns the box that it fills."""
    x, y = axes.transData.transform((point.cost, point.quality))
    probe = axes.text(0, 0, text, fontsize=8.5, fontweight="bold" if bold else "normal")
    size = probe.get_window_extent(renderer)
    probe.remove()
    least: tuple[float, tuple[float, float], tuple[float, float, float, float]] | None = None
    for dx, dy in _PLACES:
        left = x + dx * scale - (0 if dx > 0 else size.width if dx < 0 else size.width / 2)
        low = y + dy * scale - size.height / 2
        box = (left - 1, low - 1, left + size.width + 1, low + size.height + 1)
        covered = sum(_common(box, other) for other in taken)
        outside = box[0] < frame.x0 or box[2] > frame.x1 + 20 * scale or box[1] < frame.y0 or box[3] > frame.y1
        covered += 1e6 * outside
        if least is None or covered < least[0]:
            least = covered, (dx, dy), box
        if not covered:
            break
    _, (dx, dy), box = least
    axes.annotate(
        text,
        (point.cost, point.quality),
        textcoords="offset points",
        xytext=(dx, dy),
        ha="left" if dx > 0 else "right" if dx < 0 else "center",
        va="center",
        fontsize=8.5,
        fontweight="bold" if bold else "normal",
        color=colour,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
        if dx * dx + dy * dy > 150
        else None,
        zorder=5,
    )
    return box


def _around(x: float, y: float, reach: float) -> tuple[float, float, float, float]:
    return x - reach, y - reach, x + reach, y + reach


def _common(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The area that two boxes (left, low, right, high) share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
