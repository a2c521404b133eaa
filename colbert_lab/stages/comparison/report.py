"""What a comparison comes to: metrics, tests, costs, published figures, guards, the queries that set two apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_json
from colbert_lab.data.collection import Collection
from colbert_lab.evaluation.comparison import Compared, compare, estimates
from colbert_lab.evaluation.fidelity import pareto
from colbert_lab.evaluation.metrics import Evaluation, evaluate, within_depth
from colbert_lab.evaluation.published import Conditions, beside, digest
from colbert_lab.stages.comparison.conditions import conditions, truncation
from colbert_lab.stages.comparison.kinds import (
    Bm25,
    CrossEncoder,
    EndToEnd,
    Fusion,
    GivenRun,
    Rerank,
    kind_of,
)
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.comparison.notes import notes_of
from colbert_lab.stages.comparison.seen import guards
from colbert_lab.stages.comparison.table import comparison_table, head
from colbert_lab.stages.index import passages_of
from colbert_lab.stages.making import make, plain
from colbert_lab.stages.per_query import NAME, Explain, Judged, query_rows, worst_by
from colbert_lab.stages.ranked_by import has_token_vectors, merged
from colbert_lab.tracking.tracker import Tracker

HEADLINE = "ndcg_10"
_SHOWN = 20
_EXPLAINED = 3


def conclude(
    cfg: DictConfig,
    collection: Collection,
    made: Sequence[Made],
    measured: Mapping[str, Artifact | None],
    left_out: Sequence[str],
) -> Artifact:
    """The comparison artifact of systems that were made and measured."""
    reference = cfg.baseline or _reference(made)
    qrels = collection.qrels(cfg.split)
    inputs: dict[str, Artifact | str] = {"collection": collection.artifact}
    for one in made:
        inputs |= {f"run_{one.name}_{i}": found.given for i, found in enumerate(one.runs)}
        if measured[one.name] is not None:
            inputs[f"cost_{one.name}"] = measured[one.name]
    options = plain(cfg.evaluate)
    content = {
        "split": cfg.split,
        "corpus": cfg.corpus,
        "evaluate": options,
        "systems": {one.name: {"label": one.label, **_plain(one)} for one in made},
        "left_out": list(left_out),
        "baseline": reference,
        "seed": cfg.seed,
        "judgements": hash_json(sorted(qrels.items())),
        "published": digest(),
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        evaluations = {one.name: _evaluations(one, qrels, options, collection) for one in made}
        compared = compare(evaluations, reference, options["test"], cfg.seed) if len(made) > 1 else []
        queries = len(evaluations[reference][0].queries)
        protocols = {one.name: conditions(cfg, one, queries) for one in made}
        told = {
            "collection": collection.name,
            "split": cfg.split,
            "corpus": cfg.corpus,
            "queries": queries,
            "baseline": reference,
            "test": options["test"],
            "relevance_level": options["relevance_level"],
            "systems": {
                one.name: _system(one, evaluations[one.name], measured[one.name], protocols[one.name], cfg)
                for one in made
            },
            "tests": [_test(one) for one in compared],
            "published": _published(cfg, collection, protocols, evaluations),
            "guards": guards(cfg, collection, made),
            "truncation": truncation(made),
        }
        notes = notes_of(cfg, told, made, evaluations, left_out)
        notes += [f"{one.name}: {note}" for one in made if _explainable(one) and (note := _note(one))]
        text = comparison_table(told, compared, notes)
        (builder.path / "comparison.json").write_text(json.dumps(told, indent=1))
        (builder.path / "table.txt").write_text(text)
        _write_queries(builder, evaluations)
        _write_differences(cfg, collection, builder, made, evaluations, reference)
        _plots(builder, told, made)
        builder.counts.update(systems=len(made), queries=told["queries"])
        _track(tracker, told)
        _track_queries(tracker, cfg, collection, made, evaluations)

    name = f"{collection.name.replace('/', '-')}-{cfg.split}-{cfg.name}"
    return make(cfg, "compare", "comparison", name, inputs, content, work, cfg.run_dir)


def _reference(made: Sequence[Made]) -> str:
    """What the others are held against: exact search, else end to end, else the deepest re-ranker, else the first."""
    searching = [one for one in made if isinstance(one.system, EndToEnd)]
    if searching:
        return next((one.name for one in searching if one.system.index == "exact"), searching[0].name)
    reranking = [one for one in made if isinstance(one.system, Rerank)]
    return max(reranking, key=lambda one: one.system.k, default=made[0]).name


def _plain(one: Made) -> dict[str, Any]:
    keys = {key: value for key, value in asdict(one.system).items() if key not in ("model", "teacher", "run")}
    return {"kind": kind_of(one.system), **keys}


def _evaluations(
    one: Made, qrels: Mapping[str, Mapping[str, int]], options: Mapping[str, Any], collection: Collection
) -> list[Evaluation]:
    """One evaluation a seed; metrics that look deeper than a re-ranker, a fusion or a given run are left out."""
    found = []
    for run in (found.run for found in one.runs):
        metrics = options["metrics"]
        if isinstance(one.system, Rerank | CrossEncoder | GivenRun | Fusion):
            metrics = within_depth(metrics, max(run.depth, 1))
        found.append(evaluate(run, qrels, metrics, options["relevance_level"], len(collection.corpus)))
    return found


def _system(
    one: Made, evaluations: Sequence[Evaluation], measured: Artifact | None, protocol: Conditions, cfg: DictConfig
) -> dict[str, Any]:
    found = estimates(evaluations, cfg.seed)
    return {
        "kind": kind_of(one.system),
        "label": one.label,
        "means": {metric: estimate.mean for metric, estimate in found.items()},
        "intervals": {metric: [estimate.low, estimate.high] for metric, estimate in found.items()},
        "deviations": {m: e.deviation for m, e in found.items() if e.deviation is not None},
        "seeds": len(evaluations),
        "counts": evaluations[0].counts,
        "run": one.runs[0].place,
        "conditions": asdict(protocol),
        "cost": None if measured is None else json.loads((measured.path / "cost.json").read_text()),
    }


def _test(one: Compared) -> dict[str, Any]:
    names = {"system": one.system, "baseline": one.baseline, "metric": one.metric, "p": one.p, "p_alone": one.test.p}
    figures = {"difference": one.test.mean_difference, "low": one.test.low, "high": one.test.high}
    return names | figures | {"wins": one.test.wins, "ties": one.test.ties, "losses": one.test.losses}


def _published(
    cfg: DictConfig,
    collection: Collection,
    protocols: Mapping[str, Conditions],
    evaluations: Mapping[str, Sequence[Evaluation]],
) -> list[dict[str, Any]]:
    means = {name: {m: e.mean for m, e in estimates(found, cfg.seed).items()} for name, found in evaluations.items()}
    return beside(collection.name, cfg.split, means, protocols)


def _write_queries(builder: Builder, evaluations: Mapping[str, Sequence[Evaluation]]) -> None:
    with (builder.path / "per_query.jsonl").open("w") as lines:
        for name, seeds in evaluations.items():
            for number, evaluation in enumerate(seeds):
                which = {"system": name} | ({"seed": number} if len(seeds) > 1 else {})
                lines.writelines(json.dumps(which | row) + "\n" for row in evaluation.rows())


def _write_differences(
    cfg: DictConfig,
    collection: Collection,
    builder: Builder,
    made: Sequence[Made],
    evaluations: Mapping[str, Sequence[Evaluation]],
    reference: str,
) -> None:
    """The queries that gain and lose most from BM25 (or the first other system) to the reference, by its first seed."""
    from colbert_lab.evaluation.differences import differences

    others = [one for one in made if one.name != reference]
    if not others:
        return
    one = next((o for o in others if isinstance(o.system, Bm25)), others[0])
    other = next(o for o in made if o.name == reference)
    common = [m for m in evaluations[one.name][0].per_query if m in evaluations[reference][0].per_query]
    metric = HEADLINE if HEADLINE in common else common[0]

    def text(texts: Any, name: str) -> str | None:
        return texts.get([name])[0] if name in texts else None

    found = differences(
        one.runs[0].run,
        other.runs[0].run,
        evaluations[one.name][0],
        evaluations[reference][0],
        metric,
        collection.qrels(cfg.split),
        lambda query: text(collection.queries, query),
        lambda document: text(collection.corpus, document),
        _SHOWN,
        (one.name, reference),
    )
    _explain(cfg, collection, found, {"a": one, "b": other})
    (builder.path / "differences.json").write_text(json.dumps(found.to_json(), indent=1))


def _explain(cfg: DictConfig, collection: Collection, found: Any, sides: Mapping[str, Made]) -> None:
    """Into the first few differences: by each late-interaction system, the best relevant document and its own first."""
    from colbert_lab.stages.explain import explanations_of
    from colbert_lab.stages.explain_report import noted

    some = [*found.gained[:_EXPLAINED], *found.lost[:_EXPLAINED]]
    for side, one in sides.items():
        if not _explainable(one):
            continue
        pairs = [(difference, d) for difference in some for d in _worth_explaining(difference, f"rank_{side}")]
        ids = [(difference.query, document) for difference, document in pairs]
        told = explanations_of(one.model, collection, cfg, ids, passages_of(cfg))
        for difference, document in pairs:
            explained = difference.explanations.setdefault(side, {})
            explained[document] = noted(told[difference.query, document], _note(one))


def _explainable(one: Made) -> bool:
    """Whether token vectors ranked its documents: an index of one pooled vector a text has none."""
    return isinstance(one.system, EndToEnd | Rerank) and (one.index is None or has_token_vectors(one.index))


def _note(one: Made) -> str | None:
    return None if one.index is None else merged(one.index)


def _worth_explaining(difference: Any, rank: str) -> list[str]:
    known = [one for one in difference.documents if one.text is not None]
    ranked = sorted((one for one in known if getattr(one, rank)), key=lambda one: getattr(one, rank))
    relevant = [one for one in (*ranked, *known) if (one.grade or 0) > 0]
    return list(dict.fromkeys(one.id for one in (*relevant[:1], *ranked[:1])))


def _plots(builder: Builder, told: Mapping[str, Any], made: Sequence[Made]) -> None:
    from colbert_lab.report.pareto import Point, pareto_plot

    systems = told["systems"]
    title = f"{told['collection']} {told['split']}, {told['queries']:,} queries"
    for file, cost, unit, called in (
        ("quality-cost.svg", "p50_ms", 1, "ms a query, one at a time (p50)"),
        ("quality-bytes.svg", "index_bytes", 1e6, "MB of all indexes that a query goes through"),
    ):
        some = [
            one
            for one in made
            if HEADLINE in systems[one.name]["means"] and (systems[one.name]["cost"] or {}).get(cost)
        ]
        if not some:
            continue
        quality = [systems[one.name]["means"][HEADLINE] for one in some]
        spent = [systems[one.name]["cost"][cost] / unit for one in some]
        points = [
            Point(one.name, "", c, q, front)
            for one, q, c, front in zip(some, quality, spent, pareto(quality, spent), strict=True)
        ]
        pareto_plot(builder.path / file, points, title, called, head(HEADLINE))


def _track(tracker: Tracker, told: Mapping[str, Any]) -> None:
    rows = []
    for name, one in told["systems"].items():
        cost = {key: value for key, value in (one["cost"] or {}).items() if isinstance(value, int | float)}
        rows.append({"system": name, **one["means"], **cost})
    tracker.table("compare/systems", rows)
    means = told["systems"][told["baseline"]]["means"]
    tracker.summary({f"compare/{metric}": value for metric, value in means.items()})
    tracker.summary({"objective": means.get(HEADLINE, next(iter(means.values())))})


def _track_queries(
    tracker: Tracker,
    cfg: DictConfig,
    collection: Collection,
    made: Sequence[Made],
    evaluations: Mapping[str, Sequence[Evaluation]],
) -> None:
    from colbert_lab.stages.explain import explanations_of

    def explain(one: Made) -> Explain | None:
        if not _explainable(one):
            return None
        return lambda pairs: explanations_of(one.model, collection, cfg, pairs, passages_of(cfg))

    judged = {one.name: Judged(evaluations[one.name], [f.run for f in one.runs], explain(one)) for one in made}
    tracker.table(NAME, query_rows(judged, collection.queries, collection.corpus), by=worst_by(judged))
