"""What each compiled loop computes, as plainly as can be: the tests hold the fast ones to these."""

import numpy as np

from colbert_lab.index.residual.codes import Codes
from colbert_lab.scoring.maxsim import EMPTY


def quantise(scores: np.ndarray, low: np.ndarray, step: np.float32) -> np.ndarray:
    """Scores [K, m] as bytes [K, m]: steps above low [m], rounded and clipped."""
    return np.clip(np.floor((scores - low) * step + np.float32(0.5)), 0, 255).astype(np.uint8)


def approximate(table: np.ndarray, codes: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> list[int]:
    """For each of rows the sum over query vectors of the largest of its codes' rows in table [K, m]; 0 where empty."""
    documents = [table[codes[offsets[row] : offsets[row + 1]]] for row in rows]
    return [int(document.max(0).astype(int).sum()) if len(document) else 0 for document in documents]


def refine(
    table: np.ndarray, margin: int, query: np.ndarray, codes: Codes, rows: np.ndarray, together: bool = False
) -> list[float]:
    """For each of rows the sum over query [m, d] of its best decoded vector among those near by table [K, m].

    Near is what reaches the document's largest byte for the query vector, less `margin`; `together`, for any query
    vector. EMPTY without any vector.
    """
    totals = []
    for row in rows:
        numbers = codes.codes[codes.offsets[row] : codes.offsets[row + 1]]
        if not len(numbers):
            totals.append(EMPTY * len(query))
            continue
        near = table[numbers].astype(int)
        near = near >= near.max(0) - margin
        products = codes.decode(row).numpy() @ query.T
        near = near.any(1, keepdims=True) if together else near
        totals.append(float(np.where(near, products, -np.inf).max(0).sum()))
    return totals


def lists(codes: np.ndarray, offsets: np.ndarray, centroids: int) -> list[list[int]]:
    """For each centroid the rows with a vector there, ascending and unique."""
    found: list[list[int]] = [[] for _ in range(centroids)]
    for row in range(len(offsets) - 1):
        for code in np.unique(codes[offsets[row] : offsets[row + 1]]):
            found[code].append(row)
    return found


def best_cells(scores: np.ndarray, cells: int, threshold: float) -> list[list[int]]:
    """For each query vector of scores [K, m] its best `cells` centroids, the lowest of equal ones first."""
    order = np.argsort(-scores, axis=0, kind="stable")[:cells].T
    return [
        [int(c) if at == 0 or scores[c, i] >= threshold else -1 for at, c in enumerate(best)]
        for i, best in enumerate(order)
    ]
