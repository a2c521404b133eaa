"""score: a teacher's scores of candidates; a pair is scored once ever, whatever run or round it comes from."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index import disk
from colbert_lab.mining.pairs import Pairs
from colbert_lab.processes import gpus_for, in_order
from colbert_lab.run import Run, rank, read_trec, write_trec
from colbert_lab.stages.index import open_index
from colbert_lab.stages.lexical import bm25_of
from colbert_lab.stages.making import Outcome, input_of, make, plain, say_once
from colbert_lab.stages.options import Score
from colbert_lab.stages.search import query_encoding
from colbert_lab.tracking.tracker import Tracker

# Pairs tokenised at once.
_PAIRS = 4096
TEACHERS = ("cross_encoder", "model", "index", "run", "bm25")


def run(cfg: DictConfig) -> Outcome:
    """Score the candidates at cfg.candidates with the teacher, or teachers, at cfg.teachers."""
    missing = [f"{name} is not given\ntry: {name}=..." for name in ("candidates", "teachers") if cfg[name] is None]
    if missing:
        raise ConfigError(missing, "score")
    candidates = Artifact.open(cfg.candidates, "candidates")
    collection = Collection(input_of(candidates, "collection", cfg.collection))
    places = [cfg.teachers] if isinstance(cfg.teachers, str) else list(cfg.teachers)
    teachers = [Artifact.open(place, TEACHERS) for place in places]
    warn_of_scales([teacher.kind for teacher in teachers], cfg.score.normalise)
    scores = score_candidates_of(cfg, collection, candidates, teachers, cfg.run_dir)
    return Outcome(scores, f"{scores.manifest['counts']['pairs']:,} pairs scored: {scores.path}")


def score_candidates_of(
    cfg: DictConfig,
    collection: Collection,
    candidates: Artifact,
    teachers: Sequence[Artifact],
    path: str | None = None,
) -> Artifact:
    """The scores [P] of all candidates, aligned with them; of several teachers, their ensemble."""
    inputs = {"candidates": candidates, "collection": collection.artifact}
    inputs |= {f"teacher_{i}": teacher for i, teacher in enumerate(teachers)}
    content = {"score": cfg.score, "encode": query_encoding(cfg)}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.mining.candidates import read_candidates

        mined = read_candidates(candidates.path / "candidates.arrow")
        if not mined.total:
            raise DataError(f"{candidates.path} holds no candidates to score\ntry: mine.ranks=[1,1000], or another run")
        pairs = Pairs.of(collection, mined.groups())
        start = time.perf_counter()
        total, facts = _ensemble(cfg, plain(cfg.score), teachers, pairs, mined.offsets)
        taken = time.perf_counter() - start
        # Whole, by one write: where numpy writes to a full disk itself, the error does not say so.
        np.save(content := BytesIO(), total)
        with disk.telling(builder.path / "scores.npy"):
            (builder.path / "scores.npy").write_bytes(content.getbuffer())
        told = {**facts, "pairs_per_s": facts["scored"] / max(taken, 1e-9)}
        tracker.summary({f"score/{name}": value for name, value in told.items()})
        builder.counts.update(pairs=len(total), queries=len(mined), teachers=len(teachers))
        builder.counts.update(mean=float(total.mean()), deviation=float(total.std()))

    name = f"{collection.name.replace('/', '-')}-{cfg.name}"
    return make(cfg, "score", "scores", name, inputs, content, work, path)


def warn_of_scales(kinds: Sequence[str], normalise: str) -> None:
    """Say, once, where teachers of different kinds are averaged on the scales that they happen to have."""
    different = list(dict.fromkeys(kinds))
    if len(different) > 1 and normalise == "none":
        say_once(
            f"the scores of teachers of different kinds ({', '.join(different)}) are averaged as they are, so that the "
            "one with the largest scale decides\ntry: score.normalise=z_score"
        )


def unscored(teacher: Artifact, found: Run) -> int:
    """How many pairs of the run a teacher has no score for: of a file of scores those it lacks, of a model none."""
    if teacher.kind != "run":
        return 0
    known = read_trec(teacher.path / "run.trec.gz")
    return sum(
        len(set(hits.ids).difference(known[query].ids if query in known else ())) for query, hits in found.items()
    )


def teacher_scores(cfg: DictConfig, teacher: Artifact, pairs: Pairs) -> tuple[np.ndarray, dict[str, int]]:
    """One teacher's scores [P] of pairs, from the cache below cfg.root where they are known; and how many are."""
    from colbert_lab.mining.score_cache import ScoreCache
    from colbert_lab.mining.scored import score_candidates
    from colbert_lab.progress import progress

    made = _teacher(cfg, pairs.collection, teacher)
    cache = None
    if not made.instant:
        cache = ScoreCache(Path(cfg.root).expanduser() / "cache" / "scores", made.key)
    devices, ask = cfg.get("devices") or 1, None
    if devices > 1 and not made.instant:
        # It has said its key, which knows the device; the room there is for a process that scores.
        made.model.cpu()
        ask = partial(in_order, devices, _scoring_of, (cfg, pairs.collection, teacher), gpus=gpus_for(devices))
    with progress("score", len(pairs), "pairs") as bar:
        return score_candidates(pairs, made, cache, bar=bar, ask=ask)


def _scoring_of(
    cfg: DictConfig, collection: Collection, teacher: Artifact
) -> Callable[[Pairs], tuple[np.ndarray, int]]:
    """What scores pairs in a process that shares the work."""
    from colbert_lab.mining.scored import scoring

    made = _teacher(cfg, collection, teacher)
    # On the collection that is open here already.
    return lambda part: next(scoring(made, [Pairs(collection, part.query_rows, part.document_rows)]))


def rerank_with(
    cfg: DictConfig,
    collection: Collection,
    teachers: Sequence[Artifact],
    found: Run,
    given: Artifact | str,
    path: str | None = None,
) -> Artifact:
    """The run with the best cfg.rerank.k of every query in the teachers' order; `given` stands for the run `found`."""
    k = cfg.rerank.k
    inputs = {"collection": collection.artifact, "candidates": given}
    inputs |= {f"teacher_{i}": teacher for i, teacher in enumerate(teachers)}
    content = {"rerank": cfg.rerank, "score": cfg.get("score", Score()), "split": cfg.split}
    content["encode"] = query_encoding(cfg)
    content["score"] = {"normalise": content["score"].normalise, "weights": plain(content["score"].weights)}

    def work(builder: Builder, tracker: Tracker) -> None:
        cut = found.cut(k)
        pairs = Pairs.of(collection, ((query, hits.ids) for query, hits in cut.items()))
        offsets = np.cumsum([0, *map(len, cut.values())])
        scores, _ = _ensemble(cfg, content["score"], teachers, pairs, offsets)
        parts = zip(cut.items(), offsets)
        reranked = Run({q: rank(hits.ids, scores[at : at + len(hits)]) for (q, hits), at in parts}, cut.depth)
        write_trec(reranked, builder.path / "run.trec.gz")
        documents = len(np.unique(pairs.document_rows))
        builder.counts.update(queries=len(reranked), depth=reranked.depth, results=len(pairs), documents=documents)
        if any(teacher.kind == "cross_encoder" for teacher in teachers):
            builder.counts["cut_pairs"] = _cut_pairs(teachers, pairs)
        tracker.summary({"search/queries": len(reranked), "search/candidates": len(pairs)})

    name = f"{collection.name.replace('/', '-')}-{cfg.split}-{cfg.name}-rerank{k}"
    return make(cfg, "rerank", "run", name, inputs, content, work, path)


def _cut_pairs(teachers: Sequence[Artifact], pairs: Pairs) -> int:
    """How many pairs the cross-encoders cut, counted anew: of those in the cache it is not known any more."""
    from colbert_lab.models.cross_encoder import CrossEncoder

    cut = 0
    for teacher in teachers:
        if teacher.kind != "cross_encoder":
            continue
        model = CrossEncoder.load(teacher.path)
        for some in pairs.blocks(_PAIRS):
            part = pairs.select(some)
            cut += sum(map(bool, model.tokenize(part.queries, part.documents).cut))
    return cut


def _ensemble(
    cfg: DictConfig,
    options: Mapping[str, Any],
    teachers: Sequence[Artifact],
    pairs: Pairs,
    offsets: np.ndarray,
) -> tuple[np.ndarray, dict[str, int]]:
    """The teachers' scores [P] as one, and how many pairs were scored anew, known, repeated and cut, over all."""
    from colbert_lab.mining.ensemble import combine

    parts, facts = [], dict.fromkeys(("scored", "cached", "repeated", "cut"), 0)
    for teacher in teachers:
        scores, found = teacher_scores(cfg, teacher, pairs)
        parts.append(scores)
        facts = {name: facts[name] + found[name] for name in facts}
    return combine(parts, offsets, options["normalise"], options["weights"]), facts


def _teacher(cfg: DictConfig, collection: Collection, artifact: Artifact) -> Any:
    """The Teacher in an artifact: a cross-encoder, a ColBERT model or its index (MaxSim), BM25, or a run's scores."""
    from colbert_lab.mining import teacher as kinds
    from colbert_lab.models.precision import best_device

    precision, batch_tokens = cfg.encode.precision, cfg.encode.batch_tokens
    if artifact.kind == "cross_encoder":
        from colbert_lab.models.cross_encoder import CrossEncoder

        model = CrossEncoder.load(artifact.path).to(best_device())
        return kinds.CrossEncoderTeacher(model, artifact.digest, precision, batch_tokens)
    if artifact.kind == "model":
        from colbert_lab.models.checkpoint import load_model

        return kinds.MaxSimTeacher(
            load_model(artifact.path).to(best_device()), artifact.digest, precision, batch_tokens
        )
    if artifact.kind == "index":
        from colbert_lab.models.checkpoint import load_model

        index = open_index(artifact)
        if not hasattr(index, "embeddings"):
            raise ConfigError(
                f"{artifact.path} keeps no document vectors to score with\ntry: the index's model as the teacher"
            )
        encoder = load_model(input_of(artifact, "model", cfg.get("model_at")).path).to(best_device())
        return kinds.IndexTeacher(encoder, index.scores, artifact.digest, precision, batch_tokens)
    if artifact.kind == "bm25":
        record = json.loads((artifact.path / "bm25.json").read_text())
        return kinds.Bm25Teacher(bm25_of(collection, record["k1"], record["b"]), artifact.digest)
    return kinds.FileTeacher(read_trec(artifact.path / "run.trec.gz"), artifact.digest)
