"""Metrics of a run against relevance judgements, query by query; ranx computes them, its traps are handled here.

- The Run's own order is what is judged: ranx never sees a score that could tie.
- The mean is over the judged queries that have a positive; a query without results counts 0 (as `trec_eval -c` does).
- nDCG has linear gains, and grades below 1 count 0 (trec_eval; Järvelin & Kekäläinen 2002). The binary metrics take a
  grade of at least `relevance_level` as relevant: 1 as a rule, 2 on the graded MS MARCO sets (TREC DL's habit).
"""

import difflib
import importlib
import operator
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.run import Run

Qrels = Mapping[str, Mapping[str, int]]

DEFAULT = ("ndcg_10", "mrr_10", "recall_100")
# Our name of a metric -> the function of ranx.metrics that computes it.
FAMILIES = {
    "ndcg": "ndcg",
    "mrr": "reciprocal_rank",
    "recall": "recall",
    "precision": "precision",
    "success": "hit_rate",
    "map": "average_precision",
}
_ALIASES = {"rr": "mrr", "p": "precision", "r": "recall", "ap": "map", "hit": "success", "hits": "success"}
# Queries judged at once: bounds the memory (256 queries of 1,000 results are 4 MB twice).
_BLOCK = 256


@dataclass(frozen=True)
class Metric:
    """One metric, `recall_100` for example; k is None where it looks at all results (`map`)."""

    name: str
    family: str
    k: int | None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    queries: the judged queries with a positive, in the order of the judgements; per_query: metric -> float64
    [len(queries)]; counts: what was left out or counted 0; relevance_level: what the binary metrics took as relevant.
    """

    queries: tuple[str, ...]
    per_query: dict[str, np.ndarray]
    counts: dict[str, int]
    relevance_level: int

    @property
    def means(self) -> dict[str, float]:
        """Metric -> mean over the queries."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}

    def rows(self) -> list[dict[str, str | float]]:
        """One row a query, for a table: its id under `query`, then its metrics."""
        columns = {name: values.tolist() for name, values in self.per_query.items()}
        return [
            {"query": query, **{name: values[i] for name, values in columns.items()}}
            for i, query in enumerate(self.queries)
        ]


def evaluate(
    run: Run,
    qrels: Qrels,
    metrics: Sequence[str] = DEFAULT,
    relevance_level: int = 1,
    collection_size: int | None = None,
) -> Evaluation:
    """Judge a run: metrics by our names (`ndcg_10`, `mrr_10`, `recall_100`, `success_5`, `precision_10`, `map`, ...).

    `qrels` is query id -> document id -> grade (an integer). `collection_size` allows cut-offs beyond the run's depth
    where the run holds the whole collection. `counts` has: judged (the queries averaged over), without_positives (left
    out), below_level (no document of relevance_level: 0 in the binary metrics), without_results (judged, 0
    everywhere), unjudged_in_run (ignored).

    Raises ConfigError for an unknown metric, a cut-off deeper than the run, a relevance_level below 1; DataError for a
    grade that is no integer, a document repeated in a query's results, judgements without any positive, and a run that
    shares no query with them. A run without any result scores 0.0.
    """
    parsed = parse_metrics(metrics)
    _check(run, parsed, relevance_level, collection_size)
    queries = _judged(qrels)
    answered = sum(1 for query in queries if query in run and len(run[query]))
    unjudged = [query for query in run if query not in qrels]
    if run and len(unjudged) == len(run):
        raise DataError(
            f"none of the run's {len(run)} queries is judged: the run has {unjudged[0]!r} for example, "
            f"the judgements have {queries[0]!r}; do they belong together?"
        )
    return Evaluation(
        queries=queries,
        per_query=_compute(run, qrels, queries, parsed, relevance_level),
        counts={
            "judged": len(queries),
            "without_positives": len(qrels) - len(queries),
            "below_level": sum(1 for query in queries if max(qrels[query].values()) < relevance_level),
            "without_results": len(queries) - answered,
            "unjudged_in_run": len(unjudged),
        },
        relevance_level=relevance_level,
    )


def parse_metrics(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, each once; ConfigError with a suggestion for every name that is not understood."""
    if isinstance(names, str):
        raise ConfigError(f"metrics must be a list of names, {names!r} is one; write [{names}]", "the metrics")
    found, problems = [], []
    for name in dict.fromkeys(names):
        match = re.fullmatch(r"([a-z]+)(?:_([1-9][0-9]*))?", name)
        if match and match[1] in FAMILIES and (match[2] or match[1] == "map"):
            found.append(Metric(name, match[1], int(match[2]) if match[2] else None))
        else:
            problems.append(f"{name!r} is no metric; {_suggestion(name)}")
    if not names:
        problems.append(f"no metric is asked for; {', '.join(DEFAULT)} are usual")
    if problems:
        raise ConfigError(problems, "the metrics")
    return found


def within_depth(names: Sequence[str], depth: int) -> list[str]:
    """Those of the metrics that look at no more than `depth` results a query (`map` looks at all)."""
    return [metric.name for metric in parse_metrics(names) if metric.k is not None and metric.k <= depth]


def _suggestion(name: str) -> str:
    words, numbers = re.findall("[a-z]+", name.lower()), re.findall("[1-9][0-9]*", name)
    close = difflib.get_close_matches(_ALIASES.get(words[0], words[0]), FAMILIES, 1) if words else []
    if not close:
        return f"there are {', '.join(f'{family}_10' for family in FAMILIES)} with any cut-off, and map without one"
    cut_off = f"_{numbers[-1] if numbers else 10}"
    return f"did you mean {close[0] if close[0] == 'map' and not numbers else close[0] + cut_off}?"


def _check(run: Run, metrics: Sequence[Metric], relevance_level: int, collection_size: int | None) -> None:
    problems = []
    if relevance_level < 1:
        problems.append(f"relevance_level is {relevance_level}, it must be at least 1: grade 0 means not relevant")
    has_results = any(len(hits) for hits in run.values())
    for metric in metrics:
        needed = min(metric.k or 0, collection_size or metric.k or 0)
        if has_results and run.depth < needed:
            problems.append(
                f"{metric.name} looks at {needed} results a query, the run holds {run.depth}: "
                f"search with k={needed} or more, or leave {metric.name} out"
            )
    if problems:
        raise ConfigError(problems, "the evaluation")


def _judged(qrels: Qrels) -> tuple[str, ...]:
    """The queries with a positive, after a look at every grade."""
    queries = []
    for query, judged in qrels.items():
        for document, grade in judged.items():
            try:
                operator.index(grade)
            except TypeError:
                raise DataError(f"query {query!r}, document {document!r}: grade {grade!r} is no integer") from None
        if max(judged.values(), default=0) >= 1:
            queries.append(query)
    if not queries:
        raise DataError(f"none of the {len(qrels)} queries in the judgements has a positive (a grade of 1 or more)")
    return tuple(queries)


def _compute(
    run: Run, qrels: Qrels, queries: Sequence[str], metrics: Sequence[Metric], level: int
) -> dict[str, np.ndarray]:
    # Imported here, and by name, because ranx takes seconds to import and few who import this module evaluate.
    functions = importlib.import_module("ranx.metrics")
    deepest = None if any(metric.k is None for metric in metrics) else max(metric.k for metric in metrics)
    parts: dict[str, list[np.ndarray]] = {metric.name: [] for metric in metrics}
    for positives, found in _blocks(run, qrels, queries, deepest):
        for metric in metrics:
            function = getattr(functions, FAMILIES[metric.family])
            with warnings.catch_warnings():
                # Numba says so once while it compiles ranx's loops; the index it warns of is a small number.
                warnings.filterwarnings("ignore", message="unsafe cast from uint64 to int64")
                part = function(positives, found, metric.k or 0, 1 if metric.family == "ndcg" else level)
            parts[metric.name].append(part)
    return {name: np.concatenate(part) for name, part in parts.items()}


def _blocks(
    run: Run, qrels: Qrels, queries: Sequence[str], deepest: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Judgements and results of some queries as ranx's loops take them, both float64 [queries, width, 2].

    Positives are (number, grade), best grade first, numbered from 0; results are (number or -1 if not positive,
    -rank). Filled up with number -1 and grade 0, which no metric counts. Given ranx's own Qrels and Run instead, the
    first evaluation would compile for 50 seconds (this: 15), and each process would spend 5 again.
    """
    for start in range(0, len(queries), _BLOCK):
        block = [(query, *_numbered(run, qrels, query, deepest)) for query in queries[start : start + _BLOCK]]
        # One width for both: a perfect ranking then adds up the same numbers as the ideal one, and scores exactly 1.
        width = max(max(len(grades), len(numbers)) for _, grades, numbers in block)
        positives = np.zeros((len(block), width, 2))
        found = np.full((len(block), width, 2), -1.0)
        positives[:, :, 0] = -1
        found[:, :, 1] = -np.arange(1, width + 1)
        for row, (_, grades, numbers) in enumerate(block):
            positives[row, : len(grades), 0] = np.arange(len(grades))
            positives[row, : len(grades), 1] = grades
            found[row, : len(numbers), 0] = numbers
        yield positives, found


def _numbered(run: Run, qrels: Qrels, query: str, deepest: int | None) -> tuple[list[int], list[int]]:
    """The positive grades, best first, and for each result its place among them, or -1."""
    positives = sorted(((d, g) for d, g in qrels[query].items() if g >= 1), key=lambda pair: -pair[1])
    ids = run[query].ids if query in run else ()
    if len(set(ids)) != len(ids):
        raise DataError(f"a document appears twice in the results of query {query!r}")
    number = {document: i for i, (document, _) in enumerate(positives)}
    return [grade for _, grade in positives], [number.get(document, -1) for document in ids[:deepest]]
