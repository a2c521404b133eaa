"""What others have published, as a table beside what was measured here."""

from collections.abc import Mapping
from typing import Any

from colbert_lab.report.markup import Cell, Column, Html, markup, number_cell, table, tag
from colbert_lab.report.records import Results, label_of


def published_table(one: Results, name: str) -> Html | None:
    """One line a figure: its value, ours, the difference, and in full where the protocols differ; None without any.

    The numbers do not mean the same where they do, so what differs stands beside them.
    """
    if not one.published:
        return None
    sources = {source: i for i, source in enumerate(dict.fromkeys(p["source"] for p in one.published), 1)}
    columns = [Column("published elsewhere", number=False), Column("metric", number=False), Column("published")]
    columns += [Column("measured"), Column("difference"), Column("here", number=False)]
    columns.append(Column("what differs", number=False, style="words"))
    rows = [(None, _cells(one, figure, sources[figure["source"]])) for figure in one.published]
    caption = f"Published figures beside the system here that is most like each, {one.collection} {one.split}"
    told = [tag("p", f"[{number}] {source}", class_="note") for source, number in sources.items()]
    return markup(table(columns, rows, caption, name), told)


def _cells(one: Results, figure: Mapping[str, Any], source: int) -> list[Cell]:
    measured, difference, ours = figure.get("measured"), figure.get("difference"), figure.get("ours")
    here = label_of(one, ours) if ours in one.systems else ours or "–"
    differs = "; ".join(map(str, figure.get("protocol") or ())) or "–"
    return [
        Cell(f"{figure['system']} [{source}]", figure["system"]),
        Cell(figure["metric"], figure["metric"]),
        number_cell(figure["value"], told=figure["source"]),
        Cell("–") if measured is None else number_cell(measured),
        Cell("–") if difference is None else Cell(f"{difference:+.4f}", difference),
        Cell(here, here),
        Cell(differs, differs),
    ]
