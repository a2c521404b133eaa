"""Checking a composed configuration before anything is built: signatures are the schema, all mistakes are told at once.

    check(cfg, conf_dir, "experiment=colbert_v2_kl", choices=HydraConfig.get().runtime.choices)

Every node with a `_target_` is a constructor call: its keys are held against the signature, its values against the
simple annotations (int, float, bool, str, None, Path, Literal, Enum, lists, tuples, mappings and unions of them). A
class may say more in a static method `problems(**kwargs) -> list[str]`, given its node's values, nested nodes as plain
dictionaries; it is asked only where the node is otherwise right.
"""

import fnmatch
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from colbert_lab.errors import ConfigError
from colbert_lab.stages.annotations import described, example, fits, nearest
from colbert_lab.stages.overrides import close, shown

SPECIAL = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
Runtime = Mapping[str, Set[str]]


def check(
    cfg: DictConfig,
    conf_dir: Path,
    where: str,
    *,
    choices: Mapping[str, str | None] | None = None,
    runtime: Runtime | None = None,
    schema: Callable | None = None,
) -> None:
    """Raise one ConfigError that tells every mistake in `cfg`; `where` names the configuration in its first line.

    `choices` are Hydra's chosen options by group and name the YAML files under `conf_dir`. `runtime` maps the path of a
    node (`*` matches) to the parameters that the stage passes itself; those of a `_partial_` node may all be missing.
    `schema` is a dataclass or function whose parameters are the plain keys at the top.
    """
    walk = _Walk(Path(conf_dir), choices or {}, runtime or {})
    walk.node(cfg)
    if schema is not None:
        walk.options(cfg, schema)
    problems = [text for heading, found in walk.found.items() for text in _under(heading, found)]
    if problems:
        raise ConfigError(problems, where)


def signature_problems(node: Any, runtime: Runtime | None = None, package: str = "colbert_lab") -> list[str]:
    """Where a YAML file and the signatures it calls differ, in both directions; for tests.

    A key that the target does not take; a parameter of a target in `package` that is not spelled out and not in
    `runtime` (by the path within `node`). Values are not looked at, interpolations may be open.
    """
    problems = []
    for path, call in _calls(node):
        target, problem = locate(str(call["_target_"]))
        if problem:
            problems.append(f"{path or '.'}: {problem}")
            continue
        parameters, open_ended = _parameters(target)
        given = [key for key in call if key not in SPECIAL]
        name = call["_target_"]
        if not open_ended:
            problems += [f"{path or '.'}: {name} does not take {k!r}" for k in given if k not in parameters]
        if name.startswith(package + "."):
            wanted = set(parameters) - set(given) - _runtime(path, runtime or {})
            problems += [f"{path or '.'}: {name} takes {k!r}, which is not spelled out" for k in sorted(wanted)]
    return problems


class _Walk:
    """A walk over the configuration; `found` maps each heading to its problems."""

    def __init__(self, conf_dir: Path, choices: Mapping[str, str | None], runtime: Runtime):
        self.conf_dir, self.runtime = conf_dir, runtime
        self.found: dict[str, list[str]] = {}
        self.broken: set[str] = set()
        self.files: dict[str, str] = {}
        for key, choice in choices.items():
            group, _, package = key.partition("@")
            if choice and (conf_dir / group / f"{choice}.yaml").is_file():
                self.files[(package or group).replace("/", ".")] = f"{conf_dir.name}/{group}/{choice}.yaml"

    def node(self, node: DictConfig | ListConfig) -> None:
        """Check `node` and everything below it."""
        if _target(node):
            self._call(node, _target(node))
        for key in node if isinstance(node, DictConfig) else range(len(node)):
            child = self._child(node, key)
            if isinstance(child, DictConfig | ListConfig) and not OmegaConf.is_interpolation(node, key):
                self.node(child)

    def options(self, node: DictConfig, schema: Callable) -> None:
        """Hold the plain keys of `node` against the parameters of `schema`; nested dataclasses likewise."""
        parameters, open_ended = _parameters(schema)
        for key in node:
            child = self._child(node, key)
            nested = isinstance(child, DictConfig)
            if key not in parameters:
                # A section that no file of this verb gives a target is an experiment's for another verb.
                if not _target(child) and not open_ended:
                    self._unknown(node, key, parameters, child)
            elif nested and hasattr(parameters[key].annotation, "__dataclass_fields__") and not _target(child):
                self.options(child, parameters[key].annotation)
            else:
                self._value(node, key, child, parameters[key])
        self._absent(node, [p for key, p in parameters.items() if key not in node])

    def _call(self, node: DictConfig, name: str) -> None:
        target, problem = locate(name)
        if problem:
            return self._note(node, problem)
        before = len(self.found.get(self._heading(node), ()))
        parameters, open_ended = _parameters(target)
        given = {key: self._child(node, key) for key in node if key not in SPECIAL}
        for key, value in given.items():
            if key in parameters:
                self._value(node, key, value, parameters[key])
            elif not open_ended:
                self._unknown(node, key, parameters, value)
        if not node.get("_partial_"):
            left = list(parameters)[len(node.get("_args_") or ()) :]
            passed = given.keys() | _runtime(_path(node), self.runtime)
            self._absent(node, [parameters[key] for key in left if key not in passed])
        values = {key: _container(value) for key, value in given.items()}
        faultless = len(self.found.get(self._heading(node), ())) == before and _BROKEN not in values.values()
        if faultless and isinstance(inspect.getattr_static(target, "problems", None), staticmethod | classmethod):
            for problem in target.problems(**values):
                self._note(node, problem)

    def _child(self, node: DictConfig | ListConfig, key: Any) -> Any:
        """The value at `key`, or _BROKEN after noting, once, what keeps it from having one."""
        path = node._get_full_key(key)
        first = path not in self.broken
        try:
            if not OmegaConf.is_missing(node, key):
                return node[key]
            if first and not OmegaConf.is_interpolation(node, key):
                example = "DIR" if str(key).endswith(("root", "dir", "path")) else "VALUE"
                self._note(node, f"'{key}' needs a value", f"{path}={example}")
        except InterpolationToMissingValueError:
            first = False  # it is told where the value is missing
        except OmegaConfBaseException as error:
            written = OmegaConf.to_container(node, resolve=False)[key]
            # Outside of a Hydra main its own values cannot be known, which is no fault of the configuration.
            if first and ("${hydra:" not in str(written) or HydraConfig.initialized()):
                self._note(node, f"{key}={written} cannot be resolved: {str(error).splitlines()[0]}")
        self.broken.add(path)
        return _BROKEN

    def _value(self, node: DictConfig, key: str, value: Any, parameter: inspect.Parameter) -> None:
        wanted = parameter.annotation
        if _target(value) or (value := _container(value)) is _BROKEN:
            return
        if not (fits(value, wanted) or (value is None and parameter.default is None)):
            fix = f"{node._get_full_key(key)}={nearest(value, wanted, parameter.default)}"
            self._note(node, f"{key}={shown(value)} must be {described(wanted)}", fix)

    def _unknown(self, node: DictConfig, key: str, known: Collection[str], value: Any) -> None:
        meant = close(str(key), [*known, *SPECIAL])
        path = node._get_full_key(key)
        if meant:
            given = "VALUE" if (value := _container(value)) is _BROKEN else shown(value)
            fix = f"{path.rpartition('.')[0]}.{meant[0]}={given}".lstrip(".")
            self._note(node, f"unknown key '{key}'; did you mean '{meant[0]}'?", fix)
        else:
            self._note(node, f"unknown key '{key}'; known are: {', '.join(known) or 'none'}", f"~{path}")

    def _absent(self, node: DictConfig, parameters: Iterable[inspect.Parameter]) -> None:
        for parameter in parameters:
            if parameter.default is parameter.empty:
                path = node._get_full_key(parameter.name)
                self._note(node, f"'{parameter.name}' is missing", f"+{path}={example(parameter.annotation)}")

    def _note(self, node: DictConfig | ListConfig, problem: str, fix: str = "") -> None:
        self.found.setdefault(self._heading(node), []).append(f"{problem:<56}  try: {fix}" if fix else problem)

    def _heading(self, node: DictConfig | ListConfig) -> str:
        """`loss (conf/loss/kl.yaml -> package.KL)`, as much of it as is known."""
        path = place = _path(node)
        while place and place not in self.files:
            place = place.rpartition(".")[0]
        known = [text for text in (self.files.get(place, ""), _target(node)) if text]
        return (path or "top level") + (f" ({' -> '.join(known)})" if known else "")


class _Broken:
    """In place of a value that is missing or cannot be resolved."""


_BROKEN = _Broken()


def locate(name: str) -> tuple[Any, str]:
    """What the dotted `name` stands for and "", or None and what is wrong: nothing of that name, not callable, ..."""
    parts = name.split(".")
    found: Any = None
    for count, part in enumerate(parts, 1):
        dotted = ".".join(parts[:count])
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            if found is not None and not inspect.ismodule(found):
                raise ModuleNotFoundError(name=dotted)
            found = importlib.import_module(dotted)
        except ModuleNotFoundError as error:
            if error.name != dotted:
                return None, f"_target_ {name} needs the package {error.name!r}: pip install {error.name}"
            parent = ".".join(parts[: count - 1])
            submodules = [module.name for module in pkgutil.iter_modules(getattr(found, "__path__", []))]
            meant = close(part, [*dir(found), *submodules]) if parent else []
            hint = f"; did you mean {parent}.{meant[0]}?" if meant else ""
            return None, f"_target_ {name}: there is no '{part}'{f' in {parent}' if parent else ''}{hint}"
        except Exception as error:
            return None, f"_target_ {name} cannot be imported: {type(error).__name__}: {error}"
    if not callable(found):
        return None, f"_target_ {name} is a {type(found).__name__}, it cannot be called"
    return found, ""


def _parameters(target: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that can be given by name, and whether others are taken too."""
    try:
        found = inspect.signature(target, eval_str=True).parameters.values()
    except (NameError, AttributeError, TypeError, SyntaxError):
        found = inspect.signature(target).parameters.values()
    except ValueError:
        return {}, True
    by_name = {p.name: p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return by_name, any(p.kind is p.VAR_KEYWORD for p in found)


def _calls(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node with a target in `node`, with its path."""
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, Mapping) and node.get("_target_"):
        yield path, node
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield from _calls(child, f"{path}.{key}" if path else str(key))


def _runtime(path: str, runtime: Runtime) -> set[str]:
    return {name for pattern, names in runtime.items() if fnmatch.fnmatchcase(path, pattern) for name in names}


def _target(node: Any) -> str:
    name = OmegaConf.to_container(node, resolve=False).get("_target_") if isinstance(node, DictConfig) and node else ""
    return name if isinstance(name, str) else ""


def _path(node: DictConfig | ListConfig) -> str:
    return node._get_full_key(None)


def _container(value: Any) -> Any:
    if not isinstance(value, DictConfig | ListConfig):
        return value
    try:
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        return _BROKEN


def _under(heading: str, problems: Sequence[str]) -> list[str]:
    """The problems of one heading, which stands over the first of them."""
    return [f"{heading}\n  {problems[0]}", *(f"  {problem}" for problem in problems[1:])]
