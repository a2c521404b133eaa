"""Systems of a comparison as they answer one query: what is timed part by part, and whose operations are counted.

encode      the query to vectors
search      an index finds documents
interact    documents of an earlier stage are scored anew, or two results become one
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
    query_flops,
    transformer_flops,
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
from colbert_lab.search.rerank import rerank
from colbert_lab.stages.comparison.kinds import CrossEncoder, Fusion, GivenRun, Rerank
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.index import Cutting, load_encoder, open_index, passages_of
from colbert_lab.stages.search import query_encoding

_QUERY = "query"
# Documents tokenised at once.
_CHUNK = 1024
# A part whose time is of no interest.
untimed: Part = nullcontext


class Answer(Protocol):
    """A system that answers one query."""

    def __call__(self, query: str, text: str, k: int, part: Part) -> Hits:
        """The best k documents, or as many as the system gives."""

    def scored(self, query: str, text: str, k: int) -> int:
        """Operations of compiled kernels in a call, which torch's counter does not see."""

    def analytic(self, query: str, text: str, k: int) -> int:
        """Operations of a call by formula, without padding."""


def answer_of(cfg: DictConfig, collection: Collection, made: Made, queries: Sequence[str]) -> Answer:
    """The system, ready to answer; `queries` are those that it will be asked."""
    below = [answer_of(cfg, collection, one, queries) for one in made.sources]
    system = made.system
    if isinstance(system, GivenRun):
        return _Known(made.runs[0].run)
    if isinstance(system, Fusion):
        return _Fused(below, system.rrf_k)
    if isinstance(system, CrossEncoder):
        return _CrossEncoded(below[0], PairModel.load(made.teacher.path).to(best_device()), collection, system.k, cfg)
    if isinstance(system, Rerank):
        encoder = load_encoder(made.model)
        if made.store is not None:
            embeddings = open_index(made.store).embeddings
        else:
            embeddings = _stand_ins(cfg, collection, encoder, made.sources[0].runs[0].run.cut(system.k), queries)
        return _Reranked(below[0], encoder, embeddings, system.k, cfg)
    encoder = None if made.model is None else load_encoder(made.model)
    return _Searched(open_index(made.index), encoder, made.probe, cfg)


class _Searched:
    """An index that is searched by texts (encoder None) or by their vectors."""

    def __init__(self, index: Any, encoder: Encoder | None, probe: Any, cfg: DictConfig):
        self.index, self.encoder, self.probe = index, encoder, probe
        self.encoding = query_encoding(cfg)

    def __call__(self, query: str, text: str, k: int, part: Part) -> Hits:
        given: Any = [text]
        if self.encoder is not None:
            with part("encode"):
                given = _encoded(self.encoder, text, self.encoding)
        with part("search"):
            return self.index.search([query], given, k, probe=self.probe)[query]

    def scored(self, query: str, text: str, k: int) -> int:
        if self.encoder is None:
            return 0  # stored weights are added up, nothing is multiplied
        vectors = _encoded(self.encoder, text, self.encoding)
        stats, count = self.index.stats(), len(vectors.values)
        if isinstance(self.encoder, BiEncoder):
            return interaction_flops(1, stats["vectors"], vectors.dim)
        documents = stats["vectors"]
        if isinstance(self.index, Staged):
            stages = list(self.index.stages(vectors.values, k, probe=self.probe).values())
            # What the last stage chose from had its vectors scored.
            documents = int(self.index.embeddings(stages[-2]).lengths.sum())
        lists = stats.get("centroids", stats.get("partitions", 0))
        return interaction_flops(count, documents + lists, vectors.dim)

    def analytic(self, query: str, text: str, k: int) -> int:
        return _query_flops(self.encoder, text) + self.scored(query, text, k)


class _Reranked:
    """The best k of another system's by MaxSim."""

    def __init__(
        self, below: Answer, encoder: Encoder, embeddings: Callable[[Sequence[str]], Ragged], k: int, cfg: DictConfig
    ):
        self.below, self.encoder, self.embeddings, self.k = below, encoder, embeddings, k
        self.encoding = query_encoding(cfg)

    def __call__(self, query: str, text: str, k: int, part: Part) -> Hits:
        hits = self.below(query, text, self.k, part).cut(self.k)
        with part("encode"):
            vectors = _encoded(self.encoder, text, self.encoding)
        with part("interact"):
            return rerank(Run({query: hits}), vectors, self.embeddings, self.k, self.encoder.similarity)[query].cut(k)

    def scored(self, query: str, text: str, k: int) -> int:
        ids = self.below(query, text, self.k, untimed).ids[: self.k]
        vectors = _encoded(self.encoder, text, self.encoding)
        documents = int(self.embeddings(ids).lengths.sum()) if ids else 0
        return self.below.scored(query, text, self.k) + interaction_flops(len(vectors.values), documents, vectors.dim)

    def analytic(self, query: str, text: str, k: int) -> int:
        # The stage below has its own formula in place of what was counted as its kernels'.
        own = self.scored(query, text, k) - self.below.scored(query, text, self.k)
        return self.below.analytic(query, text, self.k) + _query_flops(self.encoder, text) + own


class _CrossEncoded:
    """The best k of another system's, each read together with the query."""

    def __init__(self, below: Answer, model: PairModel, collection: Collection, k: int, cfg: DictConfig):
        self.below, self.model, self.corpus, self.k = below, model, collection.corpus, k
        self.encoding = query_encoding(cfg)

    def __call__(self, query: str, text: str, k: int, part: Part) -> Hits:
        hits = self.below(query, text, self.k, part).cut(self.k)
        with part("interact"):
            scores, _ = score_pairs(self.model, [text] * len(hits), self.corpus.get(list(hits.ids)), **self.encoding)
            return rank(hits.ids, scores).cut(k)

    def scored(self, query: str, text: str, k: int) -> int:
        return self.below.scored(query, text, self.k)

    def analytic(self, query: str, text: str, k: int) -> int:
        ids = list(self.below(query, text, self.k, untimed).ids[: self.k])
        lengths = self.model.tokenize([text] * len(ids), self.corpus.get(ids)).lengths if ids else []
        shape = _shape(self.model.model.config)
        return self.below.analytic(query, text, self.k) + sum(cross_encoder_flops(1, n, *shape) for n in lengths)


class _Fused:
    """Several systems' results by reciprocal rank, one asked after the other."""

    def __init__(self, below: Sequence[Answer], rrf_k: int):
        self.below, self.rrf_k = below, rrf_k

    def __call__(self, query: str, text: str, k: int, part: Part) -> Hits:
        found = [one(query, text, k, part) for one in self.below]
        with part("interact"):
            return reciprocal_rank([Run({query: hits}) for hits in found], self.rrf_k, k)[query]

    def scored(self, query: str, text: str, k: int) -> int:
        return sum(one.scored(query, text, k) for one in self.below)

    def analytic(self, query: str, text: str, k: int) -> int:
        return sum(one.analytic(query, text, k) for one in self.below)


class _Known:
    """A given run: what it took to find is not known, and is not in anybody's times."""

    def __init__(self, run: Run):
        self.run = run

    def __call__(self, query: str, text: str, k: int, part: Part) -> Hits:
        return self.run[query].cut(k) if query in self.run else Hits((), np.empty(0))

    def scored(self, query: str, text: str, k: int) -> int:
        return 0

    def analytic(self, query: str, text: str, k: int) -> int:
        return 0


def _encoded(encoder: Encoder, text: str, options: dict[str, Any]) -> Ragged:
    return encode(encoder, [text], _QUERY, **options).embeddings


def _query_flops(encoder: Encoder | None, text: str) -> int:
    if encoder is None:
        return 0
    length = encoder.tokenizer.encode([text], _QUERY).lengths[0]
    shape = _shape(encoder.backbone.config)
    if isinstance(encoder, BiEncoder) or encoder.projection is None:
        return transformer_flops(length, *shape)
    return query_flops(length, encoder.dim, *shape)


def _shape(config: Any) -> tuple[int, int, int | None]:
    """Layers, hidden and inner dimensions of a transformer."""
    inner = next((getattr(config, n) for n in ("intermediate_size", "hidden_dim") if hasattr(config, n)), None)
    return config.num_hidden_layers, config.hidden_size, inner


def _stand_ins(
    cfg: DictConfig, collection: Collection, encoder: Encoder, candidates: Run, queries: Sequence[str]
) -> Callable[[Sequence[str]], Ragged]:
    """Vectors of as many rows as the documents of these queries have, of noise: time depends on no value of theirs.

    They were encoded for the run, which takes far longer than a measurement shall, and are kept nowhere.
    """
    ids = sorted({document for query in queries if query in candidates for document in candidates[query].ids})
    passages = passages_of(cfg)
    cutting = None if passages is None else Cutting(passages, encoder)
    lengths: dict[str, int] = {}
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
    noise = torch.Generator().manual_seed(0)
    pool = torch.nn.functional.normalize(torch.randn(max(lengths.values(), default=1), encoder.dim, generator=noise))

    def embeddings(some: Sequence[str]) -> Ragged:
        return Ragged.from_list([pool[: lengths[document]] for document in some])

    return embeddings
