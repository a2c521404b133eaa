"""Plots as SVG files: equal values make equal bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def by_round(path: Path, values: Mapping[str, float], rounds: Sequence[str], title: str, metric: str) -> None:
    """A metric by round as a line, every other system of `values` as a level line with its name at the right."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Ids and dates in the file would differ from one drawing to the next.
    with matplotlib.rc_context({"svg.hashsalt": "colbert_lab", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        heights = [values[name] for name in rounds]
        axes.plot(range(len(rounds)), heights, marker="o", color="#0b5fa5", linewidth=2, zorder=3)
        for number, height in enumerate(heights):
            axes.annotate(
                f"{height:.4f}", (number, height), textcoords="offset points", xytext=(0, 8), ha="center", zorder=4
            )
        others = {name: value for name, value in values.items() if name not in rounds}
        for (name, value), place in zip(others.items(), _apart(list(others.values()), list(values.values()))):
            axes.axhline(value, color="#888888", linewidth=1, linestyle="--", zorder=1)
            axes.annotate(
                f"{name} {value:.4f}",
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                color="#444444",
                annotation_clip=False,
            )
        axes.set_xticks(range(len(rounds)), rounds)
        axes.set_xlim(-0.3, max(len(rounds) - 0.7, 0.3))
        axes.margins(y=0.15)
        axes.set_ylabel(metric)
        axes.set_title(title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _apart(places: Sequence[float], everything: Sequence[float]) -> list[float]:
    """Where labels at these heights go so that none covers another: pushed up, lowest first, by a line's height."""
    least = 0.055 * max(max(everything) - min(everything), 1e-9)
    moved: dict[int, float] = {}
    floor = float("-inf")
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        moved[i] = floor = max(places[i], floor + least)
    return [moved[i] for i in range(len(places))]
