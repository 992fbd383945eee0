"""The sentences below tables and figures, as ``sentences.yaml`` has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config.read import read_yaml


def sentences(*names: str, **fields: Any) -> list[str]:
    """The sentences of some tables or figures, in order, with fields filled in."""
    known = read_yaml(Path(__file__).with_name("sentences.yaml"))
    return [sentence.format(**fields) for name in names for sentence in known[name]]
