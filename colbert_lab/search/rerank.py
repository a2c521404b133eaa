"""Re-ranking: the documents of a run scored anew by MaxSim, with no index needed."""

from collections.abc import Callable, Sequence

from colbert_lab.errors import DataError
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run, rank
from colbert_lab.scoring.kernels import maxsim_packed
from colbert_lab.scoring.maxsim import Similarity


def rerank(
    run: Run,
    queries: Ragged,
    embeddings: Callable[[Sequence[str]], Ragged],
    k: int,
    similarity: Similarity = "cosine",
) -> Run:
    """Re-order the best k of every query by MaxSim; documents beyond k are left out.

    `queries` holds the run's queries in the run's order; `embeddings(ids)` returns the documents' embeddings, from an
    index or freshly encoded. Equal scores by id. DataError where run and queries do not match in number.
    """
    if len(queries) != len(run):
        raise DataError(f"the run has {len(run)} queries, but embeddings of {len(queries)} were given")
    hits = {}
    for position, (query, found) in enumerate(run.items()):
        ids = found.ids[:k]
        scores = maxsim_packed(queries[position : position + 1], embeddings(ids), similarity)[0].numpy() if ids else []
        hits[query] = rank(ids, scores)
    return Run(hits, min(k, run.depth))
