"""A configuration's values as the types that a model's signature asks for."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

WRONG = (TypeError, ValueError, OverflowError)  # what ``convert`` raises for a value
NAMES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}
NAMES |= {list: "a list", dict: "a mapping", type(None): "null"}


def convert(value: Any, hint: Any) -> Any:
    """``value`` as the type that ``hint`` asks for; a type that cannot be checked takes anything.

    Raises:
        TypeError, ValueError, OverflowError: it is of another kind.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _first(value, parts)
    if origin is typing.Literal:
        return _literal(value, parts)
    if origin in (list, tuple, Sequence):
        return _entries(value, origin, parts)
    if origin in (dict, Mapping):
        pairs = convert(value, dict).items()
        return {convert(key, parts[0]): convert(entry, parts[1]) for key, entry in pairs}
    if hint is Any or not isinstance(hint, type):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        if not math.isfinite(float(value)):
            raise ValueError
        return float(value)
    if hint is int and isinstance(value, float | str):
        if float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError
    return value


def _entries(value: Any, kind: type, parts: tuple[Any, ...]) -> Any:
    """A list, or a tuple if ``kind`` is one. A tuple of fixed length names the type of each entry."""
    if not isinstance(value, list | tuple):
        raise TypeError
    fixed = kind is tuple and parts[-1] is not Ellipsis
    hints = parts if fixed else parts[:1] * len(value)
    entries = [convert(entry, hint) for entry, hint in zip(value, hints, strict=True)]
    return tuple(entries) if kind is tuple else entries


def _first(value: Any, hints: tuple[Any, ...]) -> Any:
    """``value`` as the first of several types that takes it."""
    for hint in hints:
        with suppress(*WRONG):
            return convert(value, hint)
    raise TypeError


def _literal(value: Any, choices: tuple[Any, ...]) -> Any:
    """The choice that ``value`` says, in the choice's own type."""
    for choice in choices:
        with suppress(*WRONG):
            if convert(value, type(choice)) == choice:
                return choice
    raise ValueError


def describe(hint: Any) -> str:
    """What to write for a type, in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(describe, parts))
    if origin is typing.Literal:
        return " or ".join(map(str, parts))
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}: {', '.join(map(describe, parts))}"
    if origin in (list, tuple, Sequence):
        return f"a list, each entry {describe(parts[0])}"
    if origin in (dict, Mapping):
        return f"a mapping, each value {describe(parts[1])}"
    return NAMES.get(hint, str(hint)) + (", such as 1.e-3" if hint is float else "")
