"""Queries that are documents of the collection themselves (ArguAna, Quora): taken out of their own results."""

from colbert_lab.run import Run


def without_self(run: Run) -> tuple[Run, int]:
    """The run without documents whose id is the query's, and how many were dropped.

    To keep k results search with k + 1, call this, then `.cut(k)`: dropped after the cut, the query would have cost a
    result. Where any was dropped, every query keeps one result less than before, and so does the depth.
    """
    kept = {query: hits.without({query}) for query, hits in run.items()}
    dropped = sum(len(run[query]) - len(hits) for query, hits in kept.items())
    return (Run(kept, run.depth).cut(run.depth - 1) if dropped else run), dropped
