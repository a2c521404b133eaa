"""The page: findings as one HTML file that needs nothing else, no network, no font, no library."""

from collections.abc import Callable
from importlib.resources import files

from colbert_lab.report import (
    sections_curves,
    sections_index,
    sections_queries,
    sections_record,
    sections_results,
    sections_suite,
    sections_sweep,
)
from colbert_lab.report.markup import Html, markup, tag
from colbert_lab.report.records import Findings

# In reading order: id, heading, what draws it. A section without data is left out.
SECTIONS: tuple[tuple[str, str, Callable[[Findings], Html | None]], ...] = (
    ("suites", "Suites", sections_suite.suites),
    ("results", "Results", sections_results.results),
    ("costs", "Quality and cost", sections_results.costs),
    ("rounds", "By round", sections_curves.rounds),
    ("sweep", "Sweep", sections_sweep.sweeps),
    ("indexes", "Indexes against exact MaxSim", sections_index.fidelity),
    ("curves", "Curves by step", sections_curves.curves),
    ("distributions", "Score distributions", sections_curves.distributions),
    ("queries", "Query by query", sections_queries.queries),
    ("guards", "Guards", sections_results.guards),
    ("runs", "Runs", sections_record.runs),
    ("configuration", "Configuration", sections_record.configuration),
    ("environment", "Environment", sections_record.environment),
    ("commands", "Commands to reproduce", sections_record.commands),
    ("failures", "What failed", sections_record.failures),
)


def page(findings: Findings) -> str:
    """The whole page as text; equal findings make equal text."""
    drawn = [(name, heading, content) for name, heading, draw in SECTIONS if (content := draw(findings)) is not None]
    links = [tag("a", heading, href=f"#{name}") for name, heading, _ in drawn]
    theme = tag("button", "Dark", type="button", id="theme", aria_label="Switch between light and dark")
    failed = next(
        (tag("a", "Something failed", href="#failures", class_="bad") for n, _, _ in drawn if n == "failures"), None
    )
    body = tag(
        "body",
        tag("a", "To the results", href=f"#{drawn[0][0]}" if drawn else "#top", class_="skip"),
        tag(
            "header",
            tag("div", tag("p", "colbert_lab report", class_="brand"), theme, class_="bar"),
            tag("h1", findings.title, id="top"),
            sections_results.question(findings),
            tag("p", failed) if failed else None,
        ),
        tag("nav", links, aria_label="Sections"),
        tag("main", (_section(*one) for one in drawn)),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", Html(_read("page.js"))),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", findings.title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_read("page.css"))),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


# The browser itself refuses whatever would leave the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def _section(name: str, heading: str, content: Html) -> Html:
    return tag("section", tag("h2", heading), markup(content), id=name, aria_label=heading)


def _read(name: str) -> str:
    return files("colbert_lab.report").joinpath(name).read_text(encoding="utf-8")
