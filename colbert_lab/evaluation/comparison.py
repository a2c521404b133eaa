"""Systems against a baseline on the same queries: a paired test for each, corrected for being several."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.evaluation.significance import PairedTest, Test, holm, paired


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
    evaluations: Mapping[str, Evaluation],
    baseline: str,
    test: Test = "randomisation",
    seed: int = 0,
    resamples: int = 100_000,
) -> list[Compared]:
    """Every other system against `baseline` in the metrics both have, systems in the order given.

    ConfigError where the baseline is none of the systems, DataError where a system was judged on other queries.
    """
    if baseline not in evaluations:
        raise ConfigError(f"the baseline {baseline!r} is none of {', '.join(evaluations)}", "the comparison")
    reference = evaluations[baseline]
    for name, evaluation in evaluations.items():
        if evaluation.queries != reference.queries:
            raise DataError(f"{name} and {baseline} were judged on different queries, they cannot be compared")
    others = [name for name in evaluations if name != baseline]
    compared = []
    for metric, expected in reference.per_query.items():
        names = [name for name in others if metric in evaluations[name].per_query]
        tests = [paired(evaluations[name].per_query[metric], expected, test, seed, resamples) for name in names]
        corrected = holm([result.p for result in tests]).tolist()
        compared += [Compared(n, baseline, metric, p, result) for n, p, result in zip(names, corrected, tests)]
    return sorted(compared, key=lambda c: others.index(c.system))


def chain(
    evaluations: Mapping[str, Evaluation],
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
