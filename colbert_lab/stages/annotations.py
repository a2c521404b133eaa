"""Annotations as a schema: whether a plain value fits one, what one is in words, which value would be right."""

import enum
import inspect
import math
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from colbert_lab.stages.overrides import close, shown

# Annotations that are checked, how they are told, and what stands for a value of theirs in a suggestion.
_KINDS = {
    int: ("a whole number", "1"),
    float: ("a number", "1.0"),
    bool: ("true or false", "true"),
    str: ("text", "TEXT"),
    Path: ("a path", "DIR"),
    type(None): ("null", "null"),
}
_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable)
_MAPPINGS = (dict, Mapping)


def fits(value: Any, wanted: Any) -> bool:
    """Whether a plain value is one of the annotated type; annotations that are not simple fit everything."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        # A class that no plain value can be one of (torch's float | Tensor) says nothing beside those that do.
        told = [one for one in arguments if _simple(one)] or arguments
        return any(fits(value, one) for one in told)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if inspect.isclass(wanted) and issubclass(wanted, enum.Enum):
        return value in wanted.__members__
    if wanted in (None, type(None)):
        return value is None
    if wanted is float:
        return type(value) in (int, float)
    if wanted in (int, bool, str):
        return type(value) is wanted
    if wanted is Path:
        return isinstance(value, str | Path)
    if (origin or wanted) in _LISTS:
        if not isinstance(value, list):
            return False
        if (origin or wanted) is not tuple or Ellipsis in arguments:
            return all(fits(item, one) for item in value for one in arguments[:1])
        return not arguments or (len(value) == len(arguments) and all(map(fits, value, arguments)))
    if (origin or wanted) in _MAPPINGS:
        return isinstance(value, dict) and all(fits(item, one) for item in value.values() for one in arguments[1:])
    return True


def _simple(wanted: Any) -> bool:
    base = typing.get_origin(wanted) or wanted
    known = (*_KINDS, *_LISTS, *_MAPPINGS, Literal, Union, types.UnionType, None, Any)
    return base in known or (
        inspect.isclass(base) and (issubclass(base, enum.Enum) or hasattr(base, "__dataclass_fields__"))
    )


def described(wanted: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(one) for one in arguments))
    if choices := options(wanted):
        return f"one of {', '.join(shown(choice) for choice in choices)}"
    if (origin or wanted) in _LISTS:
        each = " and ".join(described(one) for one in arguments if one is not Ellipsis)
        return f"a list of {each}" if each else "a list"
    return "a mapping" if (origin or wanted) in _MAPPINGS else _KINDS.get(wanted, (getattr(wanted, "__name__", ""),))[0]


def options(wanted: Any) -> list[Any]:
    """The values that an annotation lists, none where it lists none."""
    if typing.get_origin(wanted) is Literal:
        return list(typing.get_args(wanted))
    if inspect.isclass(wanted) and issubclass(wanted, enum.Enum):
        return list(wanted.__members__)
    if typing.get_origin(wanted) in (Union, types.UnionType):
        return [choice for one in typing.get_args(wanted) for choice in options(one)]
    return []


def nearest(value: Any, wanted: Any, default: Any) -> str:
    """An override's value that would be right, as near to what was given as can be told."""
    numeric = type(value) in (int, float) and math.isfinite(value)
    if choices := options(wanted):
        if numeric and all(isinstance(choice, int | float) for choice in choices):
            return shown(min(choices, key=lambda choice: abs(choice - value)))
        return shown(next(iter(close(str(value), [str(choice) for choice in choices])), choices[0]))
    for kind in (int, bool, str):
        if numeric and fits(kind(value), wanted) and kind(value) == (str(value) if kind is str else value):
            return shown(kind(value))
    return shown(default) if default not in (None, inspect.Parameter.empty) else example(wanted)


def example(wanted: Any) -> str:
    """A value of an annotated type, as it is written in an override."""
    for one in typing.get_args(wanted) if typing.get_origin(wanted) in (Union, types.UnionType) else (wanted,):
        base = typing.get_origin(one) or one
        if choices := options(one):
            return shown(choices[0])
        if base in _LISTS or base in _MAPPINGS:
            return "[]" if base in _LISTS else "{}"
        if base in _KINDS:
            return _KINDS[base][1]
    return "VALUE"
