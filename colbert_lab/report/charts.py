"""Charts of lines and dots as SVG that stands inside a page: its colours are the page's, its numbers can be read back.

The frame carries its scales (data-x, data-y: low, high, lin or log; data-box: left, top, right, bottom), so that a
script can say which value lies under a pointer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from colbert_lab.report.markup import Child, Html, markup, significant, tag
from colbert_lab.report.scales import Scale, fitted, tick_text, wide

WIDTH, HEIGHT = 400, 232
_TOP, _BOTTOM, _LEFT, _RIGHT = 14, 38, 46, 12
# A character of a label at 11 px, on average.
_CHARACTER = 5.9
_LINE = 12.5


@dataclass(frozen=True)
class Series:
    """A line: its name, points in the order of x, the run it belongs to, its colour (None: grey), and whether it is
    named at its end."""

    name: str
    points: Sequence[tuple[float, float]]
    run: str | None = None
    colour: int | None = None
    named: bool = True
    level: bool = False


@dataclass(frozen=True)
class Dot:
    """A dot: where, its label, what a pointer on it is told, its colour, and whether it is on the front."""

    x: float
    y: float
    label: str
    told: str
    colour: int | None = None
    front: bool = False
    run: str | None = None


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    log_y: bool = False,
    digits: int = 4,
    marks: bool = False,
    x_names: Sequence[str] = (),
) -> Html:
    """Lines over a shared x. A series with `level` is one value, drawn across; `marks` writes each value at its point.

    `x_names` are names of x = 0, 1, 2, ... in place of numbers.
    """
    named = [one for one in series if one.named]
    names = _short([one.name for one in named])
    right = max([_RIGHT, *(10 + _CHARACTER * len(name) for name in names)]) if len(series) > 1 else _RIGHT + 4
    xs = [x for one in series if not one.level for x, _ in one.points] or [0.0, 1.0]
    ys = [y for one in series for _, y in one.points]
    log_y = log_y and wide(ys)
    across = fitted(xs, _LEFT, WIDTH - right, room=0.12 if x_names else 0.02)
    up = fitted(ys, HEIGHT - _BOTTOM, _TOP + 6, log_y, room=0.1 if marks else 0.06)
    drawn = [_line(one, across, up) for one in sorted(series, key=lambda one: (one.colour is not None, one.level))]
    ends = [(up(one.points[-1][1]), name, one) for one, name in zip(named, names)] if len(series) > 1 else []
    labels = [
        tag("text", name, x=f"{WIDTH - right + 6:.1f}", y=f"{y + 3.8:.1f}", class_=_class("end", one), data_run=one.run)
        for (_, name, one), y in zip(ends, _apart([place for place, _, _ in ends]))
    ]
    values = (
        [
            tag("text", f"{y:.{digits}f}", x=f"{across(x):.1f}", y=f"{up(y) - 8:.1f}", class_=_class("value halo", one))
            for one in series
            if not one.level
            for x, y in one.points
        ]
        if marks
        else []
    )
    frame = _frame(across, up, x_label, right, x_names)
    return figure(
        title, markup(frame, drawn, values, labels), across, up, kind="lines dense" if len(series) > 8 else "lines"
    )


def scatter_chart(
    title: str, dots: Sequence[Dot], x_label: str, y_label: str, log_x: bool = False, size: tuple[int, int] = (560, 330)
) -> Html:
    """Dots; those of the front are joined, larger and labelled where there is room."""
    width, height = size
    log_x = log_x and min(dot.x for dot in dots) > 0
    across = fitted([dot.x for dot in dots], _LEFT, width - 24, log_x)
    up = fitted([dot.y for dot in dots], height - _BOTTOM, _TOP + 16, room=0.08)
    front = sorted((dot for dot in dots if dot.front), key=lambda dot: (dot.x, dot.y))
    path = "".join(f"{'L' if i else 'M'}{across(d.x):.1f},{up(d.y):.1f}" for i, d in enumerate(front))
    circles = [
        tag(
            "circle",
            tag("title", dot.told),
            cx=f"{across(dot.x):.1f}",
            cy=f"{up(dot.y):.1f}",
            r=5 if dot.front else 3.4,
            class_=f"dot {'front ' if dot.front else ''}{_colour(dot.colour)}",
            data_tip=dot.told,
            data_run=dot.run,
        )
        for dot in sorted(dots, key=lambda dot: dot.front)
    ]
    labels = _placed([(across(d.x), up(d.y), d) for d in dots], width)
    line = tag("path", d=path, class_="frontline") if len(front) > 1 else None
    above = tag("text", y_label, x=_LEFT, y=_TOP, class_="axis")
    frame = _frame(across, up, x_label, 24, (), width, height)
    return figure(title, markup(frame, above, line, circles, labels), across, up, size, "dots")


def figure(
    title: str,
    content: Child,
    across: Scale | None = None,
    up: Scale | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    kind: str = "",
    note: Child = None,
) -> Html:
    """A titled drawing; `kind` is what the script may do with it, `note` stands below."""
    box = (
        {
            "data_x": _told(across),
            "data_y": _told(up),
            "data_box": f"{across.start:.1f},{up.end:.1f},{across.end:.1f},{up.start:.1f}",
        }
        if across and up
        else {}
    )
    big = size[0] > WIDTH
    # Text keeps about its size, however wide the page is; a narrow one scrolls.
    style = f"min-width:{0.86 * size[0]:.0f}px;max-width:{1.15 * size[0]:.0f}px" if big else None
    svg = tag(
        "svg",
        content,
        viewBox=f"0 0 {size[0]} {size[1]}",
        role="img",
        aria_label=title,
        class_=f"chart {kind}",
        style=style,
        **box,
    )
    caption = tag("figcaption", title)
    inner = tag("div", svg, class_="scroll wide", tabindex="0") if big else svg
    return tag("figure", caption, inner, tag("p", note, class_="note") if note else None, class_="big" if big else None)


def thinned(points: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    """At most about `most` of the points: first and last, and the least and greatest value of each stretch between."""
    if len(points) <= most:
        return points
    stretches = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for i in range(stretches):
        part = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        if part:
            low, high = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
            kept += sorted({low, high})
    return [*kept, points[-1]]


def _line(one: Series, across: Scale, up: Scale) -> Html:
    name = tag("title", f"{one.name}: {significant(one.points[-1][1], 5)}")
    given = {"data_run": one.run, "data_name": one.name}
    if one.level:
        y = f"{up(one.points[0][1]):.1f}"
        return tag("path", name, d=f"M{across.start:.0f},{y}H{across.end:.0f}", class_=_class("level", one), **given)
    places = [f"{across(x):.1f},{up(y):.1f}" for x, y in one.points]
    path = tag("path", name, d="M" + "L".join(places), class_=_class("line", one), **given)
    if len(places) > 8:
        return path
    points = [tag("circle", cx=p.split(",")[0], cy=p.split(",")[1], r=2.4, class_=_class("point", one)) for p in places]
    return tag("g", path, points, data_run=one.run)


def _frame(
    across: Scale,
    up: Scale,
    x_label: str,
    right: float,
    x_names: Sequence[str] = (),
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Html:
    """Level lines with numbers at the left, ticks and the axis' name below."""
    base = height - _BOTTOM
    level = "".join(f"M{_LEFT},{up(value):.1f}H{width - right:.1f}" for value in up.ticks())
    heights = [
        tag("text", tick_text(value), x=_LEFT - 6, y=f"{up(value) + 3.6:.1f}", class_="tick left")
        for value in up.ticks()
    ]
    ticks = (
        list(enumerate(x_names)) if x_names else [(v, tick_text(v)) for v in across.ticks(5 if width > WIDTH else 4)]
    )
    below = [tag("text", name, x=f"{across(v):.1f}", y=base + 15, class_="tick") for v, name in ticks]
    label = tag("text", x_label, x=f"{width - right:.1f}", y=height - 6, class_="axis right")
    return markup(tag("path", d=level, class_="grid"), heights, below, label)


def _placed(places: Sequence[tuple[float, float, Dot]], width: float) -> list[Html]:
    """Labels of the dots on the front, or of all where they are few, beside them where they cover nothing."""
    wanted = [place for place in places if place[2].label and (place[2].front or len(places) <= 12)]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in places]
    labels = []
    for x, y, dot in sorted(wanted, key=lambda place: -place[2].y):
        long = _CHARACTER * len(dot.label)
        for dx, dy in (
            (9, 4),
            (-9 - long, 4),
            (-long / 2, -9),
            (-long / 2, 18),
            (9, -8),
            (9, 15),
            (-9 - long, -8),
            (-long, 30),
            (-long, -22),
        ):
            box = (x + dx, y + dy - 9, x + dx + long, y + dy + 2)
            if box[0] > _LEFT and box[2] < width and not any(_cover(box, other) for other in taken):
                taken.append(box)
                labels.append(
                    tag(
                        "text",
                        dot.label,
                        x=f"{x + dx:.1f}",
                        y=f"{y + dy:.1f}",
                        class_=f"mark halo {_colour(dot.colour)}",
                    )
                )
                break
    return labels


def _cover(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _apart(places: Sequence[float]) -> list[float]:
    """Heights for labels at these places so that none covers another, moved as little as can be, within the drawing."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = {i: places[i] for i in order}
    for _ in range(40):
        for a, b in pairwise(order):
            if moved[b] - moved[a] < _LINE:
                middle = (moved[a] + moved[b]) / 2
                moved[a], moved[b] = middle - _LINE / 2, middle + _LINE / 2
        for i in order:
            moved[i] = min(max(moved[i], _TOP - 4), HEIGHT - _BOTTOM + 8)
    return [moved[i] for i in range(len(places))]


def _short(names: Sequence[str], most: int = 20) -> list[str]:
    """Names without the words that all begin with, cut to fit beside a drawing."""
    words = [name.split("-") for name in names]
    while len(words) > 1 and all(len(one) > 1 for one in words) and len({one[0] for one in words}) == 1:
        words = [one[1:] for one in words]
    short = ["-".join(one) for one in words]
    return [name if len(name) <= most else name[: most - 1] + "…" for name in short]


def _class(kind: str, one: Series) -> str:
    return f"{kind} {_colour(one.colour)}"


def _colour(colour: int | None) -> str:
    return "grey" if colour is None else f"c{colour % 8}"


def _told(scale: Scale) -> str:
    return f"{scale.low:.8g},{scale.high:.8g},{'log' if scale.log else 'lin'}"
