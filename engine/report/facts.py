"""Small tables about a data set: its card, its splits, and the runs that are missing."""

from __future__ import annotations

from typing import Any

from ..analysis.tables.grid import Entry, Table, header, settings
from ..tuner.trial import as_text
from .groups import Group


def facts(card: dict[str, Any]) -> dict[str, str]:
    """The single facts of a data card, by their names."""
    return {
        key.replace("_", " "): f"{value:,}" if isinstance(value, int) and key != "seed" else as_text(value)
        for key, value in card.items()
        if key not in ("splits", "dataset_id", "hash")
    }  # fmt: skip


def splits(card: dict[str, Any]) -> Table | None:
    """Size, labels and history lengths of each split; None if the card does not have them."""
    if not card.get("splits"):
        return None
    starts = next(iter(card["splits"].values()))["history_length"]["histogram"]
    headings = ["Split", "Rows", "Users", "Label rate", "Mean history", "Longest"]
    rows = []
    for name, split in card["splits"].items():
        length, count = split["history_length"], split["rows"]
        shares = [length["histogram"][start] / max(1, count) for start in starts]
        rows.append(
            (
                Entry(name),
                *(Entry(f"{n:,}", n) for n in (count, split["users"])),
                Entry(f"{split['label_rate']:.3f}", split["label_rate"]),
                Entry(f"{length['mean']:,.1f}", length["mean"]),
                Entry(f"{length['max']:,}", length["max"]),
                *(Entry(f"{share:.1%}", share) for share in shares),
            )
        )
    note = "The last columns have the share of samples with a history of that length or more, up to the next column's."
    top = header(*headings, *(f"{start} items" for start in starts))
    return Table("Samples and their histories", top, 1, rows, [note])


def missing(known: list[Group]) -> Table | None:
    """Configurations that lack planned runs; None if there are none."""
    headings = ["Model", "Varied", "Experiment", "Experiment id", "Missing seeds"]
    rows = []
    for group in (group for group in known if group.missing):
        texts = [group.model, settings(group.varied), ", ".join(group.experiments), group.expid]
        rows.append(tuple(map(Entry, [*texts, ", ".join(map(str, group.missing))])))
    return Table("Missing runs", header(*headings), len(headings), rows) if rows else None
