"""The tables of a data set that need no script: leaderboard, data card, tuning and what is missing."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..analysis.results import DatasetResults, Run, on_device, usual_device
from ..tuner.trial import as_text
from .groups import Group
from .table import Column, Shown, Table, metric, number

LEADERBOARD = (
    Column("Model"),
    Column("Test AUC", numeric=True),
    Column("Test gAUC", numeric=True),
    Column("Test logloss", numeric=True),
    Column("Valid AUC", numeric=True),
    Column("Seeds", numeric=True),
    Column("Varied"),
    Column("Experiment"),
    Column("Parameters", numeric=True),
    Column("MFLOPs / sample", numeric=True),
    Column("Train samples/s", numeric=True),
    Column("Test samples/s", numeric=True),
    Column("Peak memory, MB", numeric=True),
    Column("Device"),
)


def leaderboard_row(group: Group) -> list[Shown]:
    """The cells of one configuration: metrics are means over its seeds, costs medians as in the cost table."""
    runs = group.runs
    device = usual_device(runs)
    same = on_device(runs, device)

    def median(key: str, of: list[Run]) -> float:
        return statistics.median(run[key] for run in of)

    return [
        Shown(group.model, group.model),
        *(group.metric("test", name) for name in ("AUC", "gAUC", "logloss")),
        group.metric("valid", "AUC"),
        number(len(runs), "d"),
        Shown(as_text(group.varied)),
        Shown(", ".join(group.experiments)),
        number(median("num_parameters", runs), ",.0f"),
        number(median("flops_per_sample", runs) / 1e6, ",.3f"),
        number(median("train_samples_per_s", same), ",.0f"),
        number(median("test_samples_per_s", same), ",.0f"),
        number(median("peak_memory_bytes", same) / 1e6, ",.0f"),
        Shown(device if len(same) == len(runs) else f"{device} ({len(same)} of {len(runs)} runs)"),
    ]


def best_possible(results: DatasetResults) -> dict[str, str]:
    """The test metrics that no model can beat, where the data set's maker knows them."""
    known = next((run["bayes"] for run in results.runs if run["bayes"]), {})
    return {name: metric(name, [value]).text for name, value in known.items()}


@dataclass(frozen=True)
class Card:
    """A data card: single facts, and a table of the splits."""

    facts: list[tuple[str, str]]
    splits: Table | None


def data_card(results: DatasetResults) -> Card | None:
    """What ``dataset_card.json`` says; None without one."""
    if not results.card:
        return None
    facts = [
        (key.replace("_", " "), f"{value:,}" if isinstance(value, int) and key != "seed" else as_text(value))
        for key, value in results.card.items()
        if key not in ("splits", "dataset_id", "hash")
    ]  # fmt: skip
    splits = results.card.get("splits")
    return Card(facts, _splits(splits) if splits else None)


def _splits(splits: dict[str, Any]) -> Table:
    """Size, labels and history lengths of each split; the histogram as shares of its rows."""
    first = next(iter(splits.values()))["history_length"]["histogram"]
    columns = ["Rows", "Users", "Label rate", "Mean history", "Longest"]
    columns += [f"{start} items" for start in first]
    table = Table([Column("Split"), *(Column(text, numeric=True) for text in columns)])
    for name, split in splits.items():
        length, rows = split["history_length"], split["rows"]
        table.rows.append(
            [
                Shown(name),
                number(rows, ",d"),
                number(split["users"], ",d"),
                number(split["label_rate"], ".3f"),
                number(length["mean"], ",.1f"),
                number(length["max"], ",d"),
                *(number(length["histogram"][k] / max(1, rows), ".1%") for k in first),
            ]
        )
    return table


def tuning(results: DatasetResults) -> Table:
    """The trials that chose hyper-parameters, on validation data only."""
    metrics = list(dict.fromkeys(name for trial in results.tuning for name in trial["valid"]))
    columns = ["Model", "Seed", "Tried", "Chosen"]
    table = Table([*map(Column, columns), *(Column(f"Valid {m}", numeric=True) for m in metrics)])
    for trial in results.tuning:
        table.rows.append(
            [
                Shown(trial["model"]),
                number(trial["seed"], "d"),
                Shown(as_text(trial["tuned"])),
                Shown("✓ chosen", "chosen") if trial["chosen"] else Shown(""),
                *(metric(name, [trial["valid"].get(name)]) for name in metrics),
            ]
        )
    return table


def budgets(results: DatasetResults) -> dict[str, int]:
    """How many tuning trials each model had."""
    return dict(Counter(trial["model"] for trial in results.tuning))


def missing(known: list[Group]) -> Table:
    """Configurations that lack planned runs."""
    columns = ["Model", "Varied", "Experiment", "Experiment id", "Missing seeds"]
    table = Table([*map(Column, columns)])
    for group in known:
        if group.missing:
            texts = [group.model, as_text(group.varied), ", ".join(group.experiments), group.expid]
            table.rows.append([*map(Shown, texts), Shown(", ".join(map(str, group.missing)))])
    return table
