"""mine: a run of training queries to candidates: what a teacher shall score, and negatives are drawn from."""

from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError
from colbert_lab.run import Run
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.making import Outcome, create, flat_counts, input_of, make, say, say_once
from colbert_lab.stages.rerank import read_run
from colbert_lab.stages.splits import kept_for_judging, settled
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
    cfg = settled(cfg, collection.splits)
    mined = mine_run(cfg, collection, *split_queries(cfg, collection), given, found, cfg.run_dir)
    counts = mined.manifest["counts"]
    return Outcome(mined, f"{counts['queries']:,} queries, {counts['pairs']:,} candidates: {mined.path}")


def queries_to_mine(cfg: DictConfig, collection: Collection, training: Qrels, dev: Qrels) -> list[str]:
    """The queries to search for mining, sorted: those of `training`.

    With cfg.mine.unjudged also the collection's others: never those of `dev`, nor any that a split other than train
    judges.
    """
    if not cfg.mine.unjudged:
        return sorted(training)
    kept = kept_for_judging(cfg, collection, dev)
    others = [query for query in collection.queries.all_ids() if query not in training and query not in kept]
    left = len(kept - training.keys())
    say_once(f"{len(others):,} queries without judgements are mined too; {left:,} others are kept for judging")
    return sorted([*training, *others])


def mine_run(
    cfg: DictConfig,
    collection: Collection,
    training: Qrels,
    dev: Qrels,
    given: Artifact | str,
    found: Run | None = None,
    path: str | None = None,
) -> Artifact:
    """The candidates of the queries of `training`; with cfg.mine.unjudged, of the run's others too that judge nothing.

    `given` is the run (or stands for one that is `found` already); `dev` are the judgements that choose.
    """
    kept = kept_for_judging(cfg, collection, dev) if cfg.mine.unjudged else set()
    content = {"mine": cfg.mine, "qrels": hash_json(sorted(training.items())), "test": cfg.splits.test}
    if kept:
        content["kept_for_judging"] = hash_json(sorted(kept))
    inputs = {"run": given, "collection": collection.artifact}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.mining.candidates import contaminated, mine, read_candidates, write_candidates

        hits = read_run(str(given.path))[0] if found is None else found
        mined = mine(hits, training, collection, create(cfg.mine), kept)
        file = builder.path / "candidates.arrow"
        write_candidates(file, mined)
        counts = mined.counts
        if left := counts["left_out"]["kept_for_judging"]:
            say(f"{left:,} queries of the run are held out or judged in another split than train: they are not mined")
        both = contaminated(read_candidates(file).queries(), _test_queries(cfg, collection), collection)
        counts["contaminated_test_queries"] = len({query for query, _ in both})
        if both:
            say(f"{len(both):,} training queries are test queries too, {both[0]} for example: results will flatter")
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
