"""The grid of a fidelity report: `grid.residual.bits=[1,2]`, every combination of a kind's values is one setting.

A name belongs to the index where its class takes it (or where it is a section that indexes are made by: pooling,
encode), and to the search where the class's `probe` has such a field. Settings that differ in probes share an index.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError
from colbert_lab.stages.check import check, locate
from colbert_lab.stages.making import plain
from colbert_lab.stages.overrides import close, shown

# Sections beside `index` that an index is made by.
_SECTIONS = ("pooling", "encode")


@dataclass(frozen=True)
class Setting:
    """An index to build and how to search it.

    name: its file in conf/index; index: its node; sections: what is changed beside it, by dotted key; chosen: the
    values of the grid that the index is made of; probe: those that it is searched with.
    """

    name: str
    index: dict[str, Any]
    sections: dict[str, Any]
    chosen: dict[str, Any]
    probe: dict[str, Any]

    @property
    def series(self) -> str:
        """The index, as text: `residual bits=2`."""
        return " ".join([self.name, *_texts(self.chosen)])

    @property
    def label(self) -> str:
        """The index and the probe, as text: `residual bits=2 cells=4`."""
        return " ".join([self.series, *_texts(self.probe)])

    @property
    def short(self) -> str:
        """The probe's values alone, for a plot: `4/1024`."""
        return "/".join("auto" if value is None else shown(value) for value in self.probe.values())


def settings(grid: Mapping[str, Mapping[str, Any]], conf_dir: Path) -> list[Setting]:
    """All settings of the grid, those of one index together; one ConfigError tells everything that is wrong in it."""
    found: list[Setting] = []
    problems: list[str] = []
    for name, axes in grid.items():
        try:
            base = plain(OmegaConf.load(_file(name, conf_dir)))
            index, sections, probe = _sorted(name, base, _flat(axes))
            found += [
                Setting(name, _with(base, own), beside, {**own, **beside}, fields)
                for own, beside, fields in itertools.product(_all(index), _all(sections), _all(probe))
            ]
        except ConfigError as error:
            problems += error.problems
    for setting in found:
        try:
            _check(setting, conf_dir)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "the grid")
    return found


def settings_of(given: Artifact, grid: Mapping[str, Mapping[str, Any]], conf_dir: Path) -> list[Setting]:
    """A given index with all the probes that the grid has for its kind; what it is built of is not varied."""
    index = json.loads((given.path / "index.json").read_text())
    name, base = index["_target_"].rpartition(".")[2], {}
    for file in sorted((conf_dir / "index").glob("*.yaml")):
        if (content := plain(OmegaConf.load(file)))["_target_"] == index["_target_"]:
            name, base = file.stem, content
    chosen = {key: value for key, value in index.items() if value != base.get(key)}
    if pooling := given.manifest["config"].get("pooling"):
        chosen["pooling.factor"] = pooling["factor"]
    _, _, probe = _sorted(name, index, _flat(grid.get(name, {})))
    found = [Setting(name, dict(index), {}, chosen, fields) for fields in _all(probe)]
    for setting in found:
        _check(setting, conf_dir)
    return found


def probe_of(setting: Setting) -> Any:
    """The probe object of a setting, None where it chooses nothing."""
    return _probe_class(setting.index)(**setting.probe) if setting.probe else None


def with_index(cfg: DictConfig, setting: Setting, slug: str) -> DictConfig:
    """`cfg` with the index of the setting, as the verb index would have it, under a name of its own."""
    from colbert_lab.stages.sections import named

    view = named(cfg, slug)
    view.index = setting.index
    for key, value in setting.sections.items():
        OmegaConf.update(view, key, value)
    return view


def _file(name: str, conf_dir: Path) -> Path:
    file = conf_dir / "index" / f"{name}.yaml"
    if not file.is_file():
        there = sorted(other.stem for other in file.parent.glob("*.yaml"))
        meant = close(name, there)
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise ConfigError(f"grid.{name}: there is no index {name!r}{hint} choices: {', '.join(there)}")
    return file


def _flat(axes: Mapping[str, Any], path: str = "") -> dict[str, list[Any]]:
    """Dotted name -> its values; a single value stands for a list of one."""
    flat: dict[str, list[Any]] = {}
    for key, value in axes.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[f"{path}{key}"] = list(value) if isinstance(value, list | tuple) else [value]
    return flat


def _sorted(name: str, base: Mapping[str, Any], axes: dict[str, list[Any]]) -> tuple[dict, dict, dict]:
    """The axes that belong to the index, to the sections beside it, and to the probe."""
    index, sections, probe = {}, {}, {}
    probe_class = _probe_class(base)
    fields = [field.name for field in dataclasses.fields(probe_class)] if probe_class else []
    known = [key for key in _flat(base) if key != "_target_"]
    problems = []
    for key, values in axes.items():
        if not values:
            problems.append(f"grid.{name}.{key} has no value\ntry: ~grid.{name}.{key}")
        elif key in known:
            index[key] = values
        elif key in fields:
            probe[key] = values
        elif key.partition(".")[0] in _SECTIONS:
            sections[key] = values
        else:
            meant = close(key, [*known, *fields])
            hint = f"; did you mean {meant[0]!r}?" if meant else ""
            problems.append(
                f"grid.{name}.{key}: neither the index nor its search has it{hint} "
                f"index: {', '.join(known) or 'none'}; search: {', '.join(fields) or 'none'}"
            )
    if problems:
        raise ConfigError(problems)
    return index, sections, probe


def _all(axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _with(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    node = OmegaConf.create(dict(base))
    for key, value in values.items():
        OmegaConf.update(node, key, value)
    return plain(node)


def _check(setting: Setting, conf_dir: Path) -> None:
    """Values against the signatures of the index and of its probe."""
    node = {"index": setting.index}
    if probe_class := _probe_class(setting.index):
        # All fields are optional; those that the grid does not name are not spelled out.
        node["probe"] = {"_target_": f"{probe_class.__module__}.{probe_class.__qualname__}", **setting.probe}
    check(OmegaConf.create(node), conf_dir, f"grid.{setting.name}", choices={"index": setting.name})


def _probe_class(index: Mapping[str, Any]) -> type | None:
    target, problem = locate(index["_target_"])
    if problem:
        raise ConfigError(problem)
    if target.takes != "embeddings":
        raise ConfigError(f"{index['_target_']} holds {target.takes}, there is no exact MaxSim to hold it against")
    return getattr(target, "probe", None)


def _texts(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={'auto' if value is None else shown(value)}" for key, value in values.items()]
