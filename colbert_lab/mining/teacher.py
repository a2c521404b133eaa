"""Teachers: what says how relevant a document is to a query. `scored.py` has one score many pairs."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch

from colbert_lab.artifact import hash_json
from colbert_lab.errors import DataError
from colbert_lab.mining.pairs import Pairs
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import Encoder, encode
from colbert_lab.models.precision import Precision, resolve_precision
from colbert_lab.progress import Progress
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run
from colbert_lab.scoring.maxsim import Similarity, maxsim_paired
from colbert_lab.search.bm25 import Bm25
from colbert_lab.search.rerank import Scores

# Padded vectors of a batch of pairs, in elements: 2**24 are 64 MB in fp32.
_PAIR_ELEMENTS = 2**24


class Unscored(DataError):
    """Pairs that a teacher's file has no score for: `missing` of `asked`, `first` the first (query id, document id)."""

    def __init__(self, missing: int, asked: int, first: tuple[str, str]):
        super().__init__(
            f"the teacher's file has no score for {missing} of {asked} pairs; the first is query {first[0]!r}, "
            f"document {first[1]!r}\ntry: candidates that the file was made for, or fewer of them"
        )
        self.missing, self.first = missing, first


class Teacher(Protocol):
    """What scores pairs; `key` names it by content: everything but the texts that its scores depend on.

    `instant` says that asking is cheaper than remembering: such a teacher may go by ids and is never cached.
    """

    key: str
    instant: bool

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """Scores float32 [P], and how many of the model's inputs were cut to its length; moves the bar by P."""


class CrossEncoderTeacher:
    """The logits of a cross-encoder; `cut` counts pairs. `digest` names the model's content."""

    instant = False

    def __init__(self, model: CrossEncoder, digest: str, precision: Precision = "auto", batch_tokens: int = 8192):
        self.model, self.precision, self.batch_tokens = model, precision, batch_tokens
        self.key = _key("cross_encoder", digest, precision, model.device, max_length=model.max_length)

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """See Teacher."""
        return score_pairs(self.model, pairs.queries, pairs.documents, self.precision, self.batch_tokens, bar)


class MaxSimTeacher:
    """MaxSim of a late-interaction model (or the cosine of a single-vector one); `cut` counts distinct texts."""

    instant = False

    def __init__(self, model: Encoder, digest: str, precision: Precision = "auto", batch_tokens: int = 8192):
        self.model, self.precision, self.batch_tokens = model, precision, batch_tokens
        contract = model.tokenizer.contract.as_dict()
        self.key = _key("maxsim", digest, precision, model.device, contract=contract, similarity=model.similarity)

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """See Teacher; each distinct text is encoded once."""
        rows, encoded = [], []
        for texts, role in ((pairs.queries, "query"), (pairs.documents, "document")):
            numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            rows.append(np.array([numbers[text] for text in texts], dtype=np.int64))
            encoded.append(encode(self.model, list(numbers), role, self.precision, self.batch_tokens))
        queries, documents = (e.embeddings for e in encoded)
        scores = _maxsim(queries, documents, *rows, self.model.similarity, self.model.device, bar)
        return scores, sum(e.cut_texts for e in encoded)


class IndexTeacher:
    """MaxSim of a model's queries with the document vectors that its index holds: nothing is encoded but the queries.

    `documents` scores documents by id, as an index does; `digest` names the index; `cut` counts distinct queries.
    """

    instant = True

    def __init__(
        self,
        model: Encoder,
        documents: Scores,
        digest: str,
        precision: Precision = "auto",
        batch_tokens: int = 8192,
    ):
        self.model, self.documents = model, documents
        self.precision, self.batch_tokens = precision, batch_tokens
        self.key = _key("index", digest, precision, model.device)

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """See Teacher; DataError for a document that is not in the index."""
        rows = _by_query(pairs)
        encoded = encode(self.model, list(rows), "query", self.precision, self.batch_tokens)
        scores = np.empty(len(pairs), dtype=np.float32)
        for number, asked in enumerate(rows.values()):
            query = encoded.embeddings[number : number + 1].to("cpu", torch.float32)
            scores[asked] = self.documents(query, [pairs.document_ids[row] for row in asked])[0]
            if bar is not None:
                bar.advance(len(asked))
        return scores, encoded.cut_texts


class Bm25Teacher:
    """BM25's scores of a query's text for documents by id, as they stand in its index; 0 where no word is shared.

    `digest` names the content of the corpus and BM25's settings.
    """

    instant = True

    def __init__(self, bm25: Bm25, digest: str):
        self.bm25 = bm25
        self.key = hash_json({"teacher": "bm25", "digest": digest})

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """See Teacher; DataError for a document that is not in the index."""
        rows = _by_query(pairs)
        scores = np.empty(len(pairs), dtype=np.float32)
        for query, asked in rows.items():
            scores[asked] = self.bm25.score(query, [pairs.document_ids[row] for row in asked])
            if bar is not None:
                bar.advance(len(asked))
        return scores, 0


class FileTeacher:
    """Scores that a run holds, by the ids of query and document; `digest` names its content."""

    instant = True

    def __init__(self, run: Run, digest: str):
        self.run = run
        self.key = hash_json({"teacher": "file", "digest": digest})

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """See Teacher; Unscored for pairs that the run does not hold."""
        known = {query: dict(self.run[query]) for query in set(pairs.query_ids) if query in self.run}
        found = [known.get(q, {}).get(d) for q, d in zip(pairs.query_ids, pairs.document_ids)]
        missing = [row for row, score in enumerate(found) if score is None]
        if missing:
            first = pairs.query_ids[missing[0]], pairs.document_ids[missing[0]]
            raise Unscored(len(missing), len(pairs), first)
        if bar is not None:
            bar.advance(len(found))
        return np.array(found, dtype=np.float32), 0


def _by_query(pairs: Pairs) -> dict[str, list[int]]:
    """The numbers of the pairs of each query's text."""
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(pairs.queries):
        rows.setdefault(query, []).append(row)
    return rows


def _maxsim(
    queries: Ragged,
    documents: Ragged,
    query_rows: np.ndarray,
    document_rows: np.ndarray,
    similarity: Similarity,
    device: torch.device,
    bar: Progress | None,
) -> np.ndarray:
    """Scores [P] of query query_rows[i] for document document_rows[i], in batches of documents of similar length."""
    scores = np.empty(len(query_rows), dtype=np.float32)
    sizes = documents.lengths.numpy()[document_rows]
    widest = max(queries.dim, int(queries.lengths.max())) if len(queries) else 1
    order = np.argsort(-sizes, kind="stable")
    first = 0
    while first < len(order):
        rows = order[first : first + max(1, _PAIR_ELEMENTS // (max(1, int(sizes[order[first]])) * widest))]
        q, q_mask = queries.select(query_rows[rows]).to(device).pad()
        d, d_mask = documents.select(document_rows[rows]).to(device).pad()
        scores[rows] = maxsim_paired(q, d, q_mask, d_mask, similarity).cpu().numpy()
        first += len(rows)
        if bar is not None:
            bar.advance(len(rows))
    return scores


def _key(kind: str, digest: str, precision: Precision, device: torch.device, **facts: object) -> str:
    resolved = resolve_precision(precision, device)
    content: Mapping[str, object] = {"teacher": kind, "digest": digest, "precision": resolved, **facts}
    return hash_json(content)
