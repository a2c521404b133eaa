"""What can be compared: the kinds of systems and their keys.

    systems:
      bm25: {kind: bm25}
      rerank_100: {kind: rerank, of: bm25, k: 100}

A kind's fields are the keys that a system may have.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError
from colbert_lab.search.fusion import RRF_K
from colbert_lab.stages.annotations import described, fits, nearest
from colbert_lab.stages.fidelity_grid import Setting, settings
from colbert_lab.stages.launch import conf_dir
from colbert_lab.stages.overrides import close, shown


@dataclass(frozen=True)
class Bm25:
    """`bm25`: BM25 over the texts, as index=bm25 has it."""

    of: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class SingleVector:
    """`single_vector`: a bi-encoder, one vector a text, searched exactly; no interaction.

    model: its directory, or a backbone's name whose states are pooled (null: the embedded all-MiniLM-L6-v2, which was
    trained to be pooled). pooling: "mean" or "cls", of a backbone. Texts are cut where the late-interaction model cuts
    them. (A late-interaction model's own pooled vectors: `end_to_end` with index single_vector.)
    """

    of: ClassVar[tuple[str, ...]] = ()
    model: str | None = None
    pooling: Literal["mean", "cls"] = "mean"


@dataclass(frozen=True)
class CrossEncoder:
    """`cross_encoder`: early interaction; reads each query with each of the best `k` of another system.

    teacher: a directory or a Hugging Face id (null: the verb's). max_length: ids of a pair (null: 180, as ColBERTv2's
    teacher); refused of one that experiments/teacher.py made, which has its own.
    """

    of: str
    k: int = 20
    teacher: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Rerank:
    """`rerank`: late interaction puts the best `k` of another system in order, with document vectors made before.

    model: null is the verb's model=; a list is one model under several seeds.
    """

    of: str
    k: int = 100
    model: str | list[str] | None = None


@dataclass(frozen=True)
class EndToEnd:
    """`end_to_end`: late interaction over all documents by an index of conf/index.

    options: what is other than there, of the index and of its search (`{bits: 1, candidates: 600}`), or of pooling.
    """

    of: ClassVar[tuple[str, ...]] = ()
    index: str = "exact"
    options: dict[str, Any] = field(default_factory=dict)
    model: str | list[str] | None = None


@dataclass(frozen=True)
class Fusion:
    """`fusion`: other systems' results by reciprocal rank, 1 / (rrf_k + rank)."""

    of: list[str]
    rrf_k: int = RRF_K


@dataclass(frozen=True)
class GivenRun:
    """`run`: results that are there, a run's directory or a TREC file; what they cost is not known."""

    of: ClassVar[tuple[str, ...]] = ()
    run: str


System = Bm25 | SingleVector | CrossEncoder | Rerank | EndToEnd | Fusion | GivenRun
KINDS: dict[str, type] = {
    "bm25": Bm25,
    "single_vector": SingleVector,
    "cross_encoder": CrossEncoder,
    "rerank": Rerank,
    "end_to_end": EndToEnd,
    "fusion": Fusion,
    "run": GivenRun,
}
LATE = (Rerank, EndToEnd)


def kind_of(system: System) -> str:
    """The name of its kind."""
    return next(name for name, one in KINDS.items() if isinstance(system, one))


def sources(system: System) -> tuple[str, ...]:
    """The systems that it builds on."""
    return (system.of,) if isinstance(system.of, str) else tuple(system.of)


def models(cfg: DictConfig, system: System) -> list[str]:
    """The places of a late-interaction system's models, one for each seed; none where none is given."""
    if isinstance(system.model, list):
        return system.model
    if system.model is not None:
        return [system.model]
    return [] if cfg.model is None else [cfg.model, *(cfg.seeds or [])]


def is_artifact(place: str) -> bool:
    """Whether a place is the directory of an artifact; else it is a directory of Hugging Face's, or a name there."""
    return (Path(place).expanduser() / "manifest.json").is_file()


def setting_of(name: str, system: EndToEnd) -> Setting:
    """The index to build and how to search it; ConfigError for options that neither has, or that are lists."""
    try:
        found = settings({system.index: system.options}, conf_dir())
    except ConfigError as error:
        where = f"grid.{system.index}"
        told = [
            p.replace(f"{where}.", f"systems.{name}.options.").replace(where, f"systems.{name}") for p in error.problems
        ]
        raise ConfigError(told) from error
    if len(found) != 1:
        raise ConfigError(
            f"systems.{name}.options has lists of values; a system is one setting\ntry: a system for each"
        )
    return found[0]


def system_of(name: str, values: Any) -> System:
    """The system that plain values say; ConfigError for an unknown kind or key, and for values that do not fit."""
    if not isinstance(values, dict) or values.get("kind") not in KINDS:
        given = values.get("kind") if isinstance(values, dict) else values
        meant = close(str(given), list(KINDS))
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise ConfigError(f"systems.{name}: {given!r} is no kind of system{hint} kinds: {', '.join(KINDS)}")
    kind = KINDS[values["kind"]]
    hints = get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind)}
    problems = []
    for key, value in values.items():
        if key == "kind":
            continue
        if key not in fields:
            meant = close(key, list(fields))
            hint = f"; did you mean {meant[0]!r}?" if meant else ""
            problems.append(
                f"systems.{name}: unknown key {key!r}{hint} a {values['kind']} has: {', '.join(fields) or 'none'}"
            )
        elif not fits(value, hints[key]):
            problems.append(
                f"systems.{name}.{key}={shown(value)} must be {described(hints[key])}\n"
                f"try: systems.{name}.{key}={nearest(value, hints[key], fields[key].default)}"
            )
    missing = [
        key
        for key, one in fields.items()
        if key not in values and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    problems += [f"systems.{name}.{key} is missing\ntry: +systems.{name}.{key}=..." for key in missing]
    if not problems:
        made = kind(**{key: value for key, value in values.items() if key != "kind"})
        problems = _values(name, made)
    if problems:
        raise ConfigError(problems)
    return made


def _values(name: str, system: System) -> list[str]:
    problems = []
    least = {"k": 1, "rrf_k": 0, "max_length": 5}
    for key, bound in least.items():
        value = getattr(system, key, None)
        if value is not None and value < bound:
            problems.append(f"systems.{name}.{key}={value} must be at least {bound}\ntry: systems.{name}.{key}={bound}")
    if isinstance(system, Fusion) and (len(system.of) < 2 or len(set(system.of)) < len(system.of)):
        problems.append(f"systems.{name}.of={shown(system.of)}: at least two systems, none twice")
    if isinstance(system, LATE) and system.model == []:
        problems.append(f"systems.{name}.model=[] names no model\ntry: systems.{name}.model=null")
    if isinstance(system, GivenRun) and not Path(system.run).expanduser().exists():
        problems.append(f"systems.{name}.run={system.run} does not exist")
    if isinstance(system, EndToEnd):
        try:
            setting_of(name, system)
        except ConfigError as error:
            problems += error.problems
    return problems
