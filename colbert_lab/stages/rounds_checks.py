"""What of a rounds experiment cannot go well, told before anything is read: its teachers, and what its tables show."""

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError
from colbert_lab.evaluation.metrics import parse_metrics, within_depth
from colbert_lab.stages.making import create
from colbert_lab.stages.plan import Rounds, takes
from colbert_lab.stages.score import warn_of_scales
from colbert_lab.stages.teacher import check_teacher, refuse_teacher


def check_plan(cfg: DictConfig) -> None:
    """ConfigError where the plan has no use for what is asked for, or a table would have a line without any figure.

    Says it where teachers on different scales are averaged.
    """
    plan: Rounds = create(cfg.rounds)
    steps = plan.once | plan.each
    stages = [step["stage"] for step in steps.values()]
    if "teacher" in stages:
        check_teacher(cfg)
    else:
        refuse_teacher(cfg)
    several = [names for step in plan.each.values() if len(names := takes(step).get("teachers", [])) > 1]
    for names in several:
        warn_of_scales([steps[name]["stage"] if name in steps else name for name in names], cfg.score.normalise)
    if ("teacher" in stages or several) and not within_depth(cfg.evaluate.metrics, cfg.rerank.k):
        raise ConfigError(_too_shallow(list(cfg.evaluate.metrics), cfg.rerank.k))


def headline(cfg: DictConfig) -> str:
    """The metric that the best round is chosen by: nDCG@10 where it is measured, else the first that is."""
    names = [metric.name for metric in parse_metrics(cfg.evaluate.metrics)]
    return "ndcg_10" if "ndcg_10" in names else names[0]


def _too_shallow(metrics: list[str], k: int) -> str:
    depths = [metric.k for metric in parse_metrics(metrics) if metric.k is not None]
    mend = f"rerank.k={min(depths)}" if depths else f"evaluate.metrics=[{','.join([*metrics, 'ndcg_10'])}]"
    return (
        f"a teacher re-ranks rerank.k={k} documents for the tables, and none of evaluate.metrics "
        f"({', '.join(metrics)}) looks at so few\ntry: {mend}"
    )
