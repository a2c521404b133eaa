"""The table of every query of every system: its text, its metrics, what was found first, and which tokens matched best.

All rows stand in the local log; a dashboard shows the worst and a sample of the others.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from colbert_lab.data.texts import Texts
from colbert_lab.evaluation.explain import Explanation
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.run import Run

NAME = "eval/per_query"
# Worst queries of a system whose first documents are explained: they must be encoded anew, 15 a second on two cores.
EXPLAINED = 100
# Words of those documents, after which no further one is explained: a long one in passages is thousands of tokens.
EXPLAINED_WORDS = 30_000
# Pairs of tokens that are told of one document.
_TOKENS = 3

Explain = Callable[[Sequence[tuple[str, str]]], Mapping[tuple[str, str], Explanation]]


@dataclass(frozen=True)
class Judged:
    """A system: its evaluations and runs, one a seed, and what explains its pairs where its model is known."""

    evaluations: Sequence[Evaluation]
    runs: Sequence[Run]
    explain: Explain | None = None


def query_rows(systems: Mapping[str, Judged], queries: Texts | None, corpus: Texts | None) -> list[dict[str, Any]]:
    """Rows with system, seed (of several), query, text, metrics, top_1 (a document's id) and best_tokens.

    `text` is left out where there are no texts, `best_tokens` where no system's model is known. It holds the query's
    words that brought most to the score of the first document with the words that they chose there, of the EXPLAINED
    queries of a system (of its first seed) that are worst in its first metric, as long as their documents have no more
    than EXPLAINED_WORDS words together; else None.
    """
    rows = []
    known = any(one.explain for one in systems.values()) and queries is not None and corpus is not None
    for name, one in systems.items():
        told = _tokens(one, queries, corpus) if known and one.explain is not None else {}
        for seed, (evaluation, run) in enumerate(zip(one.evaluations, one.runs, strict=True)):
            texts = None if queries is None else queries.get(list(evaluation.queries))
            for i, row in enumerate(evaluation.rows()):
                query = row["query"]
                which = {"system": name} | ({"seed": seed} if len(one.runs) > 1 else {}) | {"query": query}
                text = {} if texts is None else {"text": texts[i]}
                top = {"top_1": _first(run, query)}
                best = {"best_tokens": told.get(query) if seed == 0 else None} if known else {}
                rows.append({**which, **text, **row, **top, **best})
    return rows


def worst_by(systems: Mapping[str, Judged]) -> str:
    """What the worst queries are the worst in: the first metric that all systems have, or the first of the first."""
    metrics = [list(one.evaluations[0].per_query) for one in systems.values()]
    return next((metric for metric in metrics[0] if all(metric in some for some in metrics)), metrics[0][0])


def _tokens(one: Judged, queries: Texts, corpus: Texts) -> dict[str, str]:
    """Query id -> the pairs of words, as text, for the worst queries that found a document whose text is there."""
    evaluation, run = one.evaluations[0], one.runs[0]
    metric = next(iter(evaluation.per_query))
    worst = sorted(zip(evaluation.per_query[metric].tolist(), range(len(evaluation.queries))))[:EXPLAINED]
    pairs = [(query, _first(run, query)) for _, i in worst for query in [evaluation.queries[i]]]
    pairs = [(query, document) for query, document in pairs if document is not None and document in corpus]
    texts = corpus.get([document for _, document in pairs])
    words = list(accumulate(len(text.split()) for text in texts))
    affordable = pairs[: bisect_right(words, EXPLAINED_WORDS)]
    return {query: matches(found) for (query, _), found in one.explain(affordable).items()}


def matches(found: Explanation) -> str:
    """The query's words that brought most, with the document's words that they chose: "heart → cardiac 0.93, ..."."""
    words = {position: word.text for word in found.document.words() for position in word.positions}
    parts = sorted(found.query_parts(), key=lambda part: -part.contribution)
    some = [part for part in parts if part.word.kind == "word"][:_TOKENS] if parts else []
    return ", ".join(
        f"{part.word.text} → {'/'.join(dict.fromkeys(words.get(j, '-') for j in part.chose))} {part.contribution:.2f}"
        for part in some
    )


def _first(run: Run, query: str) -> str | None:
    return run[query].ids[0] if query in run and len(run[query]) else None
