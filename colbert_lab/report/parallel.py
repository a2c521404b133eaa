"""Parallel coordinates: every job of a sweep a line through the values of its parameters to what it reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colbert_lab.report.charts import figure
from colbert_lab.report.markup import Html, is_number, markup, significant, tag
from colbert_lab.report.scales import Scale, fitted, tick_text, wide

# Numbers of at most so many values, a grid's, are choices: they stand evenly, and each can be pressed.
_FEW = 6
_HEIGHT, _TOP, _BOTTOM = 310, 38, 14


@dataclass(frozen=True)
class Axis:
    """A parameter: its name, the choices or the scale that values lie on, and the bands that filter by it."""

    name: str
    choices: Sequence[str]
    scale: Scale | None
    bands: Sequence[tuple[str, float, float]]

    def place(self, value: object) -> float | None:
        """The height of a value; None where a job has none."""
        if value is None or (self.scale is not None and not is_number(value)):
            return None
        return self.scale(value) if self.scale is not None else _rung(self.choices.index(str(value)), len(self.choices))

    def band(self, value: object) -> int | None:
        """The number of the band that a value lies in."""
        y = self.place(value)
        if y is None:
            return None
        return next(i for i, (_, low, high) in enumerate(self.bands) if low - 0.01 <= y <= high + 0.01)


def parallel_chart(
    title: str, jobs: Sequence[Mapping[str, object]], runs: Sequence[str | None], objective: str, labels: Sequence[str]
) -> Html:
    """Jobs as lines from parameter to parameter to `objective`, which each job holds under that name; best drawn last.

    Every axis has bands that can be pressed: only the lines through pressed bands stay. The line says its label.
    """
    names = list(dict.fromkeys(name for job in jobs for name in job if name != objective))
    axes = [_axis(name, [job.get(name) for job in jobs]) for name in names]
    axes.append(_axis(objective, [job.get(objective) for job in jobs], few=1))
    step = 150 if len(axes) < 6 else 124
    width = 90 + step * (len(axes) - 1) + 66
    reached = sorted(v for job in jobs if is_number(v := job.get(objective)))
    lines = []
    for job, run, label in sorted(zip(jobs, runs, labels), key=lambda one: (_reached(one[0], objective), one[2])):
        places = [(90 + step * i, axis.place(job.get(axis.name))) for i, axis in enumerate(axes)]
        path = "M" + "L".join(f"{x},{y:.1f}" for x, y in places if y is not None)
        bands = " ".join("-" if (b := axis.band(job.get(axis.name))) is None else str(b) for axis in axes)
        rank = sum(v < _reached(job, objective) for v in reached) / max(len(reached) - 1, 1)
        lines.append(
            tag(
                "path",
                tag("title", label),
                d=path,
                class_=f"job q{round(4 * rank)}",
                data_run=run,
                data_bands=bands,
                data_tip=label,
            )
        )
    drawn = [_drawn(axis, i, 90 + step * i, i == len(axes) - 1) for i, axis in enumerate(axes)]
    note = "Press a stretch of an axis to keep only the jobs through it; press again to let it go."
    return figure(title, markup(lines, drawn), size=(width, _HEIGHT), kind="parallel", note=note)


def _axis(name: str, values: Sequence[object], few: int = _FEW) -> Axis:
    numbers = [v for v in values if is_number(v)]
    given = [v for v in values if v is not None]
    different = sorted(set(numbers))
    if len(numbers) == len(given) and len(different) > few:
        scale = fitted(numbers, _HEIGHT - _BOTTOM, _TOP, wide(numbers), room=0.0)
        edges = [_HEIGHT - _BOTTOM - i * (_HEIGHT - _BOTTOM - _TOP) / 4 for i in range(5)]
        bands = [(f"part {i + 1} of 4 from below", edges[i + 1], edges[i]) for i in range(4)]
        return Axis(name, (), scale, bands)
    order = different if len(numbers) == len(given) else sorted({str(v) for v in given})
    choices = [str(v) for v in order]
    half = (_HEIGHT - _TOP - _BOTTOM) / max(len(choices), 1) / 2
    middles = [_rung(i, len(choices)) for i in range(len(choices))]
    return Axis(name, choices, None, [(c, y - half, y + half) for c, y in zip(choices, middles)])


def _drawn(axis: Axis, number: int, x: float, last: bool) -> Html:
    ticks = (
        [(axis.scale(v), tick_text(v)) for v in axis.scale.ticks()]
        if axis.scale
        else [(_rung(i, len(axis.choices)), _choice(choice)) for i, choice in enumerate(axis.choices)]
    )
    bands = [
        tag(
            "rect",
            tag("title", f"{axis.name}: {name}"),
            x=x - 11,
            y=f"{low:.1f}",
            width=22,
            height=f"{high - low:.1f}",
            class_="band",
            role="button",
            tabindex="0",
            aria_pressed="false",
            aria_label=f"{axis.name}: {name}",
            data_axis=number,
            data_band=i,
        )
        for i, (name, low, high) in enumerate(axis.bands)
    ]
    # The last axis has room at its right, where no line runs.
    side, place = (1, "right-of") if last else (-1, "left")
    texts = [
        tag("text", _cut(text), x=x + side * 9, y=f"{y + 3.6:.1f}", class_=f"tick {place} halo") for y, text in ticks
    ]
    head = tag("text", tag("title", axis.name), _cut(axis.name, 20), x=x, y=18, class_="tick ink")
    line = tag("path", d=f"M{x},{_TOP}V{_HEIGHT - _BOTTOM}", class_="rail")
    return markup(bands, line, texts, head)


def _rung(i: int, count: int) -> float:
    """The middle of the i-th of so many equal parts of an axis, from below."""
    return _HEIGHT - _BOTTOM - (i + 0.5) * (_HEIGHT - _BOTTOM - _TOP) / count


def _reached(job: Mapping[str, object], objective: str) -> float:
    value = job.get(objective)
    return float(value) if is_number(value) else float("-inf")


def _choice(text: str) -> str:
    """A choice as it is shown: a number with the digits that tell."""
    try:
        return significant(float(text))
    except ValueError:
        return text


def _cut(text: str, most: int = 13) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
