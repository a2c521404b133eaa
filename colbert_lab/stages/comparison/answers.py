"""Systems of a comparison as they answer one query: what is timed part by part, and whose operations are counted.

encode      the query to vectors
search      an index finds documents
interact    documents of an earlier stage are scored anew, or two results become one

Each system answers with what its run holds: a first stage searches as deep as the run that is re-ranked was searched,
since an index whose probes depend on k would be another, cheaper system at a re-ranker's k.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import DictConfig

from colbert_lab.data.collection import Collection
from colbert_lab.evaluation.fidelity import Staged
from colbert_lab.evaluation.flops import (
    cross_encoder_flops,
    interaction_flops,
    late_interaction_flops,
    shape_of,
    single_vector_flops,
)
from colbert_lab.evaluation.latency import Part
from colbert_lab.models.cross_encoder import CrossEncoder as PairModel
from colbert_lab.models.cross_encoder import score_pairs
from colbert_lab.models.encoding import Encoder, encode
from colbert_lab.models.precision import best_device
from colbert_lab.models.single_vector import SingleVector as BiEncoder
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run, rank
from colbert_lab.search.fusion import reciprocal_rank
from colbert_lab.search.rerank import Scores, gathered, rerank
from colbert_lab.stages.comparison.kinds import CrossEncoder, Fusion, GivenRun, Rerank
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.index import open_index, passages_of
from colbert_lab.stages.reading import Cutting, load_encoder
from colbert_lab.stages.search import query_encoding

_QUERY = "query"
# Documents tokenised at once.
_CHUNK = 1024
# A part whose time is of no interest.
untimed: Part = nullcontext


class Answer(Protocol):
    """A system that answers one query."""

    def __call__(self, query: str, text: str, part: Part) -> Hits:
        """All documents that the system's run has for this query."""

    def scored(self, query: str, text: str) -> int | None:
        """Operations of compiled kernels in a call, which torch's counter does not see; None where they are unknown."""

    def analytic(self, query: str, text: str) -> int | None:
        """Operations of a call by formula, without padding; None where they are unknown."""


def answer_of(cfg: DictConfig, collection: Collection, made: Made, queries: Sequence[str]) -> Answer:
    """The system, ready to answer; `queries` are those that it will be asked."""
    below = [answer_of(cfg, collection, one, queries) for one in made.sources]
    system = made.system
    if isinstance(system, GivenRun):
        return _Known(made.runs[0].run)
    if isinstance(system, Fusion):
        return _Fused(below, system.rrf_k, made.runs[0].run.depth)
    if isinstance(system, CrossEncoder):
        return _CrossEncoded(below[0], PairModel.load(made.teacher.path).to(best_device()), collection, system.k, cfg)
    if isinstance(system, Rerank):
        encoder = load_encoder(made.model)
        if made.store is not None:
            index = open_index(made.store)
            embeddings, scores = index.embeddings, index.scores
        else:
            embeddings = _stand_ins(cfg, collection, encoder, made.sources[0].runs[0].run.cut(system.k), queries)
            scores = gathered(embeddings, encoder.similarity)
        return _Reranked(below[0], encoder, embeddings, scores, system.k, cfg)
    encoder = None if made.model is None else load_encoder(made.model)
    return _Searched(open_index(made.index), encoder, made.probe, cfg)


class _Searched:
    """An index that is searched by texts (encoder None) or by their vectors."""

    def __init__(self, index: Any, encoder: Encoder | None, probe: Any, cfg: DictConfig):
        self.index, self.encoder, self.probe = index, encoder, probe
        self.encoding = query_encoding(cfg)
        self.k, self.drop_self = cfg.search.k, bool(cfg.search.drop_self)
        self._met: dict[str, int | None] = {}

    def __call__(self, query: str, text: str, part: Part) -> Hits:
        given: Any = [text]
        if self.encoder is not None:
            with part("encode"):
                given = _encoded(self.encoder, text, self.encoding)
        with part("search"):
            hits = self.index.search([query], given, self.k + self.drop_self, probe=self.probe)[query]
            return (hits.without({query}) if self.drop_self else hits).cut(self.k)

    def scored(self, query: str, text: str) -> int | None:
        if self.encoder is None:
            return 0  # stored weights are added up, nothing is multiplied
        vectors = _encoded(self.encoder, text, self.encoding)
        multiplied = self._multiplied(query, vectors)
        count = 1 if self._one_vector() else len(vectors.values)
        return None if multiplied is None else interaction_flops(count, multiplied, vectors.dim)

    def analytic(self, query: str, text: str) -> int | None:
        if self.encoder is None:
            return 0
        vectors = _encoded(self.encoder, text, self.encoding)
        multiplied = self._multiplied(query, vectors)
        if multiplied is None:
            return None
        if isinstance(self.encoder, BiEncoder):
            return single_vector_flops(multiplied, _length(self.encoder, text), *shape_of(self.encoder.backbone))
        return _late(self.encoder, text, multiplied, 1 if self._one_vector() else len(vectors.values))

    def _one_vector(self) -> bool:
        """Whether one vector stands for the query: the bi-encoder's own, or a late-interaction model's pooled."""
        return isinstance(self.encoder, BiEncoder) or self.index.stats().get("pooling") is not None

    def _multiplied(self, query: str, vectors: Ragged) -> int | None:
        """How many vectors the query's are multiplied with: documents' and centroids'; None where it is not told."""
        if query not in self._met:
            self._met[query] = self._count_multiplied(vectors)
        return self._met[query]

    def _count_multiplied(self, vectors: Ragged) -> int | None:
        stats = self.index.stats()
        lists = stats.get("centroids", stats.get("partitions", 0))
        if lists and "passages" in stats:
            return None  # which passages reached the last stage
        if self._one_vector() or not isinstance(self.index, Staged):
            return stats["vectors"] + (0 if self._one_vector() else lists)
        # Seconds a query: every stage tells all that it scored.
        stages = list(self.index.stages(vectors.values, self.k + self.drop_self, probe=self.probe).values())
        # What the last stage chose from had its vectors scored.
        return lists + int(self.index.embeddings(stages[-2]).lengths.sum())


class _Reranked:
    """The best k of another system's by MaxSim."""

    def __init__(
        self,
        below: Answer,
        encoder: Encoder,
        embeddings: Callable[[Sequence[str]], Ragged],
        scores: Scores,
        k: int,
        cfg: DictConfig,
    ):
        self.below, self.encoder, self.embeddings, self.scores, self.k = below, encoder, embeddings, scores, k
        self.encoding = query_encoding(cfg)

    def __call__(self, query: str, text: str, part: Part) -> Hits:
        hits = self.below(query, text, part).cut(self.k)
        with part("encode"):
            vectors = _encoded(self.encoder, text, self.encoding)
        with part("interact"):
            return rerank(Run({query: hits}), vectors, self.scores, self.k)[query]

    def scored(self, query: str, text: str) -> int | None:
        vectors = _encoded(self.encoder, text, self.encoding)
        own = interaction_flops(len(vectors.values), self._multiplied(query, text), vectors.dim)
        return _sum(self.below.scored(query, text), own)

    def analytic(self, query: str, text: str) -> int | None:
        # The stage below has its own formula in place of what was counted as its kernels'.
        count = len(_encoded(self.encoder, text, self.encoding).values)
        return _sum(self.below.analytic(query, text), _late(self.encoder, text, self._multiplied(query, text), count))

    def _multiplied(self, query: str, text: str) -> int:
        """The vectors of all documents that are re-ranked."""
        ids = self.below(query, text, untimed).ids[: self.k]
        return int(self.embeddings(ids).lengths.sum()) if ids else 0


class _CrossEncoded:
    """The best k of another system's, each read together with the query."""

    def __init__(self, below: Answer, model: PairModel, collection: Collection, k: int, cfg: DictConfig):
        self.below, self.model, self.corpus, self.k = below, model, collection.corpus, k
        self.encoding = query_encoding(cfg)

    def __call__(self, query: str, text: str, part: Part) -> Hits:
        hits = self.below(query, text, part).cut(self.k)
        with part("interact"):
            scores, _ = score_pairs(self.model, [text] * len(hits), self.corpus.get(list(hits.ids)), **self.encoding)
            return rank(hits.ids, scores)

    def scored(self, query: str, text: str) -> int | None:
        return self.below.scored(query, text)

    def analytic(self, query: str, text: str) -> int | None:
        ids = list(self.below(query, text, untimed).ids[: self.k])
        lengths = self.model.tokenize([text] * len(ids), self.corpus.get(ids)).lengths if ids else []
        shape = shape_of(self.model.model)
        return _sum(self.below.analytic(query, text), *(cross_encoder_flops(1, n, *shape) for n in lengths))


class _Fused:
    """Several systems' results by reciprocal rank, one asked after the other."""

    def __init__(self, below: Sequence[Answer], rrf_k: int, depth: int):
        self.below, self.rrf_k, self.depth = below, rrf_k, depth

    def __call__(self, query: str, text: str, part: Part) -> Hits:
        found = [one(query, text, part) for one in self.below]
        with part("interact"):
            return reciprocal_rank([Run({query: hits}) for hits in found], self.rrf_k, self.depth)[query]

    def scored(self, query: str, text: str) -> int | None:
        return _sum(*(one.scored(query, text) for one in self.below))

    def analytic(self, query: str, text: str) -> int | None:
        return _sum(*(one.analytic(query, text) for one in self.below))


class _Known:
    """A given run: what it took to find is not known, and is not in anybody's times."""

    def __init__(self, run: Run):
        self.run = run

    def __call__(self, query: str, text: str, part: Part) -> Hits:
        return self.run[query] if query in self.run else Hits((), np.empty(0))

    def scored(self, query: str, text: str) -> int | None:
        return 0

    def analytic(self, query: str, text: str) -> int | None:
        return 0


def _sum(*operations: int | None) -> int | None:
    """Their sum; None where one is unknown."""
    return None if None in operations else sum(operations)


def _encoded(encoder: Encoder, text: str, options: dict[str, Any]) -> Ragged:
    return encode(encoder, [text], _QUERY, **options).embeddings


def _late(encoder: Encoder, text: str, document_vectors: int, query_vectors: int) -> int:
    return late_interaction_flops(
        _length(encoder, text),
        document_vectors,
        encoder.dim,
        *shape_of(encoder.backbone),
        query_vectors=query_vectors,
        projected=encoder.projection is not None,
    )


def _length(encoder: Encoder, text: str) -> int:
    """Ids of a query, special ones included."""
    return encoder.tokenizer.encode([text], _QUERY).lengths[0]


def _stand_ins(
    cfg: DictConfig, collection: Collection, encoder: Encoder, candidates: Run, queries: Sequence[str]
) -> Callable[[Sequence[str]], Ragged]:
    """Vectors of as many rows as the documents of these queries have, of noise: time depends on no value of theirs.

    They were encoded for the run, which takes far longer than a measurement shall, and are kept nowhere.
    """
    passages = passages_of(cfg)
    cutting = None if passages is None else Cutting(passages, encoder)
    lengths: dict[str, int] = {}

    def measure(ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _CHUNK):
            some = ids[start : start + _CHUNK]
            texts, counts = collection.corpus.get(some), np.ones(len(some), dtype=np.int64)
            if cutting is not None:
                split = cutting.passages.split(texts, encoder.tokenizer)
                texts, counts = split.texts, np.asarray(split.counts)
            tokens = encoder.tokenizer.encode(texts, "document")
            scored = []
            for row in range(len(texts)):
                batch = encoder.tokenizer.batch(tokens.select([row]), "document")
                scored.append(int(encoder.scored(batch.to(encoder.device)).sum()))
            sums = np.add.reduceat(scored, np.concatenate([[0], np.cumsum(counts)[:-1]]))
            lengths.update(zip(some, sums.tolist(), strict=True))

    measure(sorted({document for query in queries if query in candidates for document in candidates[query].ids}))
    pool = _noise(max(lengths.values(), default=1), encoder.dim)

    def embeddings(some: Sequence[str]) -> Ragged:
        nonlocal pool
        # An approximate first stage need not find one query alone what it found among all.
        if unknown := [document for document in some if document not in lengths]:
            measure(unknown)
            if (longest := max(lengths.values())) > len(pool):
                pool = _noise(longest, encoder.dim)
        return Ragged.from_list([pool[: lengths[document]] for document in some])

    return embeddings


def _noise(rows: int, dim: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(0)))
