"""Pools: for every query the positives and negatives, with a teacher's scores, that tuples are drawn from.

    pools.arrow    query, positives, positive_scores, negatives, negative_scores, negative_ranks; one row a query

Candidates become pools by denoising: a document nobody judged is a negative only where the teacher agrees (Qu et al.,
"RocketQA", 2021), and by an absolute margin (Moreira et al., "NV-Retriever", 2024, their TopK-MarginPos).
"""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.candidates import QueryCandidates
from colbert_lab.mining.rows import Rows, write_rows
from colbert_lab.mining.tally import Counted, Tally, spread

FILE = "pools.arrow"
_SCHEMA = pa.schema(
    {
        "query": pa.string(),
        "positives": pa.list_(pa.string()),
        "positive_scores": pa.list_(pa.float32()),
        "negatives": pa.list_(pa.string()),
        "negative_scores": pa.list_(pa.float32()),
        "negative_ranks": pa.list_(pa.int32()),
    }
)
_UNJUDGED = -1
Against = Literal["best", "worst"]
Relabel = Literal["never", "unjudged", "always"]


@dataclass(frozen=True)
class Denoising:
    """What is believed where the teacher and the judgements differ.

    A negative is dropped as a likely false one where its score is at least the positive's minus `margin` (in units of
    the teacher's scores; below 0, negatives that far above are kept; None: all are kept). The positive compared with
    is the one that the teacher scores highest, or, stricter, lowest (`against`). With "best" a negative can outscore
    the positive that a tuple happens to have.

    `relabel` says whether the teacher's best document becomes the positive: "never" (queries without a positive are
    left out); "unjudged", for queries without a positive, the best of the documents not judged; "always", whatever
    the judgements, as in ColBERTv2 (Santhanam et al., 2022, section 3.2); other positives are then neither.

    A positive is dropped as an error of the judgements where more than `worst_positive_rank` - 1 of the query's
    documents that are not positives have a higher score (None: none is).
    """

    margin: float | None = None
    against: Against = "best"
    relabel: Relabel = "never"
    worst_positive_rank: int | None = None

    def __post_init__(self):
        problems = [
            f"{name}={value} must be one of {', '.join(get_args(choices))}"
            for name, value, choices in (("against", self.against, Against), ("relabel", self.relabel, Relabel))
            if value not in get_args(choices)
        ]
        if self.margin is not None and not np.isfinite(self.margin):
            problems.append(f"margin={self.margin} must be a number; null keeps all negatives\ntry: margin=null")
        if self.worst_positive_rank is not None and self.worst_positive_rank < 1:
            problems.append(f"worst_positive_rank={self.worst_positive_rank} must be 1 or more, or null")
        if self.worst_positive_rank is not None and self.relabel == "always":
            problems.append(
                "worst_positive_rank says which judgements to believe, but relabel=always believes none\n"
                "try: worst_positive_rank=null"
            )
        if problems:
            raise ConfigError(problems, "denoising")


@dataclass(frozen=True)
class Pool:
    """A query's positives (at least one) and negatives, each with the teacher's score; negatives by rank in the run."""

    query: str
    positives: tuple[str, ...]
    positive_scores: tuple[float, ...]
    negatives: tuple[str, ...]
    negative_scores: tuple[float, ...]
    negative_ranks: tuple[int, ...]


def make_pools(candidates: Iterable[QueryCandidates], scores: np.ndarray, denoising: Denoising) -> Counted[Pool]:
    """The pools of the queries that have a positive, in their order, made as they are iterated; and JSON counts.

    `scores` [P] are the teacher's, of all candidates' documents in row order (they may be memory-mapped). Dropped, each
    with its spread over the queries: false_negative (within the margin), label_error (`worst_positive_rank`), set_aside
    (a positive that is not the teacher's best, with relabel=always). A query left without a negative keeps its pool;
    the least number in `negatives_per_query` tells. DataError where there are more or fewer scores than documents, at
    the end at the latest, or where one is no number.
    """
    return Counted(_made(candidates, scores, denoising))


def _made(
    candidates: Iterable[QueryCandidates], scores: np.ndarray, denoising: Denoising
) -> Generator[Pool, None, dict[str, Any]]:
    relabelled, without, positive, start = 0, 0, 0, 0
    sizes: list[int] = []
    dropped = Tally("false_negative", "label_error", "set_aside")
    for row in candidates:
        mine, start = scores[start : start + len(row.documents)], start + len(row.documents)
        if start > len(scores):
            break
        mine = np.asarray(mine, dtype=np.float32)
        _check(row, mine)
        lost: Counter[str] = Counter()
        positives, negatives = _divide(row, mine, denoising, lost)
        relabelled += bool(positives) and positives[0] >= row.positives
        if positives and denoising.margin is not None:
            negatives = _outside_margin(mine, positives, negatives, denoising, lost)
        dropped.add(lost)
        if positives:
            positive += len(positives)
            sizes.append(len(negatives))
            yield _pool(row, mine, positives, negatives)
        else:
            without += 1
    if start != len(scores):
        raise DataError(
            f"the teacher gave {len(scores)} scores, but the candidates have {'more' if start > len(scores) else start}"
            " documents; they belong to other candidates, score these again"
        )
    return {
        "queries": len(sizes),
        "positives": positive,
        "negatives": sum(sizes),
        "negatives_per_query": spread(sizes),
        "relabelled": relabelled,
        "left_out": {"without_positive": without},
        "dropped": dropped.summary(),
    }


class Pools:
    """The pools of a file, memory-mapped: `pools[i]` and iteration."""

    def __init__(self, file: Path):
        self._rows = Rows(file, _SCHEMA)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Pool:
        return _unpacked(self._rows[index])

    def __iter__(self) -> Iterator[Pool]:
        return map(_unpacked, self._rows)

    def __reduce__(self):
        # The map is opened anew by the process that receives this, not copied to it.
        return Pools, (self._rows.file,)


def write_pools(file: str | Path, rows: Iterable[Pool]) -> None:
    """Write the file that read_pools reads; equal pools make equal bytes."""
    write_rows(Path(file), _SCHEMA, map(vars, rows))


def read_pools(file: str | Path) -> Pools:
    """The pools in a file; ArtifactError where it is missing or holds something else."""
    return Pools(Path(file))


def _check(row: QueryCandidates, scores: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        document = row.documents[int(wrong[0])]
        raise DataError(
            f"the teacher's score of query {row.query!r} and document {document!r} is {scores[wrong[0]]}, no number; "
            "score again, in fp32 if it was done in less"
        )


def _divide(
    row: QueryCandidates, scores: np.ndarray, denoising: Denoising, lost: Counter
) -> tuple[list[int], np.ndarray]:
    """Places of the positives and of the negatives among the row's documents."""
    labelled, others = list(range(row.positives)), np.arange(row.positives, len(row.documents))
    if denoising.relabel == "always":
        # argmax takes the first of equal scores: a judged positive before the others, then the better rank.
        best = int(scores.argmax())
        lost["set_aside"] += sum(place != best for place in labelled)
        return [best], others[others != best]
    if denoising.worst_positive_rank is not None:
        believed = [p for p in labelled if (scores[others] > scores[p]).sum() < denoising.worst_positive_rank]
        lost["label_error"] += len(labelled) - len(believed)
        labelled = believed
    if not labelled and denoising.relabel == "unjudged":
        open_ = [place for place in others.tolist() if row.grades[place] == _UNJUDGED]
        if open_:
            labelled = [open_[int(scores[open_].argmax())]]
            others = others[others != labelled[0]]
    return labelled, others


def _outside_margin(
    scores: np.ndarray, positives: list[int], negatives: np.ndarray, denoising: Denoising, lost: Counter
) -> np.ndarray:
    exact = scores.astype(np.float64)
    level = exact[positives].max() if denoising.against == "best" else exact[positives].min()
    kept = negatives[exact[negatives] < level - denoising.margin]
    lost["false_negative"] += len(negatives) - len(kept)
    return kept


def _pool(row: QueryCandidates, scores: np.ndarray, positives: list[int], negatives: np.ndarray) -> Pool:
    return Pool(
        row.query,
        tuple(row.documents[i] for i in positives),
        tuple(scores[positives].tolist()),
        tuple(row.documents[i] for i in negatives),
        tuple(scores[negatives].tolist()),
        tuple(row.ranks[i] for i in negatives),
    )


def _unpacked(row: dict[str, Any]) -> Pool:
    return Pool(row["query"], *(tuple(row[name]) for name in _SCHEMA.names[1:]))
