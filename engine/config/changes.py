"""``--set KEY=VALUE ...``: keys of an experiment that a command line sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ..common.errors import UserError


def parse_changes(words: Sequence[str]) -> dict[str, Any]:
    """Keys and their values, each read as YAML.

    Raises:
        UserError: a word is not ``KEY=VALUE``, or a key is there twice.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"--set {word}: write KEY=VALUE, such as max_len=100")
        if key in changes:
            raise UserError(f"--set {word}: {key} is set twice; write it once")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {word}: {value!r} is not a YAML value") from None
    return changes
