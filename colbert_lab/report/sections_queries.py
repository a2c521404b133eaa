"""Section: the queries that a system won and lost against the baseline, with why where explanations are at hand."""

from collections.abc import Mapping
from typing import Any

from colbert_lab.report.charts_bars import difference_chart, heat_map
from colbert_lab.report.markup import Html, facts, folded, is_number, markup, tag
from colbert_lab.report.records import Findings, Results, label_of

# Charts of a judging: beyond so many systems a page of bars tells no more.
_MOST = 12


def queries(findings: Findings) -> Html | None:
    """Wins and losses of every system query by query, then the largest of them with their documents."""
    parts: list[Html] = []
    for one in findings.results:
        charts = _charts(one)
        if charts:
            label = f"{one.collection} {one.split}: {one.metric} of each query, against {one.baseline}"
            parts.append(tag("h3", label))
            parts.append(tag("div", charts[:_MOST], class_="charts"))
            if len(charts) > _MOST:
                parts.append(tag("p", f"The first {_MOST} of {len(charts)} systems are drawn.", class_="note"))
        for pair in one.differences:
            parts += _pair(pair)
    return markup(parts) if parts else None


def _charts(one: Results) -> list[Html]:
    if one.baseline not in one.per_query or one.metric is None:
        return []
    expected = one.per_query[one.baseline]
    charts = []
    for system, values in one.per_query.items():
        shared = [(query, values[query] - expected[query]) for query in values if query in expected]
        if system != one.baseline and any(value for _, value in shared):
            charts.append(difference_chart(label_of(one, system), shared, one.metric))
    return charts


def _pair(pair: Mapping[str, Any]) -> list[Html]:
    parts = [tag("h3", f"{pair['b']} against {pair['a']}, {pair['metric']}: the largest differences")]
    for key, called in (("gained", "won"), ("lost", "lost")):
        found = pair.get(key) or []
        if found:
            parts.append(tag("h4", f"Most {called} by {pair['b']}"))
            parts += [_difference(one, pair, key) for one in found]
    return parts


def _difference(one: Mapping[str, Any], pair: Mapping[str, Any], key: str) -> Html:
    a, b = one.get("a"), one.get("b")
    summary = [
        tag("span", f"{one['difference']:+.3f}", class_="up" if key == "gained" else "down"),
        " ",
        tag("b", one.get("text") or one["query"]),
        tag("span", f"  {_shown(a)} → {_shown(b)}", class_="soft"),
    ]
    documents = tag("ol", (_document(d, pair) for d in one.get("documents", ())), class_="documents")
    return folded(summary, documents, _explanations(one, pair))


def _document(one: Mapping[str, Any], pair: Mapping[str, Any]) -> Html:
    grade = one.get("grade")
    judged = "not judged" if grade is None else f"grade {grade}"
    ranks = f"{pair['a']} {_rank(one.get('rank_a'))}, {pair['b']} {_rank(one.get('rank_b'))}"
    relevant = "relevant" if is_number(grade) and grade > 0 else None
    return tag(
        "li",
        tag("span", judged, class_=f"grade {relevant or ''}"),
        tag("span", f" {ranks} ", class_="soft"),
        tag("span", str(one.get("title_or_text") or ""), class_="text"),
        tag("span", f" [{one['id']}]", class_="soft"),
    )


def _explanations(one: Mapping[str, Any], pair: Mapping[str, Any]) -> Html | None:
    """The heat maps of a document by both systems, side by side."""
    found = one.get("explanations") or {}
    documents = list(dict.fromkeys(d for side in ("a", "b") for d in found.get(side) or {}))
    rows = []
    for document in documents:
        maps = []
        for side in ("a", "b"):
            told = (found.get(side) or {}).get(document)
            if told and told["matrix"] and told["document_tokens"]:
                label = f"{pair[side]}: {document}, score {told['score']:.3f}"
                drawn = heat_map(told["query_tokens"], told["document_tokens"], told["matrix"], told["best"], label)
                note = tag("p", told["note"], class_="soft") if told.get("note") else None
                maps.append(tag("div", drawn, _shares(told.get("shares") or {}), note))
        rows.append(tag("div", maps, class_="pair"))
    return markup(rows) if documents else None


def _shares(shares: Mapping[str, float]) -> Html | None:
    return facts((name, f"{100 * value:.0f}%") for name, value in shares.items() if value) if shares else None


def _rank(rank: Any) -> str:
    return "–" if rank is None else f"#{rank}"


def _shown(value: Any) -> str:
    return f"{value:.3f}" if is_number(value) else "–"
