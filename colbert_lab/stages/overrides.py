"""Overrides: what is wrong with each of them, where Hydra would stop at the first with little to say.

    problems = explain(conf_dir, "train", ["loss=hing", "lr=1e-5", "seed=1,2"])

Every override is looked at by itself, each value of a sweep as well. Whether values are of the right type is not asked
here; that is what `check` does with the composed configuration.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

# Text that Hydra reads as this very text without quotes.
_BARE = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[a-zA-Z_/][a-zA-Z0-9_./@%+-]*")
# What composing raises for a mistake in the configuration or in an override.
_MISTAKES = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError)


def explain(config_dir: str | Path, config_name: str, overrides: Sequence[str]) -> list[str]:
    """All that keeps `config_name` with these overrides from being composed; empty where it composes.

    Works in and outside of a Hydra main, whose state is left as it was. Sweeps are allowed.
    """
    with hydra_on(Path(config_dir).absolute()):
        return _Composer(Path(config_dir), config_name).explain(overrides)


def close(word: str, words: Sequence[str], count: int = 1) -> list[str]:
    """The nearest of `words`, best first; case does not matter, the beginning of a word is near to it."""
    by_case = {entry.lower(): entry for entry in words}
    found = difflib.get_close_matches(word.lower(), by_case, count, 0.6)
    found += [entry for entry in by_case if len(word) > 2 and entry.startswith(word.lower()) and entry not in found]
    return [by_case[entry] for entry in found[:count]]


def shown(value: Any) -> str:
    """A plain value as it is written in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if isinstance(value, str) and not _BARE.fullmatch(text):
        return "'\"" + text.replace('"', r"\"") + "\"'"
    return text


@dataclass(frozen=True)
class _Given:
    """An override as typed and parsed, with the values it stands for as text: several in a sweep."""

    text: str
    parsed: Override
    values: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.parsed.key_or_group

    @property
    def plain(self) -> str:
        """The override with its first value alone."""
        if not self.parsed.is_sweep_override():
            return self.text
        return f"{self.text.split('=', 1)[0]}={self.values[0]}"


class _Composer:
    """Composes, and finds out why not."""

    def __init__(self, config_dir: Path, config_name: str):
        self.name = config_name
        self.label = config_dir.name
        self.loader = GlobalHydra.instance().config_loader()
        self.repository = self.loader.repository
        self.problems: list[str] = []

    def explain(self, overrides: Sequence[str]) -> list[str]:
        """See the function of that name."""
        if not self.repository.config_exists(self.name):
            configs = self.repository.get_group_options("", ObjectType.CONFIG)
            return [f"there is no {self.label}/{self.name}.yaml{_meant(self.name, configs)}"]
        given = [one for text in overrides if (one := self._parse(text))]
        groups = [one for one in given if self.repository.group_exists(one.key)]
        values = [one for one in given if one not in groups]
        right = [one for one in groups if self._choice(one)]
        whole = [*right, *(one for one in values if self._no_group(one))]
        if not self.problems and not self._failure([one.plain for one in whole]):
            return []
        accepted, cfg = self._base([one.plain for one in right])
        if cfg is not None:
            known = [one for one in values if one in whole and self._key(one, cfg)]
            self._try_each(accepted, [one.plain for one in known])
        return list(dict.fromkeys(self.problems))

    def _parse(self, text: str) -> _Given | None:
        try:
            parsed = OverridesParser.create(config_loader=self.loader).parse_overrides([text])[0]
            if not parsed.is_sweep_override():
                value = parsed.value()
                several = value if isinstance(value, list) else [value]
                return _Given(text, parsed, tuple(str(one) for one in several if one is not None))
            if isinstance(parsed._value, IntervalSweep):
                return _Given(text, parsed, (str(parsed._value.start),))
            values = tuple(parsed.sweep_string_iterator())
            if not values:
                self.problems.append(f"{text}: it matches nothing; {self._choices(parsed.key_or_group)}")
                return None
            return _Given(text, parsed, values)
        except _MISTAKES as error:
            self.problems.append(f"{text}: {_syntax(text, error)}")
            return None

    def _choice(self, one: _Given) -> bool:
        """Whether the group of this override has what is chosen from it."""
        if one.parsed.is_delete() or isinstance(one.parsed.value(), dict):
            return True
        if not one.values:
            self.problems.append(f"{one.text}: to leave the group out write ~{one.key}; {self._choices(one.key)}")
            return False
        # A value with an interpolation is known only when all is composed.
        wrong = [v for v in one.values if "${" not in v and not self.repository.config_exists(f"{one.key}/{v}")]
        for value in wrong:
            meant = _meant(value, self._options(one.key))
            text = f"{one.key}={value}: {self.label}/{one.key} has no '{value}'{meant}"
            self.problems.append(f"{text}{'' if meant else ';'} {self._choices(one.key)}")
        return not wrong

    def _no_group(self, one: _Given) -> bool:
        """Whether this is not a choice from a group that is written with dots or does not exist."""
        group = one.key.replace(".", "/")
        choosing = one.values and not one.parsed.is_delete() and not isinstance(one.parsed.value(), dict)
        if "." in one.key and choosing and self.repository.group_exists(group):
            text = f"{one.text}: {group} is a group, chosen with a slash: try {group}={one.values[0]}"
            self.problems.append(f"{text}; {self._choices(group)}")
            return False
        if "/" in one.key or one.parsed.package:
            meant = _meant(one.key, list(self._groups()))
            self.problems.append(f"{one.text}: {self.label} has no group '{one.key}'{meant}")
            return False
        return True

    def _base(self, groups: list[str]) -> tuple[list[str], DictConfig | None]:
        """The group overrides that compose, with what they compose to; None where nothing can be composed."""
        accepted: list[str] = []
        for _ in range(10):
            # A group that must be chosen hides every other mistake, so the first choice stands in for it.
            failure = self._failure([*accepted, *groups])
            if not failure:
                accepted += groups
                break
            named = re.search(r"must specify '([^']+)'", failure)
            if not named:
                accepted = self._try_each(accepted, groups)
                break
            self.problems.append(f"{named[1]} must be chosen: try {named[1]}=NAME; {self._choices(named[1])}")
            accepted += [f"{named[1]}={option}" for option in self._options(named[1])[:1]]
        try:
            return accepted, compose(self.name, overrides=accepted)
        except _MISTAKES as error:
            self.problems.append(_first_line(error))
            return accepted, None

    def _try_each(self, accepted: list[str], more: list[str]) -> list[str]:
        """Take `more` in one by one, noting which cannot be."""
        if not self._failure([*accepted, *more]):
            return [*accepted, *more]
        taken = list(accepted)
        if self._failure(taken):
            return taken
        for text in more:
            failure = self._failure([*taken, text])
            if failure:
                self.problems.append(f"{text}: {failure}")
            else:
                taken.append(text)
        return taken

    def _key(self, one: _Given, cfg: DictConfig) -> bool:
        """Whether the key of this override exists, or, with a +, does not exist yet."""
        if one.parsed.is_hydra_override() or one.parsed.is_force_add():
            return True
        exists = _holds(cfg, one.key)
        if one.parsed.is_add():
            if exists:
                self.problems.append(f"{one.text}: '{one.key}' exists already; try {one.text.lstrip('+')}")
            return not exists
        if not exists:
            self.problems.append(f"{one.text}: there is no key '{one.key}'{self._instead(one, cfg)}")
        return exists

    def _instead(self, one: _Given, cfg: DictConfig) -> str:
        """What may have been meant by a key that does not exist."""
        sign, value = ("~", "") if one.parsed.is_delete() else ("", f"={one.text.partition('=')[2]}")
        prefix, _, leaf = one.key.rpartition(".")
        group = prefix.replace(".", "/")
        if prefix and self.repository.group_exists(group):
            if self.repository.config_exists(f"{group}/{leaf}"):
                return f"; did you mean {group}={leaf}?"
            with_it = [option for option in self._options(group) if self._option_holds(f"{group}/{option}", leaf)]
            if with_it:
                return f" with this choice; there is one with {' or '.join(f'{group}={option}' for option in with_it)}"
        keys = list(_keys(cfg))
        same_leaf = [key for key in keys if key.rpartition(".")[2] == leaf]
        beside = {key.rpartition(".")[2]: key for key in keys if prefix and key.rpartition(".")[0] == prefix}
        near = [beside[name] for name in close(leaf, list(beside))]
        as_deep = [key for key in keys if key.count(".") == one.key.count(".")]
        found = near or same_leaf or close(one.key, as_deep, 2) or close(one.key, keys, 3)
        if not found:
            leaves = close(leaf, [key.rpartition(".")[2] for key in keys], 2)
            found = [key for key in keys if key.rpartition(".")[2] in leaves]
        if found:
            return f"; did you mean {' or '.join(f'{sign}{key}{value}' for key in found[:3])}?"
        known = OmegaConf.select(cfg, prefix) if prefix else cfg
        there = (
            ", ".join(str(k) for k in known if not str(k).startswith("_"))
            if isinstance(known, DictConfig)
            else ", ".join(map(str, cfg))
        )
        return f"; keys{f' of {prefix}' if isinstance(known, DictConfig) and prefix else ''}: {there}"

    def _option_holds(self, config: str, key: str) -> bool:
        loaded = self.repository.load_config(config)
        return loaded is not None and isinstance(loaded.config, DictConfig) and key in loaded.config

    def _failure(self, overrides: list[str]) -> str:
        try:
            compose(self.name, overrides=overrides)
        except _MISTAKES as error:
            return _first_line(error)
        return ""

    def _options(self, group: str) -> list[str]:
        found = list(self.repository.get_group_options(group, ObjectType.CONFIG))
        for inner in self.repository.get_group_options(group, ObjectType.GROUP):
            found += [f"{inner}/{option}" for option in self._options(f"{group}/{inner}")]
        return found

    def _choices(self, group: str) -> str:
        return f"choices: {', '.join(self._options(group)) or 'none'}"

    def _groups(self, parent: str = "") -> Iterator[str]:
        for name in self.repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            yield group
            if group != "hydra":
                yield from self._groups(group)


@contextmanager
def hydra_on(config_dir: Path) -> Iterator[ConfigLoader]:
    """Hydra set up on `config_dir`, its loader; afterwards the Hydra that was running, if one was, is there again."""
    outer, job = GlobalHydra.instance().hydra, JobRuntime().get("name")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer
        JobRuntime().set("name", job)


def _syntax(text: str, error: Exception) -> str:
    if text.startswith("-"):
        return f"values are given as key=value: try {text.lstrip('-')}"
    key, equals, value = text.partition("=")
    if not equals:
        return f"no value is given: try {text}=VALUE"
    if key != key.strip():
        return f"no blank may stand before the =: try {key.strip()}={value.strip()}"
    return f"this cannot be read ({_first_line(error)}); to give it as text, quote it: try {key}='\"{value}\"'"


def _first_line(error: BaseException) -> str:
    text = (str(error) or str(error.__cause__ or type(error).__name__)).strip()
    # What is wrong with a YAML file, and where, takes more than one line.
    return " ".join(text.split()) if isinstance(error, YAMLError) else text.splitlines()[0]


def _meant(word: str, words: Sequence[str]) -> str:
    found = [entry for entry in words if entry.rpartition("/")[2] == word] or close(word, words)
    return f"; did you mean '{found[0]}'?" if found else ""


def _keys(cfg: DictConfig) -> Iterator[str]:
    """All dotted keys, those of groups of keys as well."""

    def walk(node: Any, path: str) -> Iterator[str]:
        for key, child in node.items() if isinstance(node, dict) else ():
            # Hydra's own (_target_, _partial_) are never what was meant.
            if str(key).startswith("_"):
                continue
            yield f"{path}{key}"
            yield from walk(child, f"{path}{key}.")

    return walk(OmegaConf.to_container(cfg, resolve=False), "")


def _holds(cfg: DictConfig, key: str) -> bool:
    """Whether `key` exists; what lies behind an interpolation is taken to."""
    node = OmegaConf.to_container(cfg, resolve=False)
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(node, str) and "${" in node:
            return True
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in {str(name) for name in node}:
            node = next(child for name, child in node.items() if str(name) == part)
        else:
            return False
    return True
