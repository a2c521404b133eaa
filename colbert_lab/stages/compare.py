"""compare: systems of every paradigm on one collection, or on every collection of a suite, with tests and costs.

Each system's index, run and measurement is an artifact of its own: a comparison that was killed goes on, one that grew
makes what is missing. Times are measured, so no two makings agree on them; everything else is the same again.
"""

import json
from collections.abc import Mapping

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.comparison.kinds import GivenRun, System
from colbert_lab.stages.comparison.systems import read_systems
from colbert_lab.stages.making import Outcome, say

_HEADLINE = "ndcg_10"


def run(cfg: DictConfig) -> Outcome:
    """Judge cfg.systems on the collection, or on each of cfg.benchmark's; the objective is the reference's nDCG@10."""
    if cfg.get("benchmark") is not None:
        from colbert_lab.stages.suite import run_suite

        return run_suite(cfg, compare_one)
    made = compare_one(cfg)
    told = json.loads((made.path / "comparison.json").read_text())
    reference = told["systems"][told["baseline"]]["means"]
    metric = _HEADLINE if _HEADLINE in reference else next(iter(reference))
    figures = {
        f"{name}_{measure}": value for name, one in told["systems"].items() for measure, value in one["means"].items()
    }
    text = f"{(made.path / 'table.txt').read_text()}\n{made.path}"
    return Outcome(made, text, reference[metric], f"{told['split']}_{metric}", figures)


def compare_one(cfg: DictConfig) -> Artifact:
    """The comparison artifact of cfg.systems on the collection of cfg.data, judged by cfg.split.

    ConfigError, before anything heavy, with every mistake in the systems. Systems that want a cross-encoder are left
    out, and this is told, where there is none.
    """
    from colbert_lab.stages.comparison.cost import measurement
    from colbert_lab.stages.comparison.made import Making
    from colbert_lab.stages.comparison.report import conclude
    from colbert_lab.stages.evaluate import check_metrics

    _check(cfg)
    systems, left_out = read_systems(cfg)
    collection = open_collection(cfg)
    check_metrics(cfg.evaluate, min(cfg.search.k, len(collection.corpus)), len(collection.corpus))
    _check_given(collection, cfg.split, systems)
    for reason in left_out.values():
        say(reason)
    making = Making(cfg, collection, systems)
    made = [making.made(name) for name in systems]
    measured = {one.name: measurement(cfg, collection, one) for one in made}
    comparison = conclude(cfg, collection, made, measured, list(left_out.values()))
    _report(comparison)
    return comparison


def _check_given(collection: Collection, split: str, systems: Mapping[str, System]) -> None:
    """DataError for a given run of other queries than those judged, whose every figure would be 0."""
    from colbert_lab.stages.rerank import read_run

    judged = collection.qrels(split)
    for name, system in systems.items():
        if not isinstance(system, GivenRun):
            continue
        queries = list(read_run(system.run)[0])
        if not any(query in judged for query in queries):
            some = f"{queries[0]!r}" if queries else "none at all"
            raise DataError(
                f"systems.{name}: the run at {system.run} has no query that {split} of {collection.name} judges: it "
                f"has {some}, judged is {next(iter(judged), 'none')!r}; is it of another collection, or split?"
            )


def _report(comparison: Artifact) -> None:
    """The page beside the comparison; not part of it, so that a later version can write it anew."""
    from colbert_lab.stages.report import report_of

    report_of([comparison.path], comparison.path / "report.html", comparison.path.name)


def _check(cfg: DictConfig) -> None:
    problems = []
    if cfg.cost.timed < 1 or cfg.cost.warmup < 0 or cfg.cost.seconds <= 0:
        problems.append(
            "cost.timed must be at least 1, cost.warmup at least 0, cost.seconds above 0\ntry: cost.timed=50"
        )
    if cfg.seeds is not None and cfg.model is None:
        problems.append("seeds are models like model=, which is not given\ntry: model=<directory of the first>")
    if problems:
        raise ConfigError(problems, "compare")
