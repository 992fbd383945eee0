"""Convert a configuration's values to the types that a model's signature asks for."""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

WRONG = (TypeError, ValueError, OverflowError)  # the errors that ``convert`` raises
UNIONS = (types.UnionType, typing.Union)
NAMES = {float: "a number, such as 1.e-3", int: "a whole number", bool: "True or False"}
NAMES |= {str: "a text", list: "a list", dict: "a mapping", type(None): "null"}


def convert(value: Any, hint: Any) -> Any:
    """Convert ``value`` to the type that ``hint`` asks for.

    Of a union, the first type that accepts the value is used. A type that cannot be checked accepts
    any value.

    Raises:
        TypeError, ValueError, OverflowError: the value cannot be converted.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        for part in parts:
            with suppress(*WRONG):
                return convert(value, part)
        raise TypeError
    if origin is typing.Literal:
        return parts[[str(choice) for choice in parts].index(str(value))]
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise TypeError
        fixed = origin is tuple and parts[-1] is not Ellipsis
        hints = parts if fixed else parts[:1] * len(value)
        entries = [convert(entry, hint) for entry, hint in zip(value, hints, strict=True)]
        return tuple(entries) if origin is tuple else entries
    if origin in (dict, Mapping):
        pairs = convert(value, dict).items()
        return {convert(key, parts[0]): convert(entry, parts[1]) for key, entry in pairs}
    if hint is Any or not isinstance(hint, type):
        return value
    if hint in (int, float):
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
        if not math.isfinite(number) or (hint is int and number != int(number)):
            raise ValueError
        return value if type(value) is hint else hint(number)
    if not isinstance(value, hint):
        raise TypeError
    return value


def describe(hint: Any) -> str:
    """Describe in words what a user may write for a type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        return " or ".join(map(describe, parts))
    if origin is typing.Literal:
        return " or ".join(str(part) or "''" for part in parts)
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}: {', '.join(map(describe, parts))}"
    if origin in (list, tuple, Sequence):
        return f"a list, each entry {describe(parts[0])}"
    if origin in (dict, Mapping):
        return f"a mapping, each value {describe(parts[1])}"
    return NAMES.get(hint, str(hint))
