"""The systems of a comparison: all their mistakes at once, and the order in which they can be made."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError
from colbert_lab.evaluation.metrics import within_depth
from colbert_lab.stages.comparison.kinds import (
    LATE,
    Bm25,
    CrossEncoder,
    EndToEnd,
    GivenRun,
    Rerank,
    SingleVector,
    System,
    is_artifact,
    models,
    sources,
    system_of,
)
from colbert_lab.stages.making import plain
from colbert_lab.stages.overrides import close

# The system that candidates=RUN is.
GIVEN = "given"


def read_systems(cfg: DictConfig) -> tuple[dict[str, System], dict[str, str]]:
    """The systems of cfg, each after those that it builds on; and those left out, with the reason.

    One ConfigError tells every mistake: unknown kinds, keys, indexes and systems, a circle, a missing model, a k beyond
    the depth of what is re-ranked, or below what every metric looks at.
    """
    given = dict(plain(cfg.systems))
    if cfg.candidates is not None:
        given = {GIVEN: {"kind": "run", "run": cfg.candidates}, **given}
    found: dict[str, System] = {}
    problems: list[str] = []
    for name, values in given.items():
        try:
            found[name] = system_of(name, values)
        except ConfigError as error:
            problems += error.problems
    problems += _unknown(found, given)
    if not given:
        problems.append("there is no system to judge\ntry: systems=standard")
    order, circle = _ordered(found)
    if circle:
        problems.append(f"{' -> '.join(circle)}: these build on one another, none can be first")
    left = _left_out(cfg, {name: found[name] for name in order})
    kept = {name: found[name] for name in order if name not in left}
    problems += [] if circle or problems else [*_depths(cfg, kept), *_seeds(cfg, kept)]
    for name, system in found.items():
        if isinstance(system, CrossEncoder) and system.max_length:
            place = system.teacher or cfg.cross_encoder
            if place is not None and is_artifact(place):
                problems.append(
                    f"systems.{name}.max_length={system.max_length}: the cross-encoder at {place} has its own\n"
                    f"try: systems.{name}.max_length=null"
                )
    for name, system in found.items():
        if isinstance(system, LATE) and not models(cfg, system):
            problems.append(f"systems.{name}: no late-interaction model is given\ntry: model=<directory of a model>")
    if cfg.baseline is not None and cfg.baseline not in given:
        problems.append(_no_such("baseline", cfg.baseline, list(given)))
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "the systems")
    if not kept:
        raise ConfigError(f"no system is left: {'; '.join(left.values())}", "the systems")
    if cfg.baseline in left:
        raise ConfigError(f"baseline={cfg.baseline} is left out: {left[cfg.baseline]}", "the systems")
    return kept, left


def _unknown(found: Mapping[str, System], given: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, system in found.items():
        for source in sources(system):
            if source == GIVEN and GIVEN not in given:
                problems.append(f"systems.{name} re-ranks a given run, and none is given\ntry: candidates=RUN.trec.gz")
            elif source not in given:
                problems.append(_no_such(f"systems.{name}.of", source, list(given)))
    return problems


def _no_such(where: str, name: str, known: Sequence[str]) -> str:
    meant = close(name, known)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    return f"{where}={name}: there is no such system{hint} systems: {', '.join(known)}"


def _depths(cfg: DictConfig, found: Mapping[str, System]) -> list[str]:
    """Re-rankers that ask for more than there is, and systems with fewer results than any metric looks at."""
    searched = cfg.search.k

    def depth(name: str, seen: tuple[str, ...] = ()) -> int:
        system = found.get(name)
        if system is None or name in seen:
            return searched
        if isinstance(system, GivenRun):
            from colbert_lab.stages.rerank import read_run

            return read_run(system.run)[0].depth
        below = [depth(source, (*seen, name)) for source in sources(system)]
        return min(
            [
                searched if isinstance(system, Bm25 | SingleVector | EndToEnd) else max(below),
                getattr(system, "k", searched),
            ]
        )

    problems = []
    for name, system in found.items():
        if isinstance(system, Rerank | CrossEncoder) and system.k > (there := depth(system.of)):
            problems.append(
                f"systems.{name}.k={system.k}, but {system.of} has {there:,} results a query\n"
                f"try: systems.{name}.k={there}, or '~systems.{name}'"
            )
        if isinstance(system, EndToEnd | Bm25 | SingleVector) or within_depth(cfg.evaluate.metrics, depth(name)):
            continue
        problems.append(
            f"systems.{name} has {depth(name):,} results a query, and none of evaluate.metrics looks at so few\n"
            f"try: evaluate.metrics=[ndcg_{max(1, depth(name))},...], or '~systems.{name}'"
        )
    return problems


def _ordered(found: Mapping[str, System]) -> tuple[list[str], list[str]]:
    """Names, each after its sources, otherwise as they stand; and a circle, where there is one."""
    order: list[str] = []

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in order or name not in found:
            return []
        for source in sources(found[name]):
            if circle := visit(source, [*path, name]):
                return circle
        order.append(name)
        return []

    for name in found:
        if circle := visit(name, []):
            return order, circle
    return order, []


def _seeds(cfg: DictConfig, found: Mapping[str, System]) -> list[str]:
    """Systems built on others of another number of seeds."""
    counts: dict[str, int] = {}
    problems = []
    for name, system in found.items():
        own = len(models(cfg, system)) if isinstance(system, LATE) else 1
        several = sorted({count for count in (own, *(counts[source] for source in sources(system))) if count > 1})
        if len(several) > 1:
            problems.append(f"systems.{name} is built of {' and '.join(map(str, several))} seeds; as many are needed")
        counts[name] = several[-1] if several else 1
    return problems


def _left_out(cfg: DictConfig, found: Mapping[str, System]) -> dict[str, str]:
    """What is left out, for want of a cross-encoder or as built on such a one: name -> reason."""
    left: dict[str, str] = {}
    for name, system in found.items():
        if isinstance(system, CrossEncoder) and system.teacher is None and cfg.cross_encoder is None:
            left[name] = f"{name} is left out: there is no cross-encoder (teacher=DIR, made by experiments/teacher.py)"
        elif without := [source for source in sources(system) if source in left]:
            left[name] = f"{name} is left out: it builds on {without[0]}"
    return left
