"""Fusion: several runs of the same queries as one, by their ranks alone, so that no scales have to agree."""

from collections.abc import Sequence

from colbert_lab.errors import ConfigError
from colbert_lab.run import Run, rank

RRF_K = 60


def reciprocal_rank(runs: Sequence[Run], k: int = RRF_K, depth: int | None = None) -> Run:
    """Every document's score is the sum of 1 / (k + its rank), ranks from 1, over the runs that found it.

    Reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009; theirs is k = 60), as ranx's `fuse(method="rrf")`
    computes it: that compiles for half a minute, and orders equal scores as they come. Here they are ordered by id,
    which matters: the first of one run alone and the first of the other alone always tie.

    Queries come in the order in which the runs first have them. `depth` is how many results a query are kept, by
    default as many as the deepest run holds. ConfigError for k below 0, or no run.
    """
    if k < 0 or not runs:
        raise ConfigError(
            f"{len(runs)} runs fused with k = {k}: there must be at least one, and k at least 0", "fusion"
        )
    depth = max(run.depth for run in runs) if depth is None else depth
    hits = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        scores: dict[str, float] = {}
        for run in runs:
            for position, document in enumerate(run[query].ids if query in run else (), 1):
                scores[document] = scores.get(document, 0.0) + 1 / (k + position)
        hits[query] = rank(list(scores), list(scores.values())).cut(depth)
    return Run(hits, depth)
