"""What of a rounds experiment cannot go well, told before anything is read: its teachers, and what its tables show."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError
from colbert_lab.evaluation.metrics import parse_metrics, within_depth
from colbert_lab.stages.index import passages_of
from colbert_lab.stages.making import create, plain
from colbert_lab.stages.plan import Rounds, takes
from colbert_lab.stages.score import warn_of_scales
from colbert_lab.stages.teacher import check_teacher, refuse_teacher


def check_plan(cfg: DictConfig) -> None:
    """ConfigError where the plan has no use for what is asked for, or a table would have a line without any figure.

    Also where the teachers cannot score: their weights are not one for each, or an index among them keeps no vectors.
    All mistakes of the teachers are told at once. Says it where teachers on different scales are averaged.
    """
    plan: Rounds = create(cfg.rounds)
    steps = plan.once | plan.each
    stages = [step["stage"] for step in steps.values()]
    if "teacher" in stages:
        check_teacher(cfg)
    else:
        refuse_teacher(cfg)
    scoring = {name: takes(step)["teachers"] for name, step in plan.each.items() if step["stage"] == "score"}
    problems = [*_wrong_weights(cfg, scoring), *_without_vectors(cfg, steps, scoring)]
    if problems:
        raise ConfigError(problems, "the teachers of the rounds")
    several = [names for step in plan.each.values() if len(names := takes(step).get("teachers", [])) > 1]
    for names in several:
        warn_of_scales([steps[name]["stage"] if name in steps else name for name in names], cfg.score.normalise)
    if ("teacher" in stages or several) and not within_depth(cfg.evaluate.metrics, cfg.rerank.k):
        raise ConfigError(_too_shallow(list(cfg.evaluate.metrics), cfg.rerank.k))


def headline(cfg: DictConfig) -> str:
    """The metric that the best round is chosen by: nDCG@10 where it is measured, else the first that is."""
    names = [metric.name for metric in parse_metrics(cfg.evaluate.metrics)]
    return "ndcg_10" if "ndcg_10" in names else names[0]


def _wrong_weights(cfg: DictConfig, scoring: Mapping[str, list[str]]) -> list[str]:
    """By step that scores: that score.weights are not one number from 0 on for each of its teachers, not all 0."""
    weights = plain(cfg.score.weights)
    if weights is None:
        return []
    shown = ",".join(map(str, weights))
    return [
        f"score.weights=[{shown}] must be one number for each teacher of rounds.each.{name} ({', '.join(names)}), none "
        f"below 0 and not all 0\ntry: score.weights=[{','.join(['1.0'] * len(names))}], or score.weights=null"
        for name, names in scoring.items()
        if len(weights) != len(names) or min(weights) < 0 or not sum(weights) > 0
    ]


def _without_vectors(cfg: DictConfig, steps: Mapping[str, Any], scoring: Mapping[str, list[str]]) -> list[str]:
    """By step that scores: that an index among its teachers keeps no document vectors, which MaxSim is computed of."""
    kept = getattr(create(cfg.index), "keeps_vectors", True) and passages_of(cfg) is None
    if kept:
        return []
    found = []
    for name, names in scoring.items():
        for teacher in (one for one in names if one in steps and steps[one]["stage"] == "index"):
            (model,) = takes(steps[teacher])["model"]
            instead = ",".join(model if one == teacher else one for one in names)
            found.append(
                f"{teacher} among the teachers of rounds.each.{name} is an index ({cfg.index._target_.split('.')[-1]}) "
                f"that keeps no documents' vectors to score with\n"
                f"try: index=exact, or its model as the teacher: rounds.each.{name}.teachers=[{instead}]"
            )
    return found


def _too_shallow(metrics: list[str], k: int) -> str:
    depths = [metric.k for metric in parse_metrics(metrics) if metric.k is not None]
    mend = f"rerank.k={min(depths)}" if depths else f"evaluate.metrics=[{','.join([*metrics, 'ndcg_10'])}]"
    return (
        f"a teacher re-ranks rerank.k={k} documents for the tables, and none of evaluate.metrics "
        f"({', '.join(metrics)}) looks at so few\ntry: {mend}"
    )
