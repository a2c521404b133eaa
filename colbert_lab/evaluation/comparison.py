"""Systems against a baseline on the same queries: a paired test for each, corrected for being several.

A system is one evaluation, or several: those of training runs that differ in nothing but their seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.evaluation.significance import Estimate, PairedTest, Test, estimate, holm, paired

System = Evaluation | Sequence[Evaluation]


@dataclass(frozen=True)
class Compared:
    """One system against the baseline in one metric; `p` is Holm's, over the systems of that metric."""

    system: str
    baseline: str
    metric: str
    p: float
    test: PairedTest

    def mark(self, level: float = 0.05) -> str:
        """`+` significantly better than the baseline, `-` significantly worse, `` neither."""
        return "" if self.p >= level else "+" if self.test.mean_difference > 0 else "-"


def compare(
    evaluations: Mapping[str, System],
    baseline: str,
    test: Test = "randomisation",
    seed: int = 0,
    resamples: int = 100_000,
) -> list[Compared]:
    """Every other system against `baseline` in the metrics both have, systems in the order given.

    A family of tests, which Holm's correction holds together, is one metric over all systems: metrics are not
    corrected for each other. Of several seeds only metrics that all have are compared; see `paired` for their null.
    ConfigError where the baseline is none of the systems, DataError where a system was judged on other queries.
    """
    if baseline not in evaluations:
        raise ConfigError(f"the baseline {baseline!r} is none of {', '.join(evaluations)}", "the comparison")
    queries = _seeds(evaluations[baseline], baseline)[0].queries
    values = {}
    for name, system in evaluations.items():
        seeds = _seeds(system, name)
        if any(evaluation.queries != queries for evaluation in seeds):
            raise DataError(f"{name} and {baseline} were judged on different queries, they cannot be compared")
        values[name] = _values(seeds)
    others = [name for name in evaluations if name != baseline]
    compared = []
    for metric, expected in values[baseline].items():
        names = [name for name in others if metric in values[name]]
        tests = [paired(values[name][metric], expected, test, seed, resamples) for name in names]
        corrected = holm([result.p for result in tests]).tolist()
        compared += [Compared(n, baseline, metric, p, result) for n, p, result in zip(names, corrected, tests)]
    return sorted(compared, key=lambda c: others.index(c.system))


def chain(
    evaluations: Mapping[str, System],
    test: Test = "randomisation",
    seed: int = 0,
    resamples: int = 100_000,
) -> list[Compared]:
    """Every system against the one before it, in the order given; `p` is Holm's over the steps of a metric."""
    names = list(evaluations)
    steps = []
    for before, after in pairwise(names):
        steps += compare({name: evaluations[name] for name in (before, after)}, before, test, seed, resamples)
    for metric in dict.fromkeys(step.metric for step in steps):
        of_metric = [i for i, step in enumerate(steps) if step.metric == metric]
        corrected = holm([steps[i].test.p for i in of_metric]).tolist()
        for i, p in zip(of_metric, corrected):
            steps[i] = replace(steps[i], p=p)
    return steps


def estimates(system: System, seed: int = 0, resamples: int = 10_000) -> dict[str, Estimate]:
    """Metric -> a system's mean over its queries and seeds, its interval, and its deviation over seeds.

    DataError where its seeds were judged on different queries.
    """
    seeds = _seeds(system, "the system")
    if any(evaluation.queries != seeds[0].queries for evaluation in seeds):
        raise DataError("the seeds of one system were judged on different queries")
    return {metric: estimate(values, seed, resamples) for metric, values in _values(seeds).items()}


def _seeds(system: System, name: str) -> Sequence[Evaluation]:
    seeds = [system] if isinstance(system, Evaluation) else list(system)
    if not seeds:
        raise DataError(f"{name} has no evaluation")
    return seeds


def _values(seeds: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Metric -> values [S, B], for the metrics that all seeds have."""
    return {
        metric: np.stack([evaluation.per_query[metric] for evaluation in seeds])
        for metric in seeds[0].per_query
        if all(metric in evaluation.per_query for evaluation in seeds)
    }
