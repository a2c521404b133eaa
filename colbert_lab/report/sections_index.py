"""Section: how far indexes are from exact MaxSim, against what they cost."""

from collections.abc import Mapping
from typing import Any

from colbert_lab.report.charts import Dot, scatter_chart
from colbert_lab.report.markup import Cell, Column, Html, is_number, markup, number_cell, table, tag
from colbert_lab.report.records import Findings

_AXES = {
    "latency": ("ms a query (p50, without encoding it)", lambda row: row["latency"]["search"]["p50"]),
    "bytes": ("bytes a token vector", lambda row: row["index"]["bytes_per_vector"]),
}


def fidelity(findings: Findings) -> Html | None:
    """For every fidelity artifact a drawing a cost, settings of a kind in a colour, and the table of all settings."""
    parts = []
    for number, (label, told) in enumerate(findings.fidelity):
        quality, rows = told["quality"], told["settings"]
        head = f"{told['collection']} {told['split']}, {rows[0]['queries']:,} queries, k = {told['k']}"
        series = list(dict.fromkeys(row["setting"]["series"] for row in rows))
        parts.append(tag("p", f"{label}. {head}.", class_="lead"))
        parts.append(tag("p", *_key(series), class_="key"))
        parts.append(tag("div", [_drawing(told, name, series) for name in _AXES], class_="charts wide"))
        parts.append(_table(told, quality, number))
        parts.append(
            tag("p", "On the front (t time, b bytes): no other setting has as much for less of it.", class_="note")
        )
    return markup(parts) if parts else None


def _key(series: list[str]) -> list[Html]:
    return [
        tag("span", tag("span", class_=f"swatch c{i % 8}"), name, " ", class_="entry") for i, name in enumerate(series)
    ]


def _drawing(told: Mapping[str, Any], axis: str, series: list[str]) -> Html | None:
    called, cost = _AXES[axis]
    quality = told["quality"]
    dots = [
        Dot(
            cost(row),
            row["figures"][quality],
            row["setting"]["short"] or row["setting"]["name"],
            f"{row['setting']['label']}: {quality} {row['figures'][quality]:.4f}, {cost(row):,.4g} {called}",
            series.index(row["setting"]["series"]),
            row["front"][axis],
        )
        for row in told["settings"]
        if is_number(cost(row)) and cost(row) > 0
    ]
    return scatter_chart(f"{quality} by {called}", dots, called, quality, log_x=True) if dots else None


def _table(told: Mapping[str, Any], quality: str, number: int) -> Html:
    rows = told["settings"]
    figures = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    columns = [Column("setting", number=False), Column("front", number=False), *(Column(name) for name in figures)]
    columns += [Column("nDCG@10 to exact"), Column("p", told="by Holm, over the settings"), Column("score error")]
    columns += [Column("B/vector"), Column("build s"), Column("p50 ms"), Column("p95 ms")]
    best = {name: max(row["figures"][name] for row in rows if name in row["figures"]) for name in figures}
    body = []
    for row in rows:
        test = row["tests"].get("ndcg_10")
        marks = "".join(mark for name, mark in (("latency", "t"), ("bytes", "b")) if row["front"][name])
        cells = [Cell(row["setting"]["label"], row["setting"]["label"]), Cell(marks, marks)]
        cells += [
            number_cell(v := row["figures"].get(name), style="best" if v == best[name] else "") for name in figures
        ]
        cells.append(Cell(f"{d:+.4f}", d) if test and (d := test["mean_difference"]) is not None else Cell("–"))
        cells.append(number_cell(test.get("holm", test["p"])) if test else Cell("–"))
        cells += [number_cell(row["error"]["mean"]), number_cell(row["index"]["bytes_per_vector"], 1)]
        cells += [number_cell(row["index"].get("build_seconds"), 1)]
        cells += [number_cell(row["latency"]["search"][q], 2) for q in ("p50", "p95")]
        body.append((None, cells))
    return table(columns, body, f"Settings, best first by {quality}", f"fidelity-{number}")
