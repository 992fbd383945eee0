"""The card of a prepared data set, and the names of the files that it describes.

Runs, studies and reports read cards, so this file imports nothing slow.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...common.errors import UserError
from ...common.files import read_json
from ...common.places import PREPARE_COMMAND
from ...common.schema import ABSENT, Count, Name, NotBelow0, Schema, Share, Size, rule

SPLITS = ("train", "valid", "test")
FILES = tuple(f"{name}.parquet" for name in (*SPLITS, "user_info", "item_info"))
CARD = "dataset_card.json"
SECOND = {"s": 1, "ms": 1000, "us": 1_000_000}  # in a card's ``time_unit``; others are not known

MEND = "prepare the data again"


class Negatives(Schema):
    """How negatives were drawn."""

    per_positive: Count
    drawn_from: str = Field(alias="from")
    rate: Annotated[Share, rule("a number above 0", bool)]
    in_history: list[Share] = Field(ABSENT, min_length=2, max_length=2)


class HistoryLength(Schema):
    """The lengths of the histories of a split; ``histogram`` counts the samples from each length on."""

    mean: NotBelow0
    max: Count
    histogram: dict[str, Count] = ABSENT


class Split(Schema):
    """A split of a data set."""

    rows: Size
    users: Count
    label_rate: Share
    history_length: HistoryLength


class EventColumn(Schema):
    """A feature of the events in histories."""

    name: str
    vocab_size: Size


class Best(Schema):
    """The best possible value of a metric."""

    test: Share


class Card(Schema):
    """What is known about a data set. What a card does not say, nobody needs."""

    dataset_id: Name = ABSENT
    hash: str = ABSENT
    users: Count = ABSENT
    items: Count = ABSENT
    interactions: Count = ABSENT
    splits: dict[str, Split] = ABSENT
    negatives: Negatives | None = ABSENT
    mapping: dict[str, Any] = ABSENT
    left_out: dict[str, Count] = ABSENT
    events_merged: Count = ABSENT
    event_cols: list[EventColumn] = ABSENT
    time_unit: str | None = ABSENT
    themes: Count = ABSENT
    bayes_auc: Best = ABSENT
    bayes_gauc: Best = ABSENT


def card_beside(data: str | Path) -> dict[str, Any]:
    """Read the card that lies beside a file of samples; the result is empty where there is none.

    Raises:
        UserError: the card is damaged.
    """
    path = Path(data).parent / CARD
    return read_json(path, Card, MEND) if path.exists() else {}


def longest_history(card: dict[str, Any]) -> int | None:
    """The number of items in the longest history of a sample; None if the card does not say."""
    return max((s["history_length"]["max"] for s in card.get("splits", {}).values()), default=None)


def sampling(card: dict[str, Any]) -> str:
    """How the negatives were drawn, such as ``sampled negatives (4, time)``; empty if none were."""
    drawn = card.get("negatives")
    return f"sampled negatives ({drawn['per_positive']}, {drawn['from']})" if drawn else ""


def fingerprint(paths: Iterable[str | Path]) -> str:
    """A digest of the content of data files. Every result records it."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def recorded_hash(paths: Iterable[str | Path]) -> str | None:
    """The hash in the card of a data set; None if there is none, or these are not its five files."""
    files = [Path(path) for path in paths]
    own = files == [files[0].parent / name for name in FILES]
    return card_beside(files[0]).get("hash") if own else None


def data_hash(paths: Iterable[str | Path]) -> str:
    """The fingerprint of a data set's files, after a comparison with the one in its card.

    Raises:
        UserError: they differ, so the files are not as they were prepared.
    """
    files = [Path(path) for path in paths]
    found, known = fingerprint(files), recorded_hash(files)
    if known not in (None, found):
        folder = files[0].parent
        raise UserError(
            f"{folder}: the files have the hash {found}, and {CARD} says {known}, so they are damaged or "
            "edited; copy or prepare them again, or write the card anew for edited files: "
            f"{PREPARE_COMMAND} check {folder} --renew"
        )
    return found


def describe(card: dict[str, Any]) -> str:
    """The card as a short text for a terminal."""
    lines = [
        f"{card['dataset_id']}: {card['users']:,} users, {card['items']:,} items, "
        f"{card['interactions']:,} interactions in histories, hash {card['hash']}"
    ]
    for name, split in card["splits"].items():
        length = split["history_length"]
        lines.append(
            f"  {name:5}  {split['rows']:>9,} samples, {split['users']:>7,} users, "
            f"label rate {split['label_rate']:.3f}, history mean {length['mean']:.1f}, "
            f"max {length['max']:,}"
        )
    if sampled := sampling(card):
        drawn = card["negatives"]
        lines.append(
            f"  {sampled}, 1 of {1 / drawn['rate']:,.0f} that could be drawn: the AUC does not compare "
            "with that of exposures, and scores are no probabilities"
        )
        if "in_history" in drawn:
            clicked, others = drawn["in_history"]
            lines.append(
                f"  items that the history shows: {clicked:.1%} of the clicked, {others:.1%} of the drawn"
            )
    for what, count in card.get("left_out", {}).items():
        lines.append(f"  rows left out: {count:,} ({what})")
    if merged := card.get("events_merged"):
        lines.append(f"  events merged: {merged:,} (same user, item and moment as another)")
    if "bayes_auc" in card:
        lines.append(f"  Bayes-optimal test AUC {card['bayes_auc']['test']:.4f}")
    return "\n".join(lines)
