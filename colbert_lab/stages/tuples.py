"""tuples: candidates and a teacher's scores to pools of positives and denoised negatives, which training draws from."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_file
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.making import Outcome, create, flat_counts, input_of, make
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Make tuples of the scores at cfg.scores, or of the PyLate table at cfg.pylate.file; cfg.export writes a file."""
    if (cfg.scores is None) == (cfg.pylate.file is None):
        raise ConfigError("tuples are made of scores, or of a table in PyLate's columns\ntry: scores=DIR")
    if cfg.scores is None:
        if cfg.get("data") is None:
            raise ConfigError("a table of ids does not say whose they are\ntry: data=beir data.root=DIR")
        collection = open_collection(cfg)
        tuples = import_pylate(cfg, collection, cfg.run_dir)
    else:
        scores = Artifact.open(cfg.scores, "scores")
        collection = Collection(input_of(scores, "collection", cfg.collection))
        tuples = make_tuples(cfg, input_of(scores, "candidates", cfg.candidates), scores, cfg.run_dir)
    counts = tuples.manifest["counts"]
    least, median, most = counts["negatives_per_query"]
    text = f"{counts['queries']:,} queries, {least} to {most} negatives each, {median} in the median: {tuples.path}"
    if cfg.export.file is not None:
        text += f"\n{export(cfg, tuples, collection)}"
    return Outcome(tuples, text)


def make_tuples(cfg: DictConfig, candidates: Artifact, scores: Artifact, path: str | None = None) -> Artifact:
    """The pools of cfg.tuples; what was dropped is in the counts."""

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.mining.candidates import read_candidates
        from colbert_lab.mining.pools import make_pools, write_pools

        mined = read_candidates(candidates.path / "candidates.arrow")
        pools = make_pools(mined, np.load(scores.path / "scores.npy", mmap_mode="r"), create(cfg.tuples))
        write_pools(builder.path / "pools.arrow", pools)
        builder.counts.update(pools.counts)
        tracker.summary({f"tuples/{name}": v for name, v in flat_counts(pools.counts).items()})

    inputs = {"candidates": candidates, "scores": scores}
    return make(cfg, "tuples", "tuples", cfg.name, inputs, {"tuples": cfg.tuples}, work, path)


def import_pylate(cfg: DictConfig, collection: Collection, path: str | None = None) -> Artifact:
    """The pools of a table in PyLate's columns: every row is one; nothing is denoised."""
    file = Path(cfg.pylate.file).expanduser()
    if not file.is_file():
        raise DataError(f"{file} does not exist")

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.mining.exchange import pylate_pools, read_pylate
        from colbert_lab.mining.pools import write_pools
        from colbert_lab.mining.tally import spread

        pools = list(pylate_pools(read_pylate(file), collection, cfg.pylate.positive))
        write_pools(builder.path / "pools.arrow", pools)
        sizes = [len(pool.negatives) for pool in pools]
        counts = {"queries": len(pools), "positives": len(pools), "negatives": sum(sizes), "relabelled": 0}
        builder.counts.update(counts, negatives_per_query=spread(sizes), dropped={})
        tracker.summary({f"tuples/{name}": value for name, value in counts.items()})

    inputs = {"file": hash_file(file), "collection": collection.artifact}
    content = {"positive": cfg.pylate.positive}
    return make(cfg, "import_tuples", "tuples", f"{cfg.name}-pylate", inputs, content, work, path)


def export(cfg: DictConfig, tuples: Artifact, collection: Collection) -> str:
    """Write the tuples of one epoch in another tool's format, PyLate's with the texts; says what was written."""
    from colbert_lab.mining.examples import PooledExamples
    from colbert_lab.mining.exchange import pylate_paths, write_pylate_tables, write_stanford

    options = cfg.export
    examples = PooledExamples(collection, tuples.path / "pools.arrow", create(cfg.sampler), options.ways - 1)
    told = f"{len(examples):,} tuples of {options.ways} documents, epoch {options.epoch}"
    drawn = (cfg.seed, options.epoch, options.ways)
    if options.format == "stanford":
        write_stanford(examples, options.file, *drawn)
        return f"{told}: {options.file}"
    rows = write_pylate_tables(examples, collection, options.file, *drawn)
    paths = pylate_paths(options.file)
    return "\n".join([told, *(f"  {name}, {count:,} rows: {paths[name]}" for name, count in rows.items())])
