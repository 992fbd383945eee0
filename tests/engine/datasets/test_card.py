"""What the card of a data set says in words."""

from __future__ import annotations

from pathlib import Path

from engine.datasets import layout, synthetic
from engine.datasets.card import describe, sampling


def test_sampled_negatives_are_told(tmp_path: Path) -> None:
    card = layout.write(synthetic.generate(synthetic.SIZES["micro"], 1), tmp_path / "data")
    assert sampling(card) == "" and "sampled" not in describe(card)
    card["negatives"] = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.00012}
    assert sampling(card) == "sampled negatives (4, time)"
    assert "sampled negatives (4, time), 0.00012 of all" in describe(card)
    assert "a score is no probability" in describe(card)
