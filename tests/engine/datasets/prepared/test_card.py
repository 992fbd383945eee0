"""What the card of a data set says in words."""

from __future__ import annotations

from pathlib import Path

from engine.datasets.prepared.card import card_beside, describe, sampling


def test_sampled_negatives_are_told(tiny_data: Path) -> None:
    card = card_beside(tiny_data / "train.parquet")
    assert sampling(card) == "" and "sampled" not in describe(card)
    card["negatives"] = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.00012}
    assert sampling(card) == "sampled negatives (4, time)"
    assert "sampled negatives (4, time), 0.00012 of all" in describe(card)
    assert "a score is no probability" in describe(card)
