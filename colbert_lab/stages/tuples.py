"""tuples: candidates and a teacher's scores to pools of positives and denoised negatives, which training draws from."""

import numpy as np
from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.stages.making import Outcome, create, input_of, make
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Make tuples of the scores at cfg.scores; cfg.export writes a file of one epoch's besides."""
    if cfg.scores is None:
        raise ConfigError("no scores are given to make tuples of\ntry: scores=<directory of scores>")
    scores = Artifact.open(cfg.scores, "scores")
    candidates = input_of(scores, "candidates", cfg.candidates)
    tuples = make_tuples(cfg, candidates, scores, cfg.run_dir)
    counts = tuples.manifest["counts"]
    least, median, most = counts["negatives_per_query"]
    text = f"{counts['queries']:,} queries, {least} to {most} negatives each, {median} in the median: {tuples.path}"
    if cfg.export.file is not None:
        text += f"\n{export(cfg, tuples, Collection(input_of(scores, 'collection', cfg.collection)))}"
    return Outcome(tuples, text)


def make_tuples(cfg: DictConfig, candidates: Artifact, scores: Artifact, path: str | None = None) -> Artifact:
    """The pools of cfg.tuples; what was dropped is in the counts."""
    content = {"tuples": cfg.tuples}
    inputs = {"candidates": candidates, "scores": scores}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.mining.candidates import read_candidates
        from colbert_lab.mining.pools import make_pools, write_pools

        mined = read_candidates(candidates.path / "candidates.arrow")
        pools, counts = make_pools(mined, np.load(scores.path / "scores.npy"), create(cfg.tuples))
        write_pools(builder.path / "pools.arrow", pools)
        builder.counts.update(counts)
        tracker.summary({f"tuples/{name}": v for name, v in counts.items() if isinstance(v, int)})

    return make(cfg, "tuples", "tuples", cfg.name, inputs, content, work, path)


def export(cfg: DictConfig, tuples: Artifact, collection: Collection) -> str:
    """Write the tuples of one epoch in another tool's format; says what was written."""
    from colbert_lab.mining.examples import PooledExamples
    from colbert_lab.mining.exchange import write_pylate, write_stanford

    options = cfg.export
    examples = PooledExamples(collection, tuples.path / "pools.arrow", create(cfg.sampler), options.ways - 1)
    write = {"stanford": write_stanford, "pylate": write_pylate}[options.format]
    write(examples, options.file, cfg.seed, options.epoch, options.ways)
    return f"{len(examples):,} tuples of {options.ways} documents, epoch {options.epoch}: {options.file}"
