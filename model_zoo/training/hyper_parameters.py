"""Find the hyper-parameters of a class: they are the keyword-only parameters of its constructor."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints


def keywords(*readers: type) -> dict[str, Any]:
    """The name and type of every keyword-only parameter of the classes' constructors.

    Where a constructor takes ``**kwargs``, the parameters of the next base class are included.
    """
    found: dict[str, Any] = {}
    for reader in readers:
        for base in reader.__mro__:
            if (constructor := vars(base).get("__init__")) is None:
                continue
            hints = get_type_hints(constructor)
            parameters = inspect.signature(constructor).parameters.values()
            own = {p.name: hints.get(p.name, Any) for p in parameters if p.kind is p.KEYWORD_ONLY}
            found = own | found
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def chosen(config: Mapping[str, Any], *readers: type) -> dict[str, Any]:
    """The entries of a flat configuration that are hyper-parameters of the classes."""
    return {name: config[name] for name in keywords(*readers) if name in config}
