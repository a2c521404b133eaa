"""evaluate: runs against judgements; a table to read, per-query values to keep."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.evaluation.comparison import compare
from colbert_lab.evaluation.metrics import Evaluation, evaluate, within_depth
from colbert_lab.evaluation.qrels import read_qrels, write_qrels
from colbert_lab.evaluation.table import results_table
from colbert_lab.run import Run, rank
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.costs import costs_of
from colbert_lab.stages.making import Outcome, input_of, make, plain, say
from colbert_lab.stages.per_query import NAME, Explain, Judged, query_rows, worst_by
from colbert_lab.stages.ranked_by import cut_by, encoded_as, model_of, note_of
from colbert_lab.stages.rerank import read_run
from colbert_lab.tracking.names import leaf
from colbert_lab.tracking.tracker import Tracker

# Where the judgements that were used lie in an artifact: TREC's columns, or BEIR's where an id has a blank.
_FILES = ("qrels.trec.gz", "qrels.tsv.gz")


@dataclass(frozen=True)
class Unsearched:
    """In place of a collection where TREC files alone are given: the name of the judgements, and no texts."""

    name: str
    artifact: None = None
    queries: None = None
    corpus: tuple = ()


def run(cfg: DictConfig) -> Outcome:
    """Judge the run, or runs, at cfg.run, by cfg.qrels or a split; several are held against the first with a test.

    The headline is the last run's: those before it are there to be compared with.
    """
    if cfg.run is None:
        raise ConfigError("no run is given to evaluate\ntry: run=<directory of a run, or a TREC file>")
    places = list(cfg.run) if isinstance(cfg.run, ListConfig) else [cfg.run]
    given = {_name(place, places): read_run(place) for place in places}
    collection, split, qrels = _judgements(cfg, [artifact for _, artifact in given.values()])
    explained = {name: explain for name, (_, one) in given.items() if (explain := _explain(cfg, collection, one))}
    evaluations = evaluated(cfg, collection, qrels, given)
    headline = list(given)[-1]
    notes = [f"{name}: {note}" for name in explained if (note := note_of(given[name][1]))]
    metrics = judge(
        cfg,
        collection,
        split,
        qrels,
        given,
        evaluations,
        headline,
        path=cfg.run_dir,
        explained=explained,
        notes=notes,
    )
    means = evaluations[headline].means
    first = next(iter(means))
    return Outcome(metrics, (metrics.path / "table.txt").read_text(), means[first], first, means)


def evaluated(
    cfg: DictConfig,
    collection: Collection | Unsearched,
    qrels: Qrels,
    runs: Mapping[str, tuple[Run, Artifact | str]],
    shallow: Sequence[str] = (),
) -> dict[str, Evaluation]:
    """The evaluations of these runs, by name, as cfg.evaluate says.

    Of the runs in `shallow` metrics that look deeper than the run are left out; of others they are refused.
    """
    options = plain(cfg.evaluate)
    return {
        name: evaluate(
            found,
            qrels,
            within_depth(options["metrics"], found.depth) if name in shallow else options["metrics"],
            options["relevance_level"],
            len(collection.corpus) or None,
        )
        for name, (found, _) in runs.items()
    }


def judge(
    cfg: DictConfig,
    collection: Collection | Unsearched,
    split: str,
    qrels: Qrels,
    runs: Mapping[str, tuple[Run, Artifact | str]],
    evaluations: Mapping[str, Evaluation],
    headline: str,
    baseline: str | None = None,
    path: str | None = None,
    explained: Mapping[str, Explain] | None = None,
    notes: Sequence[str] = (),
) -> Artifact:
    """The metrics artifact of these runs and their evaluations, by name, by the judgements `qrels` of `split`.

    `headline` names the run whose means and costs the artifact's log has, and so tables of runs and dashboards.
    `baseline`, by default the first, is what the tests hold the others against. `explained` has what explains the pairs
    of runs whose model is known, for the table of queries; `notes` are said below the table of metrics.
    """
    options = plain(cfg.evaluate)
    baseline = next(iter(runs)) if baseline is None else baseline
    compared = compare(evaluations, baseline, options["test"], cfg.seed) if len(runs) > 1 else []
    table = results_table(
        {name: e.means for name, e in evaluations.items()},
        collection.name,
        split,
        len(next(iter(evaluations.values())).queries),
        compared,
        notes=[*_notes(evaluations, options, collection, qrels), *notes],
    )
    inputs = {f"run_{i}": given for i, (_, given) in enumerate(runs.values())}
    if collection.artifact is not None:
        inputs = {"collection": collection.artifact, **inputs}
    content = {"split": split, "evaluate": options, "names": list(runs), "seed": cfg.seed}
    content |= {"baseline": baseline, "headline": headline, "judgements": hash_json(sorted(qrels.items()))}

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
        told = {"split": split, "collection": collection.name, "headline": headline, "systems": record, "tests": tests}
        (builder.path / "metrics.json").write_text(json.dumps(told, indent=1))
        (builder.path / "table.txt").write_text(table)
        with (builder.path / "per_query.jsonl").open("w") as lines:
            for name, evaluation in evaluations.items():
                lines.writelines(json.dumps({"system": name, **row}) + "\n" for row in evaluation.rows())
        _write_judgements(qrels, builder.path)
        judged = {
            name: Judged([evaluation], [runs[name][0]], (explained or {}).get(name))
            for name, evaluation in evaluations.items()
        }
        rows = query_rows(judged, collection.queries, collection.corpus or None)
        tracker.table(NAME, rows, by=worst_by(judged))
        means, judged_on = evaluations[headline].means, _judged_on(cfg, collection, split)
        tracker.summary({f"eval/{judged_on}_{metric}": value for metric, value in means.items()})
        tracker.summary({"objective": next(iter(means.values())), **costs_of(runs[headline][1])})

    name = f"{collection.name.replace('/', '-')}-{split}-{cfg.name}"
    return make(cfg, "evaluate", "metrics", name, inputs, content, work, path)


def check_metrics(options: DictConfig, depth: int, documents: int) -> None:
    """Raise the ConfigError that evaluating runs of this depth would raise, before there are any."""
    queries = {"q": {"d": 1}}
    evaluate(Run({"q": rank(["d"], [1.0])}, depth), queries, list(options.metrics), options.relevance_level, documents)


def _judged_on(cfg: DictConfig, collection: Collection | Unsearched, split: str) -> str:
    """What metrics are called after: the collection alone where the split is the one that tests, else the split too.

    A figure of dev beside one of test under the same name would be taken for another system's.
    """
    tests = cfg.splits.test if "splits" in cfg else "test"
    alone = split == tests or collection.artifact is None
    return leaf(collection.name if alone else f"{collection.name}_{split}")


def _notes(
    evaluations: Mapping[str, Evaluation], options: dict[str, Any], collection: Collection | Unsearched, qrels: Qrels
) -> list[str]:
    counts = next(iter(evaluations.values())).counts
    level = options["relevance_level"]
    notes = [f"binary metrics count grades of {level} and more as relevant; nDCG has linear gains"]
    if counts.get("without_positives"):
        notes.append(f"{counts['without_positives']:,} judged queries without a relevant document are left out")
    if isinstance(collection, Collection):
        documents = list({document for judged in qrels.values() for document in judged})
        if unknown := int((collection.corpus.find(documents) < 0).sum()):
            notes.append(f"{unknown:,} judged documents are not in the corpus; they stay in the ideal ranking")
    for name, evaluation in evaluations.items():
        if evaluation.counts.get("without_results"):
            notes.append(f"{name}: {evaluation.counts['without_results']:,} queries found nothing and count 0")
    return notes


def _judgements(cfg: DictConfig, artifacts: list[Artifact | str]) -> tuple[Collection | Unsearched, str, Qrels]:
    """What to judge by: the collection of cfg's data, else the one that the first run was made of; a split of it, or
    the judgements in the file at cfg.qrels under the file's name, for which TREC files need no collection.
    """
    first = artifacts[0]
    if cfg.qrels is not None and cfg.split is not None:
        raise ConfigError(f"qrels={cfg.qrels} is what runs are judged by, so split={cfg.split} would change nothing")
    qrels = None if cfg.qrels is None else read_qrels(Path(cfg.qrels).expanduser())
    named = None if cfg.qrels is None else _stem(cfg.qrels)
    if cfg.get("data") is not None:
        collection = open_collection(cfg)
    elif isinstance(first, Artifact):
        collection = Collection(input_of(first, "collection", cfg.collection))
    elif qrels is not None:
        return Unsearched(named), "qrels", qrels
    else:
        raise ConfigError(
            "a TREC file does not say what it was searched in\ntry: data=beir data.root=DIR split=test, or qrels=FILE"
        )
    if qrels is not None:
        return collection, named, qrels
    split = cfg.split or (first.manifest["config"].get("split") if isinstance(first, Artifact) else None)
    if split is None:
        raise ConfigError(f"which judgements?\ntry: split=<one of {', '.join(collection.splits)}>")
    return collection, split, collection.qrels(split)


def _explain(cfg: DictConfig, collection: Collection | Unsearched, artifact: Artifact | str) -> Explain | None:
    """What explains a run's pairs; None where no late interaction is known to have ranked it, or its model is gone."""
    from colbert_lab.stages.explain import explanations_of

    if not isinstance(artifact, Artifact) or not isinstance(collection, Collection):
        return None
    try:
        model, passages = model_of(artifact, cfg), cut_by(artifact)
    except ArtifactError as error:
        say(f"no best-matching tokens are told: {error}")
        return None
    if model is None:
        return None
    view = encoded_as(cfg, artifact)
    return lambda pairs: explanations_of(model, collection, view, pairs, passages)


def _write_judgements(qrels: Qrels, folder: Path) -> None:
    """The judgements in the first of the formats that can hold their ids."""
    for name in _FILES:
        try:
            return write_qrels(qrels, folder / name)
        except DataError:
            (folder / name).unlink(missing_ok=True)
    say("the judgements' ids fit no format of judgements, so they are not written beside the metrics")


def _stem(place: str) -> str:
    """A file's name without what tells its format: 2019qrels-pass of 2019qrels-pass.txt.gz."""
    name = Path(place).name.removesuffix(".gz")
    return Path(name).stem if Path(name).suffix in (".txt", ".tsv", ".trec", ".qrels") else name


def _name(place: str, places: list[str]) -> str:
    name = Path(place).name
    if sum(Path(other).name == name for other in places) == 1:
        return name.removesuffix(".gz").removesuffix(".trec")
    return place
