"""Sections: what was asked, and the tables that answer it, with tests, costs and guards."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from colbert_lab.report.charts import Dot, scatter_chart
from colbert_lab.report.markup import (
    Cell,
    Column,
    Html,
    duration,
    facts,
    folded,
    is_number,
    markup,
    number_cell,
    significant,
    table,
    tag,
)
from colbert_lab.report.published import published_table
from colbert_lab.report.records import Findings, Results, label_of

LEVEL = 0.05
# COST's keys: what a column is called, and by what a value is divided.
_COSTS = {
    "p50_ms": ("p50 ms", 1.0),
    "p95_ms": ("p95 ms", 1.0),
    "flops_query": ("GFLOPs a query", 1e9),
    "flops_analytic": ("GFLOPs by formula", 1e9),
    "index_bytes": ("index MB", 1e6),
    "index_seconds": ("indexed in s", 1.0),
    "joules_query": ("joules a query", 1.0),
}


def question(findings: Findings) -> Html | None:
    """What the page is about: notes, collections with their counts, when, for how long, and how it ended."""
    runs = findings.runs
    notes = list(dict.fromkeys(run.notes for run in runs if run.notes))
    collections = {
        str(run.config.get("name") or run.label): _collection(run.counts) for run in runs if run.kind == "collection"
    }
    judged = dict.fromkeys(
        f"{one.collection} {one.split}" + (f", {one.queries:,} queries" if one.queries else "")
        for one in findings.results
    )
    started = [run.started for run in runs if run.started]
    ended = [run.started + run.seconds for run in runs if run.started and run.seconds is not None]
    spent = sum(run.seconds or 0 for run in runs)
    bad = sum(run.state not in ("finished", "running") for run in runs)
    told = [
        *(("collection", f"{name}: {counts}" if counts else name) for name, counts in collections.items()),
        ("judged on", "; ".join(judged)),
        ("runs", f"{len(runs)}" + (f", {bad} of them not finished" if bad else "")),
        ("made", f"{_when(min(started))} to {_when(max(ended or started))} UTC" if started else None),
        ("time of all runs", duration(spent) if spent else None),
    ]
    return markup([tag("p", line, class_="lead") for note in notes for line in note.split("\n\n")], facts(told))


def results(findings: Findings) -> Html | None:
    """A table a collection, split and number of queries; judgings of the same ones share theirs."""
    parts = [_table(f"results-{i}", group) for i, group in enumerate(_groups(findings).values())]
    tests = _tests(findings.results)
    if not parts:
        return None
    baselines = list(dict.fromkeys(label_of(o, o.baseline) for o in findings.results if o.tests and o.baseline))
    tested = list(dict.fromkeys(one.test for one in findings.results if one.tests and one.test))
    legend = [tag("b", "bold"), " best of its column"]
    if tests:
        against = " or ".join(baselines)
        how = f"{', '.join(tested) or 'paired test'}, p by Holm < {LEVEL:g}"
        legend += ["; ", tag("span", "▲", class_="up"), " better, ", tag("span", "▼", class_="down"), " worse than "]
        legend += [f"{against} ({how}); point at a value for its test"]
    if any(system.get("deviations") for one in findings.results for system in one.systems.values()):
        legend.append("; ± standard deviation over seeds")
    return markup(parts, tag("p", legend, ".", class_="note"), tests)


def anchors(findings: Findings) -> dict[tuple[str, str, int | None], str]:
    """(collection, split, queries) -> the id of their table on the page."""
    return {key: f"table-results-{i}" for i, key in enumerate(_groups(findings))}


def _groups(findings: Findings) -> dict[tuple[str, str, int | None], list[Results]]:
    groups: dict[tuple[str, str, int | None], list[Results]] = {}
    for one in findings.results:
        groups.setdefault((one.collection, one.split, one.queries), []).append(one)
    return groups


def costs(findings: Findings) -> Html | None:
    """Quality against each cost that the systems of a comparison have."""
    charts = []
    for one in findings.results:
        metric, order = one.metric, list(one.systems)
        for key, (called, unit) in _COSTS.items():
            if key in ("p95_ms", "flops_analytic", "index_seconds") or metric is None:
                continue
            points = [
                (cost / unit, system["means"][metric], name)
                for name, system in one.systems.items()
                if is_number(cost := (system.get("cost") or {}).get(key)) and cost > 0 and metric in system["means"]
            ]
            if len(points) > 1:
                front = _front([(x, y) for x, y, _ in points])
                dots = [
                    Dot(
                        x,
                        y,
                        label_of(one, name),
                        f"{label_of(one, name)}: {metric} {y:.4f}, {x:,.4g} {called}",
                        order.index(name),
                        on,
                    )
                    for (x, y, name), on in zip(points, front)
                ]
                title = f"{metric} by {called}, {one.collection} {one.split}"
                charts.append(scatter_chart(title, dots, called, metric, log_x=True))
    tables = [drawn for i, one in enumerate(findings.results) if (drawn := _cost_table(one, i)) is not None]
    return markup(tag("div", charts, class_="charts wide") if charts else None, tables) if charts or tables else None


def guards(findings: Findings) -> Html | None:
    """What could make results look better than they are: shared texts, cut texts, unjudged queries."""
    parts = []
    for one in findings.results:
        counted = {
            f"{name}: {what.replace('_', ' ')}": count
            for name, system in one.systems.items()
            for what, count in (system.get("counts") or {}).items()
            if what in ("without_results", "without_positives", "below_level") and count
        }
        notes = [note for some in (one.guards, one.truncation) for note in some.get("notes") or ()]
        pairs = [(name, f"{count:,}") for name, count in counted.items()]
        for name, some in (("", one.guards), ("truncated", one.truncation)):
            pairs += _flat({key: value for key, value in some.items() if key != "notes"}, name)
        if pairs or notes:
            parts.append(tag("h3", f"{one.collection} {one.split}"))
            parts += [tag("p", str(note)) for note in notes]
            parts.append(folded(f"All counts ({len(pairs)})", facts(pairs)) if notes and pairs else facts(pairs))
    counted = [
        (run.label, f"{run.counts['contaminated_test_queries']:,} of its queries are test queries too")
        for run in findings.runs
        if run.counts.get("contaminated_test_queries")
    ]
    if counted:
        parts.append(markup(tag("h3", "Training queries"), facts(counted)))
    return markup(parts) if parts else None


def _table(name: str, group: Sequence[Results]) -> Html:
    first = group[0]
    systems = [(one, system) for one in group for system in one.systems]
    metrics = list(dict.fromkeys(m for one, s in systems for m in one.systems[s]["means"]))
    best = {
        m: max((v for o, s in systems if (v := o.systems[s]["means"].get(m)) is not None), default=None)
        for m in metrics
    }
    columns = [Column("system", number=False)]
    if len(group) > 1:
        columns.append(Column("judged in", number=False))
    columns += [Column(metric, style="slot") for metric in metrics]
    rows = []
    for one, system in systems:
        record = one.systems[system]
        tests = {test["metric"]: test for test in one.tests if test["system"] == system}
        cells = [Cell(label_of(one, system), label_of(one, system), "baseline" if system == one.baseline else "")]
        if len(group) > 1:
            cells.append(Cell(one.label, one.label))
        cells += [
            _value(record["means"].get(m), best[m] if len(systems) > 1 else None, record, m, tests.get(m))
            for m in metrics
        ]
        rows.append((None, cells))
    caption = f"{first.collection} {first.split}"
    caption += f", {first.queries:,} queries" if first.queries else ""
    caption += f", {first.corpus} corpus" if first.corpus else ""
    notes = []
    level = {one.relevance_level for one in group} - {None}
    if level:
        notes.append(f"Binary metrics count grades of {', '.join(map(str, sorted(level)))} and more as relevant.")
    return markup(
        table(columns, rows, caption, name),
        [tag("p", note, class_="note") for note in notes],
        [published_table(one, f"{name}-published-{i}") for i, one in enumerate(group)],
    )


def _cost_table(one: Results, number: int) -> Html | None:
    """Every cost of every system; None where none is known."""
    costs = {system: record.get("cost") or {} for system, record in one.systems.items()}
    known = [key for key in _COSTS if any(is_number(cost.get(key)) for cost in costs.values())]
    if not known:
        return None
    rows = []
    for system, cost in costs.items():
        values = [cost[key] / _COSTS[key][1] if is_number(cost.get(key)) else None for key in known]
        cells = [Cell("–") if value is None else Cell(significant(value, 4), value) for value in values]
        rows.append((None, [Cell(label_of(one, system), label_of(one, system)), *cells]))
    columns = [Column("system", number=False), *(Column(_COSTS[key][0]) for key in known)]
    return table(columns, rows, f"Costs, {one.collection} {one.split}", f"costs-{number}")


def _value(value: Any, best: float | None, record: Mapping[str, Any], metric: str, test: Mapping | None) -> Cell:
    if value is None:
        return Cell("–")
    style = "best" if best is not None and f"{value:.4f}" == f"{best:.4f}" else ""
    deviation = (record.get("deviations") or {}).get(metric)
    shown = f"{value:.4f}" + (f" ± {deviation:.4f}" if is_number(deviation) else "")
    interval = (record.get("intervals") or {}).get(metric)
    told = f"95% from {interval[0]:.4f} to {interval[1]:.4f}" if interval else None
    if test is not None:
        told = "\n".join(filter(None, (told, _test_text(test))))
        if test["p"] < LEVEL:
            style = f"{style} {'up' if test['difference'] > 0 else 'down'}".strip()
    return Cell(shown, value, style, told)


def _test_text(test: Mapping[str, Any]) -> str:
    text = f"{test['difference']:+.4f} to {test['baseline']}, p = {test['p']:.4f}"
    if is_number(test.get("low")):
        text += f", 95% from {test['low']:+.4f} to {test['high']:+.4f}"
    if "wins" in test:
        text += f"; {test['wins']} won, {test['ties']} tied, {test['losses']} lost"
    return text


def _tests(found: Sequence[Results]) -> Html | None:
    rows = [
        (
            None,
            [
                Cell(label_of(one, test["system"]), test["system"]),
                Cell(f"{one.collection} {one.split}", f"{one.collection} {one.split}"),
                Cell(test["metric"], test["metric"]),
                Cell(f"{test['difference']:+.4f}", test["difference"]),
                Cell(
                    f"{test['low']:+.4f} … {test['high']:+.4f}" if is_number(test.get("low")) else "–", test.get("low")
                ),
                number_cell(test["p"], style="best" if test["p"] < LEVEL else ""),
                number_cell(test.get("p_alone")),
                Cell(
                    f"{test['wins']} / {test['ties']} / {test['losses']}" if "wins" in test else "–", test.get("wins")
                ),
            ],
        )
        for one in found
        for test in one.tests
    ]
    if not rows:
        return None
    columns = [Column(name, number=False) for name in ("system", "judged on", "metric")]
    columns += [Column("difference"), Column("95% interval"), Column("p", told="by Holm, over the systems of a metric")]
    columns += [Column("p alone"), Column("won / tied / lost", told="queries")]
    return folded(
        f"Every test ({len(rows)})", table(columns, rows, "Differences to the baseline", f"tests-{len(rows)}", True)
    )


def _collection(counts: Mapping[str, Any]) -> str:
    parts = [f"{counts[name]:,} {name}" for name in ("documents", "queries") if is_number(counts.get(name))]
    splits = counts.get("splits")
    if isinstance(splits, Mapping):
        parts += [f"{name} {s['queries']:,}" for name, s in splits.items() if is_number(s.get("queries"))]
    return ", ".join(parts)


def _flat(value: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{path} {key}".strip().replace("_", " ")
        if isinstance(item, Mapping):
            pairs += _flat(item, name)
        elif item not in (None, [], ""):
            shown = (
                ", ".join(map(str, item)) if isinstance(item, list) else f"{item:,}" if is_number(item) else str(item)
            )
            pairs.append((name, shown))
    return pairs


def _front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether no other point costs at most as much and gives at least as much, one of the two strictly."""
    return [not any(o[0] <= p[0] and o[1] >= p[1] and o != p for o in points) for p in points]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %B %Y, %H:%M").lstrip("0")
