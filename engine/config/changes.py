"""``--set KEY=VALUE ...``: keys of an experiment that a command line sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..common.errors import UserError


def parse_changes(words: Sequence[str], decided: Mapping[str, str]) -> dict[str, Any]:
    """The keys and their values, each read as YAML.

    Args:
        words: the values of ``--set``.
        decided: keys that cannot be set, each with what the message says of it.

    Raises:
        UserError: a word is not ``KEY=VALUE``, or a key is there twice or cannot be set.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"--set {word}: write KEY=VALUE, such as max_len=100")
        if key in changes:
            raise UserError(f"--set {word}: {key} is set twice; write it once")
        if key in decided:
            raise UserError(f"--set {key}: cannot be set; {decided[key]}")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {word}: {value!r} is not a YAML value") from None
    return changes
