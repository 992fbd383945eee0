"""What the card of a data set says in words, and whether it is the card of its files."""

import random
import shutil
from pathlib import Path

import pytest

from engine.common.errors import UserError
from engine.datasets.prepared.card import (
    CARD,
    FILES,
    card_beside,
    data_hash,
    describe,
    fingerprint,
    recorded_hash,
    sampling,
)


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


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_in_the_data_is_noticed(seed: int, tiny_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    files = [folder / name for name in FILES]
    assert data_hash(files) == fingerprint(files) == recorded_hash(files)
    file, draw = files[seed % 5], random.Random(seed)
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    with pytest.raises(
        UserError, match=f"{folder}: the files have the hash .+ check {folder} --rene"
    ):
        data_hash(files)


def test_data_without_a_hash_in_a_card_of_theirs_are_taken(tiny_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    files = [folder / name for name in FILES]
    mixed = [files[0], files[0], *files[2:]]  # the card tells nothing of these
    assert data_hash(mixed) == fingerprint(mixed) and recorded_hash(mixed) is None
    (folder / CARD).write_text("{}")
    assert data_hash(files) == fingerprint(files)
    (folder / CARD).unlink()
    assert data_hash(files) == fingerprint(files)
