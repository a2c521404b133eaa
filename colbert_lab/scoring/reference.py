"""MaxSim as three plain loops: slow, obvious, and what every other scorer is held to."""

from torch import Tensor

from colbert_lab.scoring.maxsim import EMPTY, Similarity


def maxsim_loop(query: Tensor, document: Tensor, similarity: Similarity = "cosine") -> float:
    """The score of one query [m, d] and one document [n, d], in Python floats.

    Sum over the query's vectors of the largest similarity to any document vector: the dot product, or minus the
    squared Euclidean distance. A document without vectors gives EMPTY for every query vector.
    """
    total = 0.0
    for q in query.double().tolist():
        best = EMPTY
        for d in document.double().tolist():
            if similarity == "cosine":
                value = sum(a * b for a, b in zip(q, d, strict=True))
            else:
                value = -sum((a - b) ** 2 for a, b in zip(q, d, strict=True))
            best = max(best, value)
        total += best
    return total
