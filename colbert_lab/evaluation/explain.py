"""Why a document scored as it did: the similarity matrix of a pair, what each query vector chose, what that brought.

    score = sum over i of  max over j of  S[i, j]      S [m, n]      ColBERT, arXiv 2004.12832, section 3.3

The score is a sum over query positions, so it can be taken apart exactly: among words, [MASK] expansion, marker and
special tokens of the query, and among the document positions that were chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from colbert_lab.errors import DataError
from colbert_lab.scoring.maxsim import EMPTY, Similarity
from colbert_lab.text.positions import Kind, Positions, Word

# Kind of a query position -> its name among the shares.
_SHARES: dict[Kind, str] = {"word": "words", "mask": "mask", "marker": "marker", "special": "special"}


@dataclass(frozen=True)
class Part:
    """A word and what it brought to the score (in a query) or received of it (in a document).

    chose: the document positions that a query word's positions chose, in their order; for a document word, the query
    positions that chose it.
    """

    word: Word
    contribution: float
    chose: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The score of one query and one document, taken apart.

    matrix: [m, n] similarities. best: [m] int64, the document position that each query position chose, the lowest of
    equal ones; -1 where the document has no vector. contributions: [m], what that brought. score: their sum.
    """

    query: Positions
    document: Positions
    matrix: np.ndarray
    best: np.ndarray
    contributions: np.ndarray
    score: float
    similarity: Similarity

    @cached_property
    def shares(self) -> dict[str, float]:
        """The parts of the score that `words`, `mask`, `marker` and `special` positions of the query brought.

        They sum to 1, and are all 0 where the score is. Where contributions differ in sign a share may lie outside 0
        to 1; of a score by distances (l2) they are shares of the whole distance.
        """
        sums = dict.fromkeys(_SHARES.values(), 0.0)
        for kind, value in zip(self.query.kinds, self.contributions.tolist()):
            sums[_SHARES[kind]] += value
        return {name: value / self.score if self.score else 0.0 for name, value in sums.items()}

    @cached_property
    def chosen(self) -> np.ndarray:
        """[n] int64, how many query positions chose each document position."""
        return np.bincount(self.best[self.best >= 0], minlength=len(self.document))

    @cached_property
    def received(self) -> np.ndarray:
        """[n] float64, what of the score each document position received."""
        some = self.best >= 0
        return np.bincount(self.best[some], self.contributions[some].astype(np.float64), len(self.document))

    def share(self, contribution: float) -> float:
        """A contribution as a share of the score; 0 where the score is."""
        return contribution / self.score if self.score else 0.0

    def query_parts(self) -> list[Part]:
        """The query's words with the sums of their pieces' contributions."""
        return [
            Part(word, float(self.contributions[list(at)].sum()), tuple(self.best[list(at)].tolist()))
            for word in self.query.words()
            for at in [word.positions]
        ]

    def document_parts(self) -> list[Part]:
        """The document's words with the sums of what their pieces received."""
        return [
            Part(
                word,
                float(self.received[list(word.positions)].sum()),
                tuple(np.flatnonzero(np.isin(self.best, word.positions)).tolist()),
            )
            for word in self.document.words()
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON values: the matrix with 4 decimals, contributions with 7, which is all that single precision has."""
        return {
            "query_tokens": list(self.query.tokens),
            "document_tokens": list(self.document.tokens),
            "kinds": list(self.query.kinds),
            "document_kinds": list(self.document.kinds),
            "similarity": self.similarity,
            "matrix": [[round(value, 4) for value in row] for row in self.matrix.tolist()],
            "best": self.best.tolist(),
            "contributions": [round(value, 7) for value in self.contributions.tolist()],
            "score": round(self.score, 7),
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
        }


def explain(
    query_vectors: Tensor,
    document_vectors: Tensor,
    query: Positions | Sequence[str],
    document: Positions | Sequence[str],
    similarity: Similarity = "cosine",
) -> Explanation:
    """Take apart the score of a query [m, d] and a document [n, d]: that of `maxsim` for the same vectors.

    `query` and `document` say what the vectors stand for; of plain strings all are taken as words. Similarities and
    their sum are in fp32 (fp64 for fp64 vectors). A document without vectors brings EMPTY for every query position, as
    in scoring. DataError where strings and vectors are not equally many, or dimensions differ.
    """
    query, document = (
        given if isinstance(given, Positions) else Positions.of(list(given)) for given in (query, document)
    )
    _check(query_vectors, document_vectors, query, document, similarity)
    dtype = torch.float64 if query_vectors.dtype == torch.float64 else torch.float32
    q, d = (vectors.detach().cpu().to(dtype) for vectors in (query_vectors, document_vectors))
    matrix = q @ d.T
    if similarity == "l2":
        matrix = 2 * matrix - q.square().sum(1)[:, None] - d.square().sum(1)[None]
    values = matrix.numpy()
    if len(document):
        best = values.argmax(1)
        contributions = values[np.arange(len(query)), best]
    else:
        best, contributions = np.full(len(query), -1), np.full(len(query), EMPTY, values.dtype)
    score = float(torch.from_numpy(contributions).sum())
    return Explanation(query, document, values, best.astype(np.int64), contributions, score, similarity)


def _check(query_vectors: Tensor, document_vectors: Tensor, query: Positions, document: Positions, by: str) -> None:
    for name, vectors, positions in (("query", query_vectors, query), ("document", document_vectors, document)):
        if vectors.dim() != 2 or len(vectors) != len(positions):
            raise DataError(
                f"the {name} has vectors of shape {list(vectors.shape)}, but {len(positions)} tokens: one vector a "
                "token is expected, [tokens, dimensions]"
            )
    if query_vectors.shape[1] != document_vectors.shape[1]:
        raise DataError(
            f"query vectors have {query_vectors.shape[1]} dimensions, document vectors {document_vectors.shape[1]}; "
            "are they of one model?"
        )
    if by not in get_args(Similarity):
        raise DataError(f"similarity is {by!r}, but must be one of {', '.join(get_args(Similarity))}")
