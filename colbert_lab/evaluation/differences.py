"""What set two runs apart: the queries that gained and lost most from one to the other, with texts, ranks, grades."""

import difflib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.run import Run

# The text of an id; None where there is none (judgements may name documents outside the corpus).
Text = Callable[[str], str | None]

SHOWN_CHARACTERS = 300
SHOWN_DOCUMENTS = 10
# Either run's best so many are shown; where there are many positives, so many places are kept for them.
_TOP = 3
_FOR_TOPS = 4


@dataclass(frozen=True)
class Placed:
    """A document of a query: its first characters (None where it is not in the corpus), its grade (None: not judged),
    and its ranks in the runs, from 1 (None: not found)."""

    id: str
    text: str | None
    grade: int | None
    rank_a: int | None
    rank_b: int | None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "id": self.id,
            "title_or_text": self.text,
            "grade": self.grade,
            "rank_a": self.rank_a,
            "rank_b": self.rank_b,
        }


@dataclass(frozen=True)
class Difference:
    """One query: the metric in both runs, and its documents: judged positives and both runs' best.

    positives: how many there are, of which `documents` may hold fewer. explanations: for the caller to fill,
    run ("a" or "b") -> document id -> Explanation.to_json().
    """

    query: str
    text: str
    a: float
    b: float
    documents: tuple[Placed, ...]
    positives: int
    explanations: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def difference(self) -> float:
        """What run b has more than run a."""
        return self.b - self.a

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "query": self.query,
            "text": self.text,
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "positives": self.positives,
            "documents": [document.to_json() for document in self.documents],
            "explanations": self.explanations,
        }


@dataclass(frozen=True)
class Differences:
    """The queries that gained and lost most from run `a` to run `b`, most first; `counts`: all that gained, lost and
    stayed."""

    a: str
    b: str
    metric: str
    gained: tuple[Difference, ...]
    lost: tuple[Difference, ...]
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "a": self.a,
            "b": self.b,
            "metric": self.metric,
            "counts": self.counts,
            "gained": [one.to_json() for one in self.gained],
            "lost": [one.to_json() for one in self.lost],
        }


def differences(
    a: Run,
    b: Run,
    evaluation_a: Evaluation,
    evaluation_b: Evaluation,
    metric: str,
    qrels: Mapping[str, Mapping[str, int]],
    query_text: Text,
    document_text: Text,
    n: int = 20,
    names: tuple[str, str] = ("a", "b"),
) -> Differences:
    """The n queries that gained and the n that lost most from a to b in a metric; equal ones by query id.

    A query that changed by nothing is neither. ConfigError for a metric that was not measured, DataError where the runs
    were judged on different queries.
    """
    first, second = (_values(evaluation, metric) for evaluation in (evaluation_a, evaluation_b))
    if evaluation_a.queries != evaluation_b.queries:
        raise DataError(
            f"{names[0]} and {names[1]} were judged on {len(evaluation_a.queries):,} and {len(evaluation_b.queries):,} "
            "queries that are not the same; their differences would mean nothing"
        )
    changes = dict(zip(evaluation_a.queries, (second - first).tolist(), strict=True))
    values = dict(zip(evaluation_a.queries, zip(first.tolist(), second.tolist())))

    def most(sign: int) -> tuple[Difference, ...]:
        some = sorted((q for q in changes if sign * changes[q] > 0), key=lambda q: (-sign * changes[q], q))
        return tuple(
            _difference(q, *values[q], a, b, qrels.get(q, {}), query_text, document_text) for q in some[: max(0, n)]
        )

    signs = np.sign(list(changes.values()))
    counts = {name: int((signs == sign).sum()) for name, sign in (("gained", 1), ("lost", -1), ("same", 0))}
    return Differences(*names, metric, most(1), most(-1), counts)


def difference_of(
    query: str,
    a: Run,
    b: Run,
    evaluation_a: Evaluation,
    evaluation_b: Evaluation,
    metric: str,
    qrels: Mapping[str, Mapping[str, int]],
    query_text: Text,
    document_text: Text,
) -> Difference:
    """One query's Difference, whichever way it went; DataError for a query that was not judged in both."""
    values = []
    for evaluation in (evaluation_a, evaluation_b):
        found = _values(evaluation, metric)
        if query not in evaluation.queries:
            raise DataError(f"query {query!r} has no judged relevant document, so no {metric} to compare")
        values.append(float(found[evaluation.queries.index(query)]))
    return _difference(query, *values, a, b, qrels.get(query, {}), query_text, document_text)


def differences_text(found: Differences, width: int = 100) -> str:
    """The differences for a terminal: each query with its metric in both runs, and where its documents rank."""
    counts = found.counts
    lines = [
        f"{found.metric} from a to b: {counts['gained']:,} queries gained, {counts['lost']:,} lost, "
        f"{counts['same']:,} the same",
        f"  a  {found.a}",
        f"  b  {found.b}",
    ]
    for title, some in (("gained most", found.gained), ("lost most", found.lost)):
        if some:
            lines += ["", f"{title} ({len(some)} of {counts[title.split()[0]]:,})"]
            for one in some:
                lines += difference_lines(one, width)
    return "\n".join(lines) + "\n"


def difference_lines(one: Difference, width: int = 100) -> list[str]:
    """One query's lines for a terminal."""
    head = f"  {one.difference:+.4f}  {one.a:.4f} -> {one.b:.4f}  {one.query}  "
    lines = [head + _fit(one.text, width - len(head))]
    size = max((len(document.id) for document in one.documents), default=0)
    for document in one.documents:
        grade = "unjudged" if document.grade is None else f"grade {document.grade}"
        ranks = f"a {document.rank_a or '-':>4}  b {document.rank_b or '-':>4}"
        start = f"      {ranks}  {grade:<8}  {document.id:<{size}}  "
        lines.append(start + _fit(document.text or "(not in the corpus)", width - len(start)))
    shown = sum(1 for document in one.documents if (document.grade or 0) > 0)
    if shown < one.positives:
        lines.append(f"      {one.positives - shown:,} more of {one.positives:,} relevant documents are not shown")
    return lines


def _difference(
    query: str,
    value_a: float,
    value_b: float,
    a: Run,
    b: Run,
    judged: Mapping[str, int],
    query_text: Text,
    document_text: Text,
) -> Difference:
    ranks = [
        {document: rank for rank, document in enumerate(run[query].ids if query in run else (), 1)} for run in (a, b)
    ]
    positives = [document for document, grade in judged.items() if grade > 0]
    placed = [
        Placed(
            document,
            None if (text := document_text(document)) is None else text[:SHOWN_CHARACTERS],
            judged.get(document),
            ranks[0].get(document),
            ranks[1].get(document),
        )
        for document in _worth_showing(positives, judged, *ranks)
    ]
    text = query_text(query) or ""
    return Difference(query, text[:SHOWN_CHARACTERS], value_a, value_b, tuple(placed), len(positives))


def _worth_showing(
    positives: Sequence[str], judged: Mapping[str, int], ranks_a: Mapping[str, int], ranks_b: Mapping[str, int]
) -> list[str]:
    """At most SHOWN_DOCUMENTS ids: positives by grade, then both runs' best; in the order of their best rank."""
    far = float("inf")

    def best(document: str) -> float:
        return min(ranks_a.get(document, far), ranks_b.get(document, far))

    positives = sorted(positives, key=lambda document: (-judged[document], best(document), document))
    known = set(positives)
    tops = [d for d in ranks_a.keys() | ranks_b.keys() if best(d) <= _TOP and d not in known]
    tops.sort(key=lambda document: (best(document), document))
    room = SHOWN_DOCUMENTS - min(_FOR_TOPS, len(tops))
    some = positives[:room]
    some += tops[: SHOWN_DOCUMENTS - len(some)]
    return sorted(some, key=lambda document: (best(document), document))


def _values(evaluation: Evaluation, metric: str) -> np.ndarray:
    if metric not in evaluation.per_query:
        there = list(evaluation.per_query)
        near = difflib.get_close_matches(metric, there, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{metric} was not measured, there are: {', '.join(there)}{meant}", "the differences")
    return evaluation.per_query[metric]


def _fit(text: str, width: int) -> str:
    return textwrap.shorten(" ".join(text.split()), max(20, width), placeholder=" ...")
