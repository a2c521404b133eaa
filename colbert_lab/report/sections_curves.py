"""Sections: curves by step and by round, and how scores are distributed."""

from collections.abc import Mapping, Sequence
from typing import Any

from colbert_lab.report.charts import Series, line_chart, thinned
from colbert_lab.report.charts_bars import histogram_chart
from colbert_lab.report.markup import Cell, Column, Html, folded, is_number, markup, number_cell, table, tag
from colbert_lab.report.records import Findings, RunRecord

# Points of all lines of a page together: what keeps it under three megabytes with a hundred runs.
POINTS = 110_000
MOST_COLOURS = 8
# Runs whose score histograms stand open, best first.
_HISTOGRAMS = 3
_CHIPS = 16
# Beyond so many runs a chart is a smear: the best are drawn.
MOST_RUNS = 200
_FIRST = ("train/loss", "val/ndcg_10", "train/lr", "train/grad_norm", "train/score_margin")


def curves(findings: Findings) -> Html | None:
    """One chart a metric, a line a run; the best runs coloured where they are many."""
    runs = [
        run for run in findings.runs if any(len(c.points) > 1 and not _by_round(c.axis) for c in run.curves.values())
    ]
    if not runs:
        return None
    # Trainings first: what an index logs while it is built is no result, and would take their colours.
    trained = [run for run in runs if any(name.startswith(("train/", "val/")) for name in run.curves)]
    others = [run for run in runs if run not in trained]
    runs = trained or others
    ranked = sorted(runs, key=lambda run: -(run.objective if run.objective is not None else float("-inf")))
    left_out = len(runs) - MOST_RUNS
    drawn = [run for run in runs if run in ranked[:MOST_RUNS]] if left_out > 0 else runs
    colours = colours_of(drawn, ranked)
    metrics = dict.fromkeys(
        name for run in drawn for name, c in run.curves.items() if len(c.points) > 1 and not _by_round(c.axis)
    )
    order = sorted(metrics, key=_importance)
    lines = sum(name in run.curves for run in drawn for name in order)
    most = max(24, min(600, POINTS // max(lines, 1)))
    charts = [_chart(name, drawn, colours, most) for name in order]
    if trained and others:
        known = colours_of(others, others)
        names = dict.fromkeys(name for run in others for name, c in run.curves.items() if len(c.points) > 1)
        charts += [_chart(name, others, known, most) for name in sorted(names) if not _by_round(_axis(others, name))]
    cut = max(len(c.points) for run in drawn for c in run.curves.values()) > most
    skipped = sum(c.skipped for run in drawn for c in run.curves.values())
    notes = []
    if len(drawn) > MOST_COLOURS:
        notes.append(f"The {min(3, len(drawn))} best runs are coloured; press a run to follow it through all charts.")
    if cut:
        notes.append(f"Lines are thinned to about {most} points, least and greatest of each stretch kept.")
    if left_out > 0:
        notes.append(f"The {MOST_RUNS} best of {len(runs)} runs are drawn.")
    if skipped:
        notes.append(f"{skipped:,} values that are no numbers are left out.")
    head = [chart for name, chart in zip(order, charts) if _importance(name)[0] < 2]
    rest = charts[len(head) :]
    more = (
        folded(f"{'More curves' if head else 'Curves'} ({len(rest)})", tag("div", rest, class_="charts"))
        if rest
        else None
    )
    note = tag("p", " ".join(notes), class_="note") if notes else None
    return markup(
        _legend([run for run in ranked if run in drawn], colours) if head else None,
        tag("div", head, class_="charts"),
        more,
        note,
    )


def rounds(findings: Findings) -> Html | None:
    """For every rounds artifact its metrics by round, the steps between them, and what was mined."""
    parts = []
    for number, (label, told) in enumerate(findings.rounds):
        names = _round_names(told)
        charts = [
            _round_chart(split, metric, means, names)
            for split, means in told["means"].items()
            for metric in list(means[names[0]])[:2]
        ]
        best = f"Best {'by dev' if told.get('chosen_by') == 'dev' else '(the last)'}: {told['best']}"
        parts.append(tag("p", f"{label}. {best}.", class_="lead"))
        parts.append(tag("div", charts, class_="charts"))
        parts.append(_steps(told["steps"], number))
        parts.append(_mined(told.get("made", {}), number))
    return markup(parts) if parts else None


def distributions(findings: Findings) -> Html | None:
    """Histograms that runs logged, positive and negative scores over one another where both are there."""
    having = [run for run in findings.runs if run.histograms]
    best = sorted(having, key=lambda run: -(run.objective if run.objective is not None else float("-inf")))
    shown, rest = best[:_HISTOGRAMS], best[_HISTOGRAMS:]
    more = folded(f"{len(rest)} more runs", _histograms(rest)) if rest else None
    note = tag("p", "At the first step that was logged and at the last.", class_="note")
    return markup(_histograms(shown), more, note) if having else None


def colours_of(runs: Sequence[RunRecord], ranked: Sequence[RunRecord]) -> dict[str, int | None]:
    """A colour for each run while there are few; of many the three best have one."""
    if len(runs) <= MOST_COLOURS:
        return {run.key: i for i, run in enumerate(runs)}
    best = [run.key for run in ranked if run.objective is not None][:3]
    return {run.key: best.index(run.key) if run.key in best else None for run in runs}


def _histograms(runs: Sequence[RunRecord]) -> Html:
    charts = [
        histogram_chart(f"{run.label}: {entry['title']}", entry["parts"], entry.get("label", "score"))
        for run in runs
        for entry in run.histograms
    ]
    return tag("div", charts, class_="charts")


def _axis(runs: Sequence[RunRecord], name: str) -> str:
    return next(run.curves[name].axis for run in runs if name in run.curves)


def _chart(name: str, runs: Sequence[RunRecord], colours: Mapping[str, int | None], most: int) -> Html:
    having = [run for run in runs if name in run.curves]
    series = [
        Series(
            run.label,
            thinned(run.curves[name].points, most),
            run.key,
            colours[run.key],
            named=len(having) <= MOST_COLOURS,
        )
        for run in having
    ]
    log = name.rpartition("/")[2].startswith(("loss", "grad_norm"))
    return line_chart(name, series, having[0].curves[name].axis.rpartition("/")[2], log_y=log)


def _legend(runs: Sequence[RunRecord], colours: Mapping[str, int | None]) -> Html:
    chips = [
        tag(
            "button",
            tag("span", class_=f"swatch {'grey' if colours[run.key] is None else f'c{colours[run.key]}'}"),
            run.label,
            type="button",
            class_="chip",
            data_run=run.key,
            aria_pressed="false",
            title=f"{run.label}: objective {run.objective:.4f}" if is_number(run.objective) else run.label,
        )
        for run in runs
    ]
    smooth = tag(
        "label",
        "Smoothing ",
        tag("input", type="range", min="0", max="0.95", step="0.05", value="0", id="smoothing"),
        tag("output", "0", for_="smoothing"),
        class_="smooth",
    )
    # The coloured ones at hand, the rest behind a fold.
    few = chips if len(chips) <= _CHIPS else [chip for run, chip in zip(runs, chips) if colours[run.key] is not None]
    more = [chip for chip in chips if chip not in few]
    row = tag("div", few, class_="chips", role="group", aria_label="Runs")
    others = folded(f"{len(more)} more runs", tag("div", more, class_="chips")) if more else None
    clear = tag("button", "All runs", type="button", class_="clear", hidden=True)
    return markup(tag("div", row, clear, smooth, class_="legend"), others)


def _importance(name: str) -> tuple[int, int, str]:
    leaf = name.partition("/")[2]
    if name in _FIRST:
        return 0, _FIRST.index(name), name
    if leaf.startswith("loss") or leaf.endswith("ndcg_10"):
        return 1, 0, name
    return 2, 0, name


def _by_round(axis: str) -> bool:
    return axis.startswith("round")


def _round_names(told: Mapping[str, Any]) -> list[str]:
    """The rounds' own systems, in order, of all that were judged."""
    names = next(iter(told["means"].values()))
    steps = [step for found in told["steps"].values() for step in found]
    chained = list(dict.fromkeys(name for step in steps for name in (step["baseline"], step["system"])))
    return chained or [name for name in names if name == told["best"]]


def _round_chart(split: str, metric: str, means: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> Html:
    ours = Series("rounds", [(i, means[name][metric]) for i, name in enumerate(names)], colour=0, named=False)
    others = [
        Series(name, [(0, values[metric])], level=True)
        for name, values in means.items()
        if name not in names and metric in values
    ]
    return line_chart(f"{metric}, {split}", [*others, ours], "", marks=True, digits=3, x_names=names)


def _steps(steps: Mapping[str, Sequence[Mapping[str, Any]]], number: int) -> Html | None:
    rows = [
        (
            None,
            [
                Cell(f"{step['baseline']} → {step['system']}", step["system"]),
                Cell(split, split),
                Cell(step["metric"], step["metric"]),
                Cell(f"{step['difference']:+.4f}", step["difference"]),
                Cell(f"{step['low']:+.4f} … {step['high']:+.4f}", step["low"]),
                number_cell(step["p"], style="best" if step["p"] < 0.05 else ""),
            ],
        )
        for split, found in steps.items()
        for step in found
    ]
    columns = [Column(name, number=False) for name in ("step", "split", "metric")]
    columns += [Column("difference"), Column("95% interval"), Column("p", told="by Holm, over the rounds")]
    return table(columns, rows, "Each round against the one before", f"steps-{number}") if rows else None


def _mined(made: Mapping[str, Mapping[str, Any]], number: int) -> Html | None:
    names = ("queries", "positives", "positives_not_found", "pairs", "relabelled")
    shown = [name for name in names if any(name in counts for counts in made.values())]
    if not made:
        return None
    rows = [
        (
            None,
            [
                Cell(label, label),
                *(number_cell(counts.get(name)) for name in shown),
                _negatives(counts.get("negatives_per_query")),
                number_cell(sum(lost["total"] for lost in counts.get("dropped", {}).values())),
            ],
        )
        for label, counts in made.items()
    ]
    columns = [Column("step", number=False), *(Column(name.replace("_", " ")) for name in shown)]
    columns += [Column("negatives a query", told="least, median, most"), Column("dropped", told="pairs")]
    return table(columns, rows, "What was mined", f"mined-{number}")


def _negatives(spread: Sequence[float] | None) -> Cell:
    if spread is None:
        return Cell("–")
    least, median, most = spread
    return Cell(f"{median:g}" if least == most else f"{least:g} … {median:g} … {most:g}", median)
