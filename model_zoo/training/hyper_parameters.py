"""Hyper-parameters are keyword-only parameters: a function or a class names those that it reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

Reader = Callable[..., Any] | type


def keywords(*readers: Reader) -> dict[str, Any]:
    """Name and type of the keyword-only parameters of functions and classes.

    Those of a class are its constructor's. Those of the next base follow as long as a constructor
    passes other keywords on.
    """
    found: dict[str, Any] = {}
    for reader in readers:
        for function in _constructors(reader) if isinstance(reader, type) else [reader]:
            hints = get_type_hints(function)
            parameters = inspect.signature(function).parameters.values()
            own = {p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY}
            found = own | found
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def chosen(config: Mapping[str, Any], *readers: Reader) -> dict[str, Any]:
    """The entries of a flat configuration that some readers name."""
    return {name: config[name] for name in keywords(*readers) if name in config}


def _constructors(cls: type) -> list[Callable[..., Any]]:
    """The constructors along the line of bases, down to those of FuxiCTR and torch."""
    return [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
