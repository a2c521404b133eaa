"""Records: what a page tells, as plain data that stages have read and the sections draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Curve:
    """One metric of one run over `axis`: (step, value) in the order of logging, finite values only.

    `skipped` values were no numbers.
    """

    axis: str
    points: Sequence[tuple[float, float]]
    skipped: int = 0


@dataclass(frozen=True)
class RunRecord:
    """One run, or the artifact that it made. `key` names it on the page, `label` to a person, `place` in the logs.

    `config` is flat, by dotted keys; `inputs` are (role, place) pairs; `problem` says what of its log cannot be read.
    """

    key: str
    label: str
    place: str
    kind: str
    state: str
    error: str | None = None
    problem: str | None = None
    started: float | None = None
    seconds: float | None = None
    digest: str | None = None
    notes: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    histograms: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    inputs: Sequence[tuple[str, str]] = ()

    @property
    def objective(self) -> float | None:
        """The headline number, where the run set one."""
        value = self.summary.get("objective")
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Results:
    """What one judging found: systems by metrics, tests against the baseline, and what guards them.

    `systems` are as in comparison.json, of metrics.json with "means" and "counts" only. `per_query` is
    system -> query -> value of the first metric.
    """

    label: str
    collection: str
    split: str
    systems: Mapping[str, Mapping[str, Any]]
    tests: Sequence[Mapping[str, Any]] = ()
    baseline: str | None = None
    test: str | None = None
    queries: int | None = None
    corpus: str | None = None
    relevance_level: int | None = None
    published: Sequence[Mapping[str, Any]] = ()
    guards: Mapping[str, Any] = field(default_factory=dict)
    truncation: Mapping[str, Any] = field(default_factory=dict)
    differences: Sequence[Mapping[str, Any]] = ()
    per_query: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metric: str | None = None


def label_of(results: Results, system: str) -> str:
    """What a system is called: its label, or its name where another has the same label or it has none."""
    labels = [one.get("label") for one in results.systems.values()]
    label = results.systems[system].get("label")
    return str(label) if label and labels.count(label) == 1 else system


@dataclass(frozen=True)
class Sweep:
    """A sweep: its jobs (the latest record of each), the key of the run behind each, and sweep.json if any."""

    label: str
    jobs: Sequence[Mapping[str, Any]]
    runs: Sequence[str | None]
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """Everything of a page. `suites`, `rounds` and `fidelity` are (label, suite.json, ...) pairs."""

    title: str
    runs: Sequence[RunRecord] = ()
    results: Sequence[Results] = ()
    suites: Sequence[tuple[str, Mapping[str, Any]]] = ()
    rounds: Sequence[tuple[str, Mapping[str, Any]]] = ()
    fidelity: Sequence[tuple[str, Mapping[str, Any]]] = ()
    sweeps: Sequence[Sweep] = ()
