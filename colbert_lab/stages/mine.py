"""mine: a run of training queries to candidates: what a teacher shall score, and negatives are drawn from."""

from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError
from colbert_lab.run import Run
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.making import Outcome, create, flat_counts, input_of, make, say
from colbert_lab.stages.rerank import read_run
from colbert_lab.stages.train import split_queries
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Mine the run at cfg.run for the queries that are trained on."""
    if cfg.run is None:
        raise ConfigError(
            "no run is given to mine\ntry: run=<directory of a run of the training queries, or a TREC file>"
        )
    found, given = read_run(cfg.run)
    collection = _collection(cfg, given)
    mined = mine_run(cfg, collection, split_queries(cfg, collection)[0], given, found, cfg.run_dir)
    counts = mined.manifest["counts"]
    return Outcome(mined, f"{counts['queries']:,} queries, {counts['pairs']:,} candidates: {mined.path}")


def mine_run(
    cfg: DictConfig,
    collection: Collection,
    qrels: Qrels,
    given: Artifact | str,
    found: Run | None = None,
    path: str | None = None,
) -> Artifact:
    """The candidates of the queries of `qrels`; `given` is the run (or stands for one that is `found` already)."""
    content = {"mine": cfg.mine, "qrels": hash_json(sorted(qrels.items()))}
    inputs = {"run": given, "collection": collection.artifact}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.mining.candidates import contaminated, mine, write_candidates

        hits = read_run(str(given.path))[0] if found is None else found
        rows, counts = mine(hits, qrels, collection, create(cfg.mine))
        both = contaminated(list(qrels), _test_queries(cfg, collection), collection)
        counts["contaminated_test_queries"] = len({training for training, _ in both})
        if both:
            say(f"{len(both):,} training queries are test queries too, {both[0]} for example: results will flatter")
        write_candidates(builder.path / "candidates.arrow", rows)
        builder.counts.update(counts)
        tracker.summary({f"mine/{name}": v for name, v in flat_counts({**counts, "kept": counts["pairs"]}).items()})

    name = f"{collection.name.replace('/', '-')}-{cfg.name}"
    return make(cfg, "mine", "candidates", name, inputs, content, work, path)


def _test_queries(cfg: DictConfig, collection: Collection) -> list[str]:
    return list(collection.qrels(cfg.splits.test)) if cfg.splits.test in collection.splits else []


def _collection(cfg: DictConfig, given: Artifact | str) -> Collection:
    if cfg.get("data") is not None:
        return open_collection(cfg)
    if isinstance(given, Artifact):
        return Collection(input_of(given, "collection", cfg.collection))
    raise ConfigError(f"{Path(cfg.run).name} does not say what was searched\ntry: data=beir data.root=DIR")
