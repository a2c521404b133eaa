"""Teachers: what says how relevant a document is to a query, and the scoring of many pairs with one.

    scores, facts = score_candidates(pairs, teacher, cache)

A teacher that is a model scores each distinct pair of texts once ever; the rest is read from the cache. Which pairs go
through the model together depends on the whole list and on what was known before, never on where an earlier attempt
was killed: begun again, scoring gives the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch

from colbert_lab.artifact import hash_json
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.score_cache import ScoreCache, pair_keys
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import Encoder, encode
from colbert_lab.models.precision import Precision, resolve_precision
from colbert_lab.progress import Progress
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run
from colbert_lab.scoring.kernels import maxsim_packed
from colbert_lab.scoring.maxsim import Similarity, maxsim_paired
from colbert_lab.search.bm25 import Bm25

Normalise = Literal["none", "z_score", "min_max"]
# Padded vectors of a batch of pairs, in elements: 2**24 are 64 MB in fp32.
_PAIR_ELEMENTS = 2**24


@dataclass(frozen=True)
class Pairs:
    """P pairs of a query and a document: their ids and their texts, all of length P."""

    query_ids: Sequence[str]
    document_ids: Sequence[str]
    queries: Sequence[str]
    documents: Sequence[str]

    def __post_init__(self):
        counts = [len(c) for c in (self.query_ids, self.document_ids, self.queries, self.documents)]
        if len(set(counts)) > 1:
            names = "query ids, document ids, query texts and document texts"
            raise DataError(f"there are {counts} {names}; pairs need as many of each")

    def __len__(self) -> int:
        return len(self.query_ids)

    def select(self, rows: Sequence[int]) -> "Pairs":
        """The pairs with these numbers, in this order."""
        columns = (self.query_ids, self.document_ids, self.queries, self.documents)
        return Pairs(*([column[row] for row in rows] for column in columns))


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

    `embeddings(ids)` gives the vectors of documents; `digest` names the index; `cut` counts distinct queries.
    """

    instant = True

    def __init__(
        self,
        model: Encoder,
        embeddings: Callable[[Sequence[str]], Ragged],
        digest: str,
        precision: Precision = "auto",
        batch_tokens: int = 8192,
    ):
        self.model, self.embeddings = model, embeddings
        self.precision, self.batch_tokens = precision, batch_tokens
        self.key = _key("index", digest, precision, model.device)

    def score(self, pairs: Pairs, bar: Progress | None = None) -> tuple[np.ndarray, int]:
        """See Teacher; DataError for a document that is not in the index."""
        rows = _by_query(pairs)
        encoded = encode(self.model, list(rows), "query", self.precision, self.batch_tokens)
        scores = np.empty(len(pairs), dtype=np.float32)
        for number, asked in enumerate(rows.values()):
            documents = self.embeddings([pairs.document_ids[row] for row in asked])
            query = encoded.embeddings[number : number + 1].to("cpu", torch.float32)
            scores[asked] = maxsim_packed(query, documents, self.model.similarity)[0].numpy()
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
        """See Teacher; DataError, with their count and the first, for pairs that the run does not hold."""
        known = {query: dict(self.run[query]) for query in set(pairs.query_ids) if query in self.run}
        found = [known.get(q, {}).get(d) for q, d in zip(pairs.query_ids, pairs.document_ids)]
        missing = [row for row, score in enumerate(found) if score is None]
        if missing:
            query, document = pairs.query_ids[missing[0]], pairs.document_ids[missing[0]]
            raise DataError(
                f"the teacher's file has no score for {len(missing)} of {len(pairs)} pairs; the first is query "
                f"{query!r}, document {document!r}\ntry: candidates that the file was made for, or fewer of them"
            )
        if bar is not None:
            bar.advance(len(found))
        return np.array(found, dtype=np.float32), 0


def score_candidates(
    pairs: Pairs, teacher: Teacher, cache: ScoreCache | None, chunk: int = 4096, bar: Progress | None = None
) -> tuple[np.ndarray, dict[str, int]]:
    """Score pairs in whatever order they come: float32 [P], and how many distinct ones were scored, and were cached.

    The distinct pairs are put in the order of their lengths, longest first, and cut into chunks; what is not known of
    a chunk is scored and committed to the cache (None: kept nowhere) before the next. "repeated" counts pairs of
    texts that came up again, "cut" what the teacher had to cut. An instant teacher is asked once for the list as it
    is, and the cache is left alone. DataError where a teacher gives anything but a number for every pair.
    """
    if teacher.instant:
        scores, cut = _asked(teacher, pairs, bar)
        return scores, {"scored": len(pairs), "cached": 0, "repeated": 0, "cut": cut}
    keys = pair_keys(teacher.key, pairs.queries, pairs.documents)
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    # Equal lengths stay in the order of their keys, so that the order in which pairs are given plays no part.
    lengths = np.array([len(pairs.queries[row]) + len(pairs.documents[row]) for row in first], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    scores, known = np.empty(len(distinct), dtype=np.float32), np.zeros(len(distinct), dtype=bool)
    if cache is not None:
        scores, known = cache.lookup(distinct)
    facts = {
        "scored": int((~known).sum()),
        "cached": int(known.sum()),
        "repeated": len(pairs) - len(distinct),
        "cut": 0,
    }
    if bar is not None:
        bar.advance(len(pairs) - facts["scored"])
    for start in range(0, len(order), chunk):
        rows = order[start : start + chunk]
        rows = rows[~known[rows]]
        if not len(rows):
            continue
        scores[rows], cut = _asked(teacher, pairs.select(first[rows]), bar)
        facts["cut"] += cut
        if cache is not None:
            cache.add(distinct[rows], scores[rows])
    return scores[inverse], facts


def combine(
    scores: Sequence[np.ndarray],
    offsets: Sequence[int] | np.ndarray,
    normalise: Normalise = "none",
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """The ensemble of teachers: the weighted mean (by default equal weights) of their scores, float32 [P].

    `scores` holds one array [P] a teacher; query q has the pairs offsets[q] to offsets[q + 1]. "z_score" takes off a
    query's mean and divides by its (population) deviation, "min_max" maps its scores to 0 .. 1; where all of a query's
    scores are equal they become 0. ConfigError for wrong weights, DataError for scores that do not fit together.
    """
    offsets = np.asarray(offsets, dtype=np.int64)
    weights = [1.0] * len(scores) if weights is None else list(weights)
    problems = []
    if normalise not in get_args(Normalise):
        problems.append(f"normalise is {normalise!r}, it can be {', '.join(get_args(Normalise))}")
    if len(weights) != len(scores) or not all(0 <= w < np.inf for w in weights) or not sum(weights) > 0:
        problems.append(f"weights are {weights}, there must be one for each of {len(scores)} teachers, not all 0")
    if problems:
        raise ConfigError(problems, "the ensemble")
    count = int(offsets[-1]) if len(offsets) else 0
    if not len(offsets) or offsets[0] or (np.diff(offsets) < 0).any() or any(len(s) != count for s in scores):
        raise DataError(f"queries own {count} pairs, but there are {[len(s) for s in scores]} scores")
    if not all(np.isfinite(s).all() for s in scores):
        raise DataError("a teacher's score is not a finite number")
    total = np.zeros(count)
    for part, weight in zip(scores, weights):
        total += weight * _normalised(np.asarray(part, dtype=np.float64), offsets, normalise)
    return (total / sum(weights)).astype(np.float32)


def _normalised(scores: np.ndarray, offsets: np.ndarray, normalise: Normalise) -> np.ndarray:
    lengths = np.diff(offsets)
    # reduceat would take an empty segment for one of length 1.
    starts, lengths = offsets[:-1][lengths > 0], lengths[lengths > 0]
    if normalise == "none" or not len(starts):
        return scores
    least, most = np.minimum.reduceat(scores, starts), np.maximum.reduceat(scores, starts)
    if normalise == "min_max":
        centre, scale = least, most - least
    else:
        centre = np.add.reduceat(scores, starts) / lengths
        scale = np.sqrt(np.add.reduceat((scores - centre.repeat(lengths)) ** 2, starts) / lengths)
    # By the extremes: the deviation of equal scores is not quite 0 where their mean was rounded.
    constant = (least == most).repeat(lengths)
    scale = np.where(constant, 1.0, scale.repeat(lengths))
    return np.where(constant, 0.0, (scores - centre.repeat(lengths)) / scale)


def _asked(teacher: Teacher, pairs: Pairs, bar: Progress | None) -> tuple[np.ndarray, int]:
    scores, cut = teacher.score(pairs, bar)
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise DataError(f"the teacher gave {len(scores)} scores, {bad} of them not finite, for {len(pairs)} pairs")
    return scores.astype(np.float32, copy=False), cut


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
