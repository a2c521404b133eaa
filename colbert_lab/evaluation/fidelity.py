"""How far an index is from exact MaxSim over the same vectors: what it finds, where it loses the rest, at what cost.

Everything is held against the run of an exact index, the twin, for the same queries: `overlap` says how much of its top
is found, `recall_by_stage` which stage lost what is missing, `score_error` how far the scores are off, and `pareto`
which of several settings are not beaten.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from colbert_lab.errors import DataError
from colbert_lab.index.base import Index
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run


@runtime_checkable
class Staged(Protocol):
    """An index that tells which documents survive its stages; one that cannot just has no recall by stage."""

    def stages(self, query: Tensor, k: int, *, probe: Any = None) -> Mapping[str, Sequence[str]]:
        """For one query [m, d]: stage -> ids of the documents that are left after it, in the order of the stages.

        Just what a search with the same k and probe keeps. The last stage is that search's result.
        """


@dataclass(frozen=True)
class ScoreError:
    """Approximate minus exact score over the documents of the exact top k of all queries.

    mean, max: of its magnitude; bias: with its sign; relative_mean, relative_max: magnitude over the exact score's own,
    where that is not zero; documents: how many scores were compared.
    """

    mean: float
    max: float
    bias: float
    relative_mean: float
    relative_max: float
    documents: int


def overlap(found: Run, exact: Run, depth: int) -> np.ndarray:
    """The share [B] of each query's exact top `depth` that is among its first `depth` found, in the order of `exact`.

    A query for which exact search finds fewer is divided by these; one for which it finds none counts 1.
    """
    return _shares((found[query].ids[:depth] if query in found else () for query in exact), exact, depth)


def recall_by_stage(
    survivors: Iterable[Mapping[str, Collection[str]]], exact: Run, depths: Sequence[int]
) -> dict[str, dict[int, np.ndarray]]:
    """Stage -> depth -> the share [B] of each query's exact top `depth` that is left after the stage, at any rank.

    `survivors` are what `Staged.stages` tells of the queries of `exact`, in their order. DataError where they are not
    as many, or where two queries went through different stages.
    """
    parts: dict[str, dict[int, list[np.ndarray]]] = {}
    count = 0
    for query, stages in zip(exact, survivors, strict=False):
        if count and list(stages) != list(parts):
            raise DataError(f"query {query!r} went through the stages {list(stages)}, others through {list(parts)}")
        count += 1
        one = Run({query: exact[query]}, exact.depth)
        for stage, ids in stages.items():
            left = set(ids)
            for depth in depths:
                parts.setdefault(stage, {}).setdefault(depth, []).append(_shares([left], one, depth))
    if count < len(exact):
        raise DataError(f"the index told the stages of {count} queries, {len(exact)} were asked for")
    return {stage: {d: np.concatenate(part) for d, part in by.items()} for stage, by in parts.items()}


def score_error(index: Index, queries: Ragged, exact: Run, probe: Any = None) -> ScoreError:
    """How far the index's scores of the documents in `exact` are from theirs; `queries` are those of `exact`, in order.

    The index scores exactly these documents (`only`), also those that its pruning would have lost. DataError where it
    does not return one of them: every search gives min(k, N).
    """
    errors, sizes = [], []
    for i, (query, hits) in enumerate(exact.items()):
        if not len(hits):
            continue
        scores = dict(index.search([query], queries[i : i + 1], len(hits), only=hits.ids, probe=probe)[query])
        lost = [document for document in hits.ids if document not in scores]
        if lost:
            raise DataError(
                f"asked for {len(hits)} documents of query {query!r} by name, the index found {len(scores)}; "
                f"{lost[0]!r} is not among them"
            )
        errors.append(np.array([scores[document] for document in hits.ids]) - hits.scores)
        sizes.append(np.abs(hits.scores))
    if not errors:
        raise DataError("exact search found no documents: there are no scores to compare")
    error, size = np.concatenate(errors), np.concatenate(sizes)
    relative = np.abs(error[size > 0]) / size[size > 0]
    return ScoreError(
        mean=float(np.abs(error).mean()),
        max=float(np.abs(error).max()),
        bias=float(error.mean()),
        relative_mean=float(relative.mean()) if len(relative) else 0.0,
        relative_max=float(relative.max()) if len(relative) else 0.0,
        documents=len(error),
    )


def pareto(quality: Sequence[float], cost: Sequence[float]) -> list[bool]:
    """Which settings no other beats: none has at least their quality for at most their cost, and one of the two better.

    Of settings that are equal in both all are kept.
    """
    settings = list(zip(quality, cost, strict=True))

    def beaten(one: tuple[float, float]) -> bool:
        return any(other != one and other[0] >= one[0] and other[1] <= one[1] for other in settings)

    return [not beaten(one) for one in settings]


def _shares(left: Iterable[Collection[str]], exact: Run, depth: int) -> np.ndarray:
    shares = []
    for ids, hits in zip(left, exact.values(), strict=True):
        wanted = hits.ids[:depth]
        ids = set(ids)
        shares.append(sum(document in ids for document in wanted) / len(wanted) if wanted else 1.0)
    return np.array(shares)
