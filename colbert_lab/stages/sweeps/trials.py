"""Trials of a Bayesian search, by Optuna: what to try next, when to stop a trial, and what was found; kept in a file.

A search has `trials` places. What is tried at a place is drawn under (seed, place) from what the places before it gave,
so that a search that was killed and taken up again tries what it would have tried. A trial that was running when its
process was killed is marked failed, and tried again with the same values at the same place.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from colbert_lab.errors import ConfigError
from colbert_lab.stages.overrides import shown
from colbert_lab.stages.sweeps.kinds import Bayes

_PLACE = "place"
# Of the trial at the configuration's own values: no digit of them is rounded away.
_OWN = "own"
# Enough for a search, and short enough for a name; a narrow range gets as many as tell it apart as well.
_DIGITS = 4


@dataclass(frozen=True)
class Asked:
    """A trial to be run: its place, and the values to run it at, as texts of overrides by key."""

    place: int
    values: Mapping[str, str]
    trial: Trial


class Trials:
    """The search in `file`; one process at a time may hold it."""

    def __init__(self, file: Path, kind: Bayes, space: Mapping[str, BaseDistribution], default: Mapping[str, Any]):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._kind, self._space = kind, dict(space)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name="sweep",
            direction="maximize",
            pruner=_pruner(kind),
            load_if_exists=True,
        )
        self._recover()
        if not self._places():
            first = _within(self._space, default)
            if first is not None:
                self._study.enqueue_trial(first, user_attrs={_PLACE: 0, _OWN: True})

    @property
    def left(self) -> int:
        """How many places nothing has been tried at, or only what was killed or failed in an earlier call."""
        closed = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL)
        return self._kind.trials - sum(state in closed for state in self._places().values())

    def ask(self) -> Asked:
        """The next trial; what waits to be tried again comes first."""
        places = self._places()
        again = [place for place, state in places.items() if state is TrialState.WAITING]
        place = min(again) if again else min(set(range(len(places) + 1)) - places.keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some of its options may change
            self._study.sampler = TPESampler(
                n_startup_trials=self._kind.startup,
                seed=int(np.random.SeedSequence([self._kind.seed, place]).generate_state(1)[0]),
            )
        trial = self._study.ask(self._space)
        if _PLACE in trial.user_attrs:
            place = trial.user_attrs[_PLACE]
        else:
            trial.set_user_attr(_PLACE, place)
        own = trial.user_attrs.get(_OWN, False)
        values = {key: _text(distribution, trial.params[key], own) for key, distribution in self._space.items()}
        return Asked(place, values, trial)

    def report(self, asked: Asked, step: int, value: float) -> bool:
        """Tell what a trial has reached at a step; whether it shall be stopped."""
        asked.trial.report(value, step)
        return asked.trial.should_prune()

    def tell(self, asked: Asked, value: float | None) -> None:
        """Close a trial that came to its end with `value`; None or no number: it failed."""
        if value is None or not np.isfinite(value):
            self._study.tell(asked.trial, state=TrialState.FAIL)
        else:
            self._study.tell(asked.trial, value)

    def prune(self, asked: Asked) -> None:
        """Close a trial that was stopped; its last report stands for its value."""
        self._study.tell(asked.trial, state=TrialState.PRUNED)

    def _recover(self) -> None:
        """Put every place whose trial was killed, or failed in an earlier call, in line to be tried again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
        for trial in self._latest().values():
            if trial.state is TrialState.FAIL:
                # One killed while it was being asked for again has its values where they were put in line.
                values = trial.system_attrs.get("fixed_params", {}) | trial.params
                self._study.enqueue_trial(values, user_attrs=trial.user_attrs)

    def _latest(self) -> dict[int, FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return {trial.user_attrs[_PLACE]: trial for trial in trials if _PLACE in trial.user_attrs}

    def _places(self) -> dict[int, TrialState]:
        return {place: trial.state for place, trial in self._latest().items()}


def importance(file: Path) -> tuple[dict[str, float], str]:
    """How much each parameter mattered (PED-ANOVA, Watanabe et al., IJCAI 2023), largest first, and a word on it.

    Empty where the trials that came to their end do not suffice.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="sweep", storage=JournalStorage(JournalFileBackend(str(file))))
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({trial.value for trial in complete}) < 2:
        return {}, f"{len(complete)} trials came to their end; two different results at least are needed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        except (ValueError, RuntimeError) as error:
            return {}, str(error)
    return dict(found), f"PED-ANOVA over the {len(complete)} trials that came to their end, summing to 1"


def space_of(swept: Mapping[str, Override]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the ranges that overrides give; ConfigError for a range that is none."""
    return {key: _distribution(one) for key, one in swept.items()}


def texts_of(distribution: BaseDistribution) -> list[str]:
    """Every choice, or both ends, as texts of overrides."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [_text(distribution, end) for end in (distribution.low, distribution.high)]


def _distribution(one: Override) -> BaseDistribution:
    value = one.value()
    try:
        if isinstance(value, IntervalSweep):
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            kind: Callable[..., BaseDistribution] = IntDistribution if whole else FloatDistribution
            return kind(value.start, value.end, log="log" in value.tags)
        if isinstance(value, RangeSweep):
            numbers = list(value.range())
            kind = IntDistribution if all(isinstance(number, int) for number in numbers) else FloatDistribution
            return kind(min(numbers), max(numbers), step=abs(value.step))
    except ValueError as error:
        raise ConfigError(f"{one.input_line}: {error}") from error
    return CategoricalDistribution(tuple(one.sweep_string_iterator()))


def _text(distribution: BaseDistribution, value: Any, exact: bool = False) -> str:
    if isinstance(distribution, FloatDistribution):
        if exact or distribution.step is not None:
            return repr(float(value))
        width = distribution.high - distribution.low
        largest = max(abs(distribution.low), abs(distribution.high))
        more = math.ceil(math.log10(largest / width)) if 0 < width < largest else 0
        # Rounded for the eye, within the range all the same.
        return repr(min(max(float(f"{value:.{min(_DIGITS + more, 17)}g}"), distribution.low), distribution.high))
    return str(value)


def _within(space: Mapping[str, BaseDistribution], default: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration's own values, where all of them lie in the space."""
    found = {}
    for key, distribution in space.items():
        value = default.get(key)
        if isinstance(distribution, CategoricalDistribution):
            value = shown(value)
            inside = value in distribution.choices
        else:
            inside = isinstance(value, int | float) and distribution._contains(distribution.to_internal_repr(value))
        if not inside:
            return None
        found[key] = value
    return found


def _pruner(kind: Bayes) -> optuna.pruners.BasePruner:
    if kind.pruner == "none":
        return optuna.pruners.NopPruner()
    percentile = 50.0 if kind.pruner == "median" else kind.percentile
    return optuna.pruners.PercentilePruner(percentile, n_startup_trials=kind.after, n_warmup_steps=kind.warmup)
