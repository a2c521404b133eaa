"""pipeline: train, index, search and evaluate; the start and the trained model on the test split, side by side."""

from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.run import Run, read_trec
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.evaluate import check_metrics, evaluated, judge
from colbert_lab.stages.index import index_with
from colbert_lab.stages.init import start_model
from colbert_lab.stages.lexical import lexical_run
from colbert_lab.stages.making import Outcome, say
from colbert_lab.stages.report import report_of, report_path
from colbert_lab.stages.search import check_index, judged_queries, search_index
from colbert_lab.stages.splits import checked_splits
from colbert_lab.stages.train import train

UNTRAINED, TRAINED, LEXICAL = "untrained", "trained", "bm25"


def run(cfg: DictConfig) -> Outcome:
    """Everything from a backbone to a table; the objective is the trained model's best dev nDCG@10.

    The test split is searched once by each model and chooses nothing. With train.max_steps=0 the start alone is judged.
    """
    # Asked for here, refused here: after the training it would be late.
    check_index(cfg)
    cfg = checked_splits(cfg, trains=cfg.train.max_steps > 0)
    collection = open_collection(cfg)
    check_metrics(cfg.evaluate, min(cfg.search.k, len(collection.corpus)), len(collection.corpus))
    queries = judged_queries(collection, cfg.splits.test)
    start = start_model(cfg, collection)
    models = {UNTRAINED: start}
    if cfg.train.max_steps:
        models[TRAINED] = train(cfg, collection, start)
    split = cfg.splits.test
    found = {name: search_with(cfg, model, collection, split) for name, model in models.items()}
    if cfg.lexical:
        found[LEXICAL] = _read(lexical_run(cfg, collection, split, queries, cfg.search.k))
    order = [name for name in (UNTRAINED, LEXICAL, TRAINED) if name in found]
    runs = {name: found[name] for name in order}
    qrels = collection.qrels(split)
    evaluations = evaluated(cfg, collection, qrels, runs)
    last, model = list(models.items())[-1]
    metrics = judge(cfg, collection, split, qrels, runs, evaluations, last, path=cfg.run_dir)
    say(f"model: {model.path}\nresults: {metrics.path}")
    page = report_of([metrics.path], report_path(Path(cfg.root), metrics.path.name), f"{collection.name}: {cfg.name}")
    best = model.manifest["counts"].get("dev", {}).get("ndcg_10")
    figures = {f"{split}_{metric}": value for metric, value in evaluations[last].means.items()}
    text = f"{(metrics.path / 'table.txt').read_text()}\nreport: {page}"
    return Outcome(metrics, text, best, "dev_ndcg_10", figures)


def search_with(cfg: DictConfig, model: Artifact, collection: Collection, split: str) -> tuple[Run, Artifact]:
    """A split's run by this model, through an index of cfg.index."""
    return _read(search_index(cfg, index_with(cfg, model, collection), collection, split))


def _read(artifact: Artifact) -> tuple[Run, Artifact]:
    return read_trec(artifact.path / "run.trec.gz", depth=artifact.manifest["counts"]["depth"]), artifact
