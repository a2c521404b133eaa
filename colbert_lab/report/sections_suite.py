"""Sections of suites: one table over their collections with averages, and what others have published beside it."""

from collections.abc import Mapping
from typing import Any

from colbert_lab.report.markup import Cell, Column, Html, markup, number_cell, table, tag
from colbert_lab.report.records import Findings
from colbert_lab.report.sections_results import anchors


def suites(findings: Findings) -> Html | None:
    """Every suite: its table, what its numbers were measured with, and links to its collections' results."""
    places = anchors(findings)
    parts = [_suite(label, told, f"suite-{i}", places) for i, (label, told) in enumerate(findings.suites)]
    return markup(parts) if parts else None


def _suite(label: str, told: Mapping[str, Any], name: str, places: Mapping[tuple, str]) -> Html:
    names = [entry["name"] for entry in told["entries"]]
    lists = list(dict.fromkeys(one["label"] for one in told["averages"].values()))
    ours = {system: dict(row) for system, row in told["systems"].items()}
    for system, one in told["averages"].items():
        ours[system][one["label"]] = one["value"]
    headlines = ", ".join(told["headlines"])
    parts: list[Any] = [
        tag("h3", f"{told['suite']}: {label}"),
        _values(ours, names, lists, f"{told['suite']}, {headlines}", name, best=True),
    ]
    members = {one["label"]: one["members"] for one in told["averages"].values()}
    notes = [f"{of}: the mean over {', '.join(some)}." for of, some in members.items()]
    if told["missing"]:
        notes.append(f"Not judged: {', '.join(told['missing'])}.")
    parts += [tag("p", note, class_="note") for note in notes]
    parts.append(tag("ul", (tag("li", _linked(entry, places)) for entry in told["entries"])))
    if told["figures"]:
        sources = {source: i for i, source in enumerate(dict.fromkeys(f["source"] for f in told["figures"]), 1)}
        theirs = {f"{one['system']} [{sources[one['source']]}]": one["values"] for one in told["figures"]}
        parts.append(_values(theirs, names, lists, f"Published elsewhere, {headlines}", f"{name}-published"))
        parts += [tag("p", f"[{number}] {source}", class_="note") for source, number in sources.items()]
        parts.append(_beside(told["published"], sources, f"{name}-means"))
    return markup(parts)


def _values(
    rows: Mapping[str, Mapping[str, float]], names: list[str], lists: list[str], caption: str, name: str, best=False
) -> Html:
    shown = [one for one in (*names, *lists) if any(one in row for row in rows.values())]
    tops = {one: max(row[one] for row in rows.values() if one in row) for one in shown}
    lines = []
    for system, row in rows.items():
        cells = [
            Cell("–")
            if one not in row
            else number_cell(row[one], style="best" if best and len(rows) > 1 and row[one] == tops[one] else "")
            for one in shown
        ]
        lines.append((None, [Cell(system, system), *cells]))
    return table([Column("system", number=False), *map(Column, shown)], lines, caption, name)


def _beside(found: list[Mapping[str, Any]], sources: Mapping[str, int], name: str) -> Html | None:
    """Published averages beside ours over the same members, with what differs."""
    if not found:
        return None
    columns = [Column("published elsewhere", number=False), Column("mean over", number=False), Column("published")]
    columns += [Column("measured"), Column("difference"), Column("here", number=False)]
    columns.append(Column("what differs", number=False, style="words"))
    rows = []
    for one in found:
        differs = "; ".join(one["protocol"]) or "–"
        difference = one["difference"]
        rows.append(
            (
                None,
                [
                    Cell(f"{one['system']} [{sources[one['source']]}]", one["system"]),
                    Cell(one["list"], one["list"]),
                    number_cell(one["value"]),
                    number_cell(one["measured"]),
                    Cell("–") if difference is None else Cell(f"{difference:+.4f}", difference),
                    Cell(one["ours"] or "–", one["ours"]),
                    Cell(differs, differs),
                ],
            )
        )
    return table(columns, rows, "Published averages beside the system here that is most like each", name)


def _linked(entry: Mapping[str, Any], places: Mapping[tuple, str]) -> Html:
    """What a collection's numbers were measured with, as a link to its results where they are on the page."""
    place = places.get((entry["collection"], entry["split"], entry["queries"]))
    return tag("a", entry["conditions"], href=f"#{place}") if place else markup(entry["conditions"])
