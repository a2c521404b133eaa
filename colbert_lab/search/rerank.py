"""Re-ranking: the documents of a run scored anew by MaxSim, with no index needed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from colbert_lab.errors import DataError
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run, rank
from colbert_lab.scoring.kernels import maxsim_packed
from colbert_lab.scoring.maxsim import Similarity

# Of queries and documents by id: MaxSim, fp32 [B, n].
Scores = Callable[[Ragged, Sequence[str]], np.ndarray]


def gathered(embeddings: Callable[[Sequence[str]], Ragged], similarity: Similarity = "cosine") -> Scores:
    """MaxSim with what `embeddings(ids)` returns, which is gathered anew for every call.

    An index scores its documents where they lie (`index.scores`), which takes less.
    """

    def scores(queries: Ragged, ids: Sequence[str]) -> np.ndarray:
        return maxsim_packed(queries, embeddings(ids), similarity).numpy()

    return scores


def rerank(run: Run, queries: Ragged, scores: Scores, k: int) -> Run:
    """Re-order the best k of every query by MaxSim; documents beyond k are left out.

    `queries` holds the run's queries in the run's order; `scores` is an index's, or `gathered` of embeddings. Equal
    scores by id. DataError where run and queries do not match in number.
    """
    if len(queries) != len(run):
        raise DataError(f"the run has {len(run)} queries, but embeddings of {len(queries)} were given")
    hits = {}
    for position, (query, found) in enumerate(run.items()):
        ids = found.ids[:k]
        hits[query] = rank(ids, scores(queries[position : position + 1], ids)[0] if ids else [])
    return Run(hits, min(k, run.depth))


def rerank_passages(
    run: Run,
    queries: Ragged,
    chunks: Iterable[tuple[Sequence[str], Sequence[int], Ragged]],
    k: int,
    similarity: Similarity = "cosine",
) -> Run:
    """Re-order the best k of every query by the MaxSim of each document's best passage, equal scores by id.

    `chunks` hold the run's documents, each once: their ids, how many passages each has (at least one), and the
    passages' embeddings end to end; one is in memory at a time. DataError where run and queries do not match in number,
    or where a document of the run's best k is in no chunk.
    """
    if len(queries) != len(run):
        raise DataError(f"the run has {len(run)} queries, but embeddings of {len(queries)} were given")
    asking: dict[str, list[int]] = defaultdict(list)
    for position, found in enumerate(run.values()):
        for document in found.ids[:k]:
            asking[document].append(position)
    scored: list[dict[str, float]] = [{} for _ in run]
    for ids, counts, passages in chunks:
        firsts = torch.tensor([0, *counts]).cumsum(0).tolist()
        wanted: dict[int, list[int]] = defaultdict(list)
        for row, document in enumerate(ids):
            for position in asking.get(document, ()):
                wanted[position].append(row)
        for position, rows in wanted.items():
            pieces = passages.select([passage for row in rows for passage in range(firsts[row], firsts[row + 1])])
            scores = maxsim_packed(queries[position : position + 1], pieces, similarity)[0]
            best = [float(part.max()) for part in scores.split([counts[row] for row in rows])]
            scored[position].update(zip((ids[row] for row in rows), best, strict=True))
    hits = {}
    for (query, found), scores in zip(run.items(), scored, strict=True):
        missing = [document for document in found.ids[:k] if document not in scores]
        if missing:
            raise DataError(f"no passages of document {missing[0]!r}, found for query {query!r}, were given")
        hits[query] = rank(list(scores), list(scores.values()))
    return Run(hits, min(k, run.depth))
