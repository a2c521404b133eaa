"""show: one run in a terminal: what it is, what it was made of and with, what it came to, how to make it again."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.report.markup import duration, is_number, significant
from colbert_lab.report.records import Curve, RunRecord
from colbert_lab.report.sections_record import UNTOLD
from colbert_lab.stages.local_runs import inputs, is_run, leaves, manifest_of, record
from colbert_lab.stages.runs import shorter, when, width

_BARS = "▁▂▃▄▅▆▇█"
_SPARK = 40
# A lineage is told down to here; deeper it is the collection and the start again and again.
_DEPTH = 8


def run(cfg: DictConfig) -> str:
    """The run at cfg.of: an artifact's directory, or its name below cfg.root."""
    if cfg.of is None:
        raise ConfigError("no run is given to show\ntry: of=<directory of an artifact, or its name>")
    return told(place_of(cfg.of, Path(cfg.root).expanduser()), width())


def place_of(of: str, root: Path) -> Path:
    """The directory that `of` means: a path, or the name of one artifact below `root`, or how only its name begins."""
    place = Path(of).expanduser().absolute()
    if is_run(place):
        return place
    found = [one for one in sorted(root.glob(f"*/{of}*")) if is_run(one)] if "/" not in of and root.is_dir() else []
    exact = [one for one in found if one.name == of]
    if len(exact or found) == 1:
        return (exact or found)[0].absolute()
    if found:
        raise ConfigError(
            f"of={of} could be any of {len(found)}: {', '.join(one.name for one in found[:6])}\ntry: of={found[0]}"
        )
    raise ArtifactError(f"{place} is no run (neither manifest.json nor log/), nor is one called {of} below {root}")


def told(place: Path, columns: int) -> str:
    """Everything about the run, a block an idea, no line wider than `columns` but for paths and commands."""
    one = record(place)
    parts = [_head(one, place)]
    parts.append(_block("made of", _lineage(place)))
    parts.append(_block("other than the defaults", _changes(place, one, columns)))
    parts.append(_block("came to", _numbers(one)))
    # What an index says of itself in words: that its centroids are stale.
    parts.append(_block("note", textwrap.wrap(str(one.counts.get("note", "")), max(20, columns - 2))))
    parts.append(_block("curves", _curves(one)))
    parts.append(_block("files", _files(place)))
    parts.append(_block("again", [one.command] if one.command else []))
    failed = [line for text in (one.problem, one.error) if text for line in text.splitlines()]
    parts.append(_block("failed", failed))
    return "\n\n".join(part for part in parts if part)


def sparkline(points: Sequence[tuple[float, float]], most: int = _SPARK) -> str:
    """A curve in one line of blocks: of each stretch of steps the mean, from its least (▁) to its greatest (█)."""
    count = min(most, len(points))
    means = []
    for i in range(count):
        part = points[i * len(points) // count : (i + 1) * len(points) // count]
        means.append(sum(value for _, value in part) / len(part))
    low, high = min(means), max(means)
    return "".join(_BARS[round((value - low) / ((high - low) or 1) * (len(_BARS) - 1))] for value in means)


def _head(one: RunRecord, place: Path) -> str:
    took = "" if one.seconds is None else f", took {duration(one.seconds)}"
    lines = [f"{one.kind} {one.label}", f"{one.state}, {when(one.started)} UTC{took}", str(place)]
    return "\n".join([*lines, *([one.notes] if one.notes else [])])


def _lineage(place: Path, depth: int = 0, known: set[str] | None = None) -> list[str]:
    """Inputs, and theirs, each indented below what was made of it; one that was told already is not told again."""
    known = set() if known is None else known
    lines = []
    for role, path in inputs(place):
        if not path:
            continue
        there = Path(path)
        seen = path in known
        known.add(path)
        state = " (above)" if seen else "" if is_run(there) else " (gone)"
        lines.append(f"{'  ' * depth}{role}: {there.parent.name}/{there.name}{state}")
        if not seen and is_run(there) and depth < _DEPTH:
            lines += _lineage(there, depth + 1, known)
    return lines


def _changes(place: Path, one: RunRecord, columns: int) -> list[str]:
    """Keys whose value is not the one that the primary YAML of the run's verb has."""
    verb = _verb(one)
    default = _defaults(verb) if verb else {}
    if not default:
        return []
    changed = [
        (key, value)
        for key, value in one.config.items()
        if key in default and default[key] != value and key.partition(".")[0] not in UNTOLD
    ]
    size = max((len(key) for key, _ in changed), default=0)
    return [shorter(f"{key:<{size}}  {value}  (default {default[key]})", columns - 2) for key, value in changed]


def _verb(one: RunRecord) -> str | None:
    words = (one.command or "").split()
    if words[:1] == ["colbert-lab"] and len(words) > 1:
        return words[1]
    return Path(words[1]).stem if words[:1] == ["python"] and len(words) > 1 else None


def _defaults(verb: str) -> dict:
    """The verb's configuration as it is without any override; empty where it cannot be composed by itself."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from colbert_lab.stages.launch import conf_dir

    # This verb itself runs inside Hydra, which is one a process.
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return leaves(OmegaConf.to_container(compose(verb), resolve=True))
    except (HydraException, OmegaConfBaseException):
        return {}
    finally:
        GlobalHydra.instance().hydra = running


def _numbers(one: RunRecord) -> list[str]:
    told = {**{f"counts.{k}": v for k, v in one.counts.items() if is_number(v)}, **one.summary}
    size = max((len(name) for name in told), default=0)
    return [f"{name:<{size}}  {significant(v, 5) if is_number(v) else v}" for name, v in told.items()]


def _curves(one: RunRecord) -> list[str]:
    """One line a metric: its course, then its first, best and last value."""
    curves: list[tuple[str, Curve]] = [(name, curve) for name, curve in one.curves.items() if len(curve.points) > 1]
    size = max((len(name) for name, _ in curves), default=0)
    lines = []
    for name, curve in curves:
        first, last = curve.points[0], curve.points[-1]
        course = f"{significant(first[1])} -> {significant(last[1])} at {curve.axis.rpartition('/')[2]} {last[0]}"
        lines.append(f"{name:<{size}}  {sparkline(curve.points):<{min(_SPARK, 40)}}  {course}")
    return lines


def _files(place: Path) -> list[str]:
    files = manifest_of(place).get("files", {})
    sizes = {name: entry["bytes"] for name, entry in files.items()}
    if not sizes:
        sizes = {str(f.relative_to(place)): f.stat().st_size for f in sorted(place.rglob("*")) if f.is_file()}
    size = max((len(name) for name in sizes), default=0)
    return [f"{name:<{size}}  {count:>15,} B" for name, count in sizes.items()]


def _block(head: str, lines: Sequence[str]) -> str:
    return f"{head}\n{textwrap.indent(chr(10).join(lines), '  ')}" if lines else ""
