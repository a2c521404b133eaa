"""The plan of a rounds experiment, as data: which stage takes what from which.

    once:   steps made before the first round, by name
    each:   steps made anew in every round; `previous` is the model of the round before, the step `model` is its own

A step is {stage: NAME, role: STEP, ...}: the stage's name and, for everything that it takes, the step that makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What each stage takes, by role; the list of teachers may hold any number. `lexical` makes BM25's run of the training
# queries, to mine in an index's place; `bm25` a teacher that scores any pair.
ROLES: dict[str, set[str]] = {
    "init": set(),
    "train": {"model"},
    "teacher": set(),
    "lexical": set(),
    "bm25": set(),
    "index": {"model"},
    "search": {"index"},
    "mine": {"run"},
    "score": {"candidates", "teachers"},
    "tuples": {"candidates", "scores"},
    "distil": {"model", "tuples"},
}
PREVIOUS, MODEL = "previous", "model"


@dataclass(frozen=True)
class Rounds:
    """How many rounds, which model the first one starts from, and the steps.

    count: rounds after round 0. first: the step of `once` whose model is round 0's. once, each: the steps, see above.
    """

    count: int
    first: str
    once: dict[str, dict[str, Any]]
    each: dict[str, dict[str, Any]]

    @staticmethod
    def problems(count: int, first: str, once: Mapping[str, Any], each: Mapping[str, Any]) -> list[str]:
        """What is wrong with a plan, in words; empty when nothing is."""
        found = [] if count >= 0 else [f"count={count} must be at least 0"]
        known: set[str] = set()
        for name, step in once.items():
            found += _problems(f"once.{name}", step, known)
            known.add(name)
        if first not in known:
            found.append(f"first={first} is none of the steps of once: {', '.join(once)}")
        known.add(PREVIOUS)
        for name, step in each.items():
            if name in once:
                found.append(f"each.{name}: a step of once has that name too")
            found += _problems(f"each.{name}", step, known)
            known.add(name)
        if MODEL not in each:
            found.append(f"each has no step '{MODEL}', so a round makes no model")
        return found


def takes(step: Mapping[str, Any]) -> dict[str, list[str]]:
    """Role -> the steps that a step takes, a single one as a list of one."""
    given = {role: step[role] for role in step if role != "stage"}
    return {role: list(names) if isinstance(names, list | tuple) else [names] for role, names in given.items()}


def _problems(where: str, step: Any, known: set[str]) -> list[str]:
    if not isinstance(step, Mapping) or "stage" not in step:
        return [f"{where} needs a stage: one of {', '.join(ROLES)}"]
    if step["stage"] not in ROLES:
        return [f"{where}.stage={step['stage']} is none of {', '.join(ROLES)}"]
    wanted, given = ROLES[step["stage"]], takes(step)
    found = [f"{where} does not say what it takes as '{role}'" for role in sorted(wanted - given.keys())]
    found += [f"{where}: a {step['stage']} takes no '{role}'" for role in given if role not in wanted]
    for role, names in given.items():
        unknown = [name for name in names if name not in known]
        found += [f"{where}.{role}={name} is no step before it: {', '.join(sorted(known))}" for name in unknown]
        if len(names) != 1 and role != "teachers":
            found.append(f"{where}.{role} takes one step, not {len(names)}")
    return found
