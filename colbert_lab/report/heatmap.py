"""The similarity matrix of a query and a document as a picture, SVG or PNG: equal explanations make equal bytes.

Rows are query tokens, with what each brought as a bar at the right; columns are document tokens, in the text's order;
a frame marks what each row chose. Of a long document the chosen columns and their neighbours are shown, and a note says
how many of how many.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbert_lab.evaluation.explain import Explanation

COLUMNS = 60
ROWS = 64
# Inches: of a cell, of what stands around the matrix, of the bars.
_CELL = (0.17, 0.19)
_LEFT, _BARS, _RIGHT, _TOP, _BOTTOM = 1.25, 1.5, 0.25, 0.65, 1.3
_INK = {"word": "#111111", "mask": "#8a5a00", "marker": "#5b4fa8", "special": "#5b4fa8"}
_FRAME, _BAR, _GREY = "#d1300a", "#0b5fa5", "#555555"


def heatmap(path: Path, explanation: Explanation, title: str, columns: int = COLUMNS) -> None:
    """Draw an explanation into `path`, as SVG or PNG by its suffix; at most `columns` document tokens, 64 query tokens.

    ValueError for another suffix.
    """
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"a heat map is an .svg or a .png, not {path.name}")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    svg = path.suffix == ".svg"
    # Ids, dates and versions in the file would differ from one drawing to the next.
    with (
        matplotlib.rc_context({"svg.hashsalt": "colbert_lab", "svg.fonttype": "none", "font.size": 8}),
        warnings.catch_warnings(),
    ):
        # Tokens in scripts that the font lacks are boxes in a PNG; in an SVG the reader's own fonts are used.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(facecolor="white")
        (FigureCanvasSVG if svg else FigureCanvasAgg)(figure)
        draw(figure, explanation, title, columns)
        kept = {"Date": None, "Creator": None} if svg else {"Software": None}
        figure.savefig(path, format=path.suffix[1:], metadata=kept, dpi=72 if svg else 130)


def draw(figure: Any, explanation: Explanation, title: str, columns: int = COLUMNS) -> None:
    """Draw an explanation on an empty figure, which gets the size that it needs."""
    rows = _rows(explanation.contributions, ROWS)
    some = shown_columns(explanation, columns)
    places = _places(some)
    width = max(places[-1] + 1 if len(places) else 1, 18)
    size = (_LEFT + width * _CELL[0] + _BARS + _RIGHT, _TOP + max(len(rows), 1) * _CELL[1] + _BOTTOM)
    figure.set_size_inches(*size)
    left, low, high = _LEFT / size[0], _BOTTOM / size[1], max(len(rows), 1) * _CELL[1] / size[1]
    axes = figure.add_axes((left, low, width * _CELL[0] / size[0], high))
    bars = figure.add_axes((left + (width * _CELL[0] + 0.12) / size[0], low, (_BARS - 0.12) / size[0], high))
    if len(places) and len(rows):
        _matrix(figure, axes, explanation, rows, some, places, width, size)
    _labels(axes, explanation, rows, some, places, width)
    _bars(bars, explanation, rows)
    figure.text(0.1 / size[0], 1 - 0.1 / size[1], title, ha="left", va="top", fontsize=10, parse_math=False)
    figure.text(
        0.1 / size[0], 1 - 0.34 / size[1], _note(explanation, rows, some), ha="left", va="top", color=_GREY, fontsize=8
    )


def shown_columns(explanation: Explanation, limit: int) -> list[int]:
    """Which document positions are drawn, ascending: all, or the `limit` nearest to chosen ones, chosen ones first.

    Where more than `limit` are chosen, those that received most.
    """
    n = len(explanation.document)
    if n <= limit:
        return list(range(n))
    chosen = np.flatnonzero(explanation.chosen)
    distance = np.abs(np.arange(n)[:, None] - chosen[None]).min(1) if len(chosen) else np.zeros(n)
    order = np.lexsort((np.arange(n), -np.abs(explanation.received), distance))
    return sorted(order[: max(1, limit)].tolist())


def _rows(contributions: np.ndarray, limit: int) -> list[int]:
    """Which query positions are drawn: all, or those that brought most either way."""
    return sorted(np.argsort(-np.abs(contributions), kind="stable")[:limit].tolist())


def _places(columns: Sequence[int]) -> list[int]:
    """Where each column is drawn: side by side, one place left free where columns between are not shown."""
    places: list[int] = []
    for i, column in enumerate(columns):
        if i == 0:
            places.append(1 if column > 0 else 0)
        else:
            places.append(places[-1] + (1 if column == columns[i - 1] + 1 else 2))
    return places


def _matrix(
    figure: Any,
    axes: Any,
    explanation: Explanation,
    rows: Sequence[int],
    columns: Sequence[int],
    places: Sequence[int],
    width: int,
    size: tuple[float, float],
) -> None:
    from matplotlib.patches import Rectangle

    values = np.full((len(rows), width), np.nan)
    values[:, places] = explanation.matrix[np.ix_(rows, columns)]
    image = axes.imshow(values, cmap="Blues", aspect="auto", interpolation="nearest")
    at = dict(zip(columns, places))
    for y, row in enumerate(rows):
        best = int(explanation.best[row])
        if best in at:
            axes.add_patch(Rectangle((at[best] - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=_FRAME, linewidth=1.3))
    inset = figure.add_axes((1 - (_RIGHT + 1.3) / size[0], 0.42 / size[1], 1.3 / size[0], 0.1 / size[1]))
    bar = figure.colorbar(image, cax=inset, orientation="horizontal")
    bar.set_label("similarity" if explanation.similarity == "cosine" else "minus squared distance", color=_GREY)
    bar.locator.set_params(nbins=3)
    bar.outline.set_visible(False)
    inset.tick_params(colors=_GREY, labelsize=7, length=2)


def _labels(
    axes: Any,
    explanation: Explanation,
    rows: Sequence[int],
    columns: Sequence[int],
    places: Sequence[int],
    width: int,
) -> None:
    query, document = explanation.query, explanation.document
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    gaps = [(place - 1, "···") for i, place in enumerate(places) if place - 1 not in (places[i - 1] if i else -1,)]
    if columns and columns[-1] < len(document) - 1:
        gaps.append((places[-1] + 1, "···"))
    axes.set_xticks(list(places), [_short(document.tokens[c]) for c in columns], rotation=90)
    axes.set_yticks(range(len(rows)), [_short(query.tokens[r]) for r in rows])
    for label, column in zip(axes.get_xticklabels(), columns):
        label.set(parse_math=False, color=_INK[document.kinds[column]])
        label.set_fontweight("bold" if explanation.chosen[column] else "normal")
    for label, row in zip(axes.get_yticklabels(), rows):
        label.set(parse_math=False, color=_INK[query.kinds[row]])
    for place, text in gaps:
        middle = (max(len(rows), 1) - 1) / 2
        axes.text(place, middle, text, ha="center", va="center", rotation=90, color=_GREY, fontsize=11, clip_on=False)
    if not columns:
        axes.text((width - 1) / 2, 0, "the document has no vectors", ha="center", va="center", color=_GREY)
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)


def _bars(axes: Any, explanation: Explanation, rows: Sequence[int]) -> None:
    """What each row brought, with the number beside it."""
    values = explanation.contributions[list(rows)].astype(float)
    axes.barh(range(len(rows)), values, color=_BAR, height=0.62)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    reach = float(np.abs(values).max()) if len(values) else 1.0
    reach = reach or 1.0
    negative = bool(len(values)) and float(values.min()) < 0
    axes.set_xlim(-reach if negative else 0.0, 1.55 * reach)
    for y, value in enumerate(values.tolist()):
        axes.text(max(value, 0.0) + 0.05 * reach, y, f"{value:.3f}", va="center", color=_GREY, fontsize=7)
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("brought to the score", color=_GREY, loc="left")


def _note(explanation: Explanation, rows: Sequence[int], columns: Sequence[int]) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in explanation.shares.items() if share)
    parts = [f"score {explanation.score:.4f}" + (f" = {shares}" if shares else "")]
    m, n = len(explanation.query), len(explanation.document)
    if len(rows) < m:
        parts.append(f"showing {len(rows)} of {m} query tokens")
    if len(columns) < n:
        parts.append(f"showing {len(columns)} of {n} document tokens (dots: left out)")
    if explanation.document.cut:
        parts.append(f"{explanation.document.cut:,} tokens of the text were cut")
    return " · ".join(parts)


def _short(token: str) -> str:
    return token if len(token) <= 18 else f"{token[:16]}…"
