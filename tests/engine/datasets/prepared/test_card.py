"""What the card of a data set says in words."""

from pathlib import Path

from engine.datasets.prepared.card import card_beside, describe, sampling


def test_sampled_negatives_are_told(tiny_data: Path) -> None:
    card = card_beside(tiny_data / "train.parquet")
    assert sampling(card) == "" and "sampled" not in describe(card)
    card["negatives"] = {"per_positive": 4, "from": "time", "targets": "first", "rate": 0.00012}
    assert sampling(card) == "sampled negatives (4, time)"
    assert "sampled negatives (4, time), 1 of 8,333 that" in describe(card)
    assert "items that the history shows" not in describe(card)
    card["negatives"] |= {"targets": "all", "in_history": [0.25, 0.0625]}
    assert "items that the history shows: 25.0% of the clicked, 6.2% of the drawn" in describe(card)
    assert "scores are no probabilities" in describe(card)


def test_rows_that_are_gone_are_told(tiny_data: Path) -> None:
    card = card_beside(tiny_data / "train.parquet")
    assert "left out" not in describe(card) and "merged" not in describe(card)
    card.pop("bayes_auc")
    card |= {"left_out": {"column t is not a number": 1200}, "events_merged": 3}
    gone, merged = describe(card).splitlines()[-2:]
    assert gone == "  rows left out: 1,200 (column t is not a number)"
    assert merged.startswith("  events merged: 3 ")
