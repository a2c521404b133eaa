"""evaluate: runs against judgements; a table to read, per-query values to keep."""

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError
from colbert_lab.evaluation.comparison import compare
from colbert_lab.evaluation.metrics import Evaluation, evaluate, within_depth
from colbert_lab.evaluation.table import results_table
from colbert_lab.run import Run, rank
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.costs import costs_of
from colbert_lab.stages.making import Outcome, input_of, make, plain
from colbert_lab.stages.rerank import read_run
from colbert_lab.tracking.tracker import Tracker


def run(cfg: DictConfig) -> Outcome:
    """Judge the run, or runs, at cfg.run; several are held against the first with a paired test."""
    if cfg.run is None:
        raise ConfigError("no run is given to evaluate\ntry: run=<directory of a run, or a TREC file>")
    places = list(cfg.run) if isinstance(cfg.run, ListConfig) else [cfg.run]
    given = {_name(place, places): read_run(place) for place in places}
    collection, split = _judgements(cfg, [artifact for _, artifact in given.values()])
    metrics, evaluations = judge(cfg, collection, split, given, cfg.run_dir)
    headline = next(iter(evaluations.values())).means
    first = next(iter(headline))
    return Outcome(metrics, (metrics.path / "table.txt").read_text(), headline[first], first, headline)


def judge(
    cfg: DictConfig,
    collection: Collection,
    split: str,
    runs: dict[str, tuple[Run, Artifact | str]],
    path: str | None = None,
    qrels: Qrels | None = None,
    baseline: str | None = None,
    shallow: Sequence[str] = (),
) -> tuple[Artifact, dict[str, Evaluation]]:
    """The metrics artifact of these runs, by name, and their evaluations.

    Judged by `qrels`, by default the split's. `baseline`, by default the first, is what the tests hold the others
    against. Of the runs in `shallow` metrics that look deeper than the run are left out; of others they are refused.
    """
    options = plain(cfg.evaluate)
    qrels = collection.qrels(split) if qrels is None else qrels
    evaluations = {
        name: evaluate(
            found,
            qrels,
            within_depth(options["metrics"], found.depth) if name in shallow else options["metrics"],
            options["relevance_level"],
            len(collection.corpus),
        )
        for name, (found, _) in runs.items()
    }
    baseline = next(iter(runs)) if baseline is None else baseline
    compared = compare(evaluations, baseline, options["test"], cfg.seed) if len(runs) > 1 else []
    table = results_table(
        {name: e.means for name, e in evaluations.items()},
        collection.name,
        split,
        len(next(iter(evaluations.values())).queries),
        compared,
        notes=_notes(evaluations, options),
    )
    inputs = {"collection": collection.artifact, **{f"run_{i}": given for i, (_, given) in enumerate(runs.values())}}
    content = {"split": split, "evaluate": options, "names": list(runs), "seed": cfg.seed, "baseline": baseline}
    content["judgements"] = hash_json(sorted(qrels.items()))

    def work(builder: Builder, tracker: Tracker) -> None:
        record = {name: {"means": e.means, "counts": e.counts} for name, e in evaluations.items()}
        tests = [
            {
                "system": c.system,
                "baseline": c.baseline,
                "metric": c.metric,
                "p": c.p,
                "difference": c.test.mean_difference,
                "low": c.test.low,
                "high": c.test.high,
                "wins": c.test.wins,
                "ties": c.test.ties,
                "losses": c.test.losses,
            }
            for c in compared
        ]
        told = {"split": split, "collection": collection.name, "systems": record, "tests": tests}
        (builder.path / "metrics.json").write_text(json.dumps(told, indent=1))
        (builder.path / "table.txt").write_text(table)
        with (builder.path / "per_query.jsonl").open("w") as lines:
            for name, evaluation in evaluations.items():
                lines.writelines(json.dumps({"system": name, **row}) + "\n" for row in evaluation.rows())
        rows = [{"system": name, **row} for name, evaluation in evaluations.items() for row in evaluation.rows()]
        tracker.table("eval/per_query", rows)
        dataset = "".join(c if c.isalnum() else "_" for c in collection.name)
        # The last system is the one that the runs before it are there to be compared with.
        means = list(evaluations.values())[-1].means
        tracker.summary({f"eval/{dataset}_{metric}": value for metric, value in means.items()})
        tracker.summary({"objective": next(iter(means.values())), **costs_of(list(runs.values())[-1][1])})

    name = f"{collection.name.replace('/', '-')}-{split}-{cfg.name}"
    return make(cfg, "evaluate", "metrics", name, inputs, content, work, path), evaluations


def check_metrics(options: DictConfig, depth: int, documents: int) -> None:
    """Raise the ConfigError that evaluating runs of this depth would raise, before there are any."""
    queries = {"q": {"d": 1}}
    evaluate(Run({"q": rank(["d"], [1.0])}, depth), queries, list(options.metrics), options.relevance_level, documents)


def _notes(evaluations: dict[str, Evaluation], options: dict) -> list[str]:
    counts = next(iter(evaluations.values())).counts
    level = options["relevance_level"]
    notes = [f"binary metrics count grades of {level} and more as relevant; nDCG has linear gains"]
    if counts.get("without_positives"):
        notes.append(f"{counts['without_positives']:,} judged queries without a relevant document are left out")
    for name, evaluation in evaluations.items():
        if evaluation.counts.get("without_results"):
            notes.append(f"{name}: {evaluation.counts['without_results']:,} queries found nothing and count 0")
    return notes


def _judgements(cfg: DictConfig, artifacts: list[Artifact | str]) -> tuple[Collection, str]:
    """The collection and split to judge by: cfg's where it names data, else those that the first run was made of."""
    first = artifacts[0]
    if cfg.get("data") is not None:
        collection = open_collection(cfg)
    elif isinstance(first, Artifact):
        collection = Collection(input_of(first, "collection", cfg.collection))
    else:
        raise ConfigError("a TREC file does not say what it was searched in\ntry: data=beir data.root=DIR split=test")
    split = cfg.split or (first.manifest["config"].get("split") if isinstance(first, Artifact) else None)
    if split is None:
        raise ConfigError(f"which judgements?\ntry: split=<one of {', '.join(collection.splits)}>")
    return collection, split


def _name(place: str, places: list[str]) -> str:
    name = Path(place).name
    if sum(Path(other).name == name for other in places) == 1:
        return name.removesuffix(".gz").removesuffix(".trec")
    return place
