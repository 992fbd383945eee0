"""LongCTR's parquet layout: what a prepared data set consists of, and how it is written.

A folder holds ``train.parquet``, ``valid.parquet``, ``test.parquet`` (one row per impression),
``user_info.parquet`` (the whole history of each user), ``item_info.parquet`` (row 0 is padding),
``feature_map.json`` (FuxiCTR's schema) and ``dataset_card.json`` (statistics and fingerprint).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from ..common.errors import UserError
from ..config.feature_map import write_feature_map

SPLITS = ("train", "valid", "test")
FILES = tuple(f"{name}.parquet" for name in (*SPLITS, "user_info", "item_info"))
CARD = "dataset_card.json"
WRITTEN = (*FILES, "feature_map.json", CARD, "user_ids.parquet", "item_ids.parquet", "config")
WRITTEN += ("config_before",)
META = {name: {"type": "meta"} for name in ("user_index", "item_index", "seq_len")}


def card_beside(data: str | Path) -> dict[str, Any]:
    """The card of the data set that a file of samples is of, which is beside it; empty without one.

    Raises:
        UserError: it is broken.
    """
    path = Path(data).parent / CARD
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not a card ({error}); prepare the data again") from None


def longest_history(card: dict[str, Any]) -> int | None:
    """Items of the longest history of any sample; None if the card does not say."""
    return max((s["history_length"]["max"] for s in card.get("splits", {}).values()), default=None)


@dataclass
class Dataset:
    """A prepared data set in memory.

    Attributes:
        splits: samples by split; columns ``user_index, item_index, seq_len``, the label and
            features of the sample itself.
        user_info: ``user_index, full_item_seq``.
        item_info: ``item_index`` and item features; row 0 is padding.
        features: FuxiCTR's specification of every feature but the meta columns.
        label: the label's column.
        source, licence: where the data comes from.
        extra: more entries for the card.
    """

    splits: dict[str, pl.DataFrame]
    user_info: pl.DataFrame
    item_info: pl.DataFrame
    features: dict[str, dict]
    label: str
    source: str
    licence: str
    extra: dict[str, Any] = field(default_factory=dict)


def write(dataset: Dataset, output: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Write a data set that is in memory; returns the card."""
    with new_folder(output, overwrite) as folder:
        for name, frame in dataset.splits.items():
            frame.write_parquet(folder / f"{name}.parquet")
        dataset.user_info.write_parquet(folder / "user_info.parquet")
        dataset.item_info.write_parquet(folder / "item_info.parquet")
        return finish(
            folder,
            Path(output).name,
            dataset.features,
            dataset.label,
            source=dataset.source,
            licence=dataset.licence,
            **dataset.extra,
        )


@contextmanager
def new_folder(output: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write a data set into, which becomes ``output`` whole or not at all.

    Raises:
        UserError: ``output`` exists and ``overwrite`` is not set, or cannot be written.
    """
    output = Path(output)
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise UserError(f"{output}: exists already; add --overwrite, or choose another --output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(output)
        partial = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-{os.getpid()}-"))
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None
    try:
        yield partial
        partial.chmod(0o755)
        replaced = partial.with_name(f"{partial.name}-replaced")
        if output.exists():
            os.replace(output, replaced)
        os.replace(partial, output)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, pl.exceptions.PolarsError) as error:  # of a full disk, and of damaged input
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{output}: was not written ({reason})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(output: Path) -> None:
    """Delete what processes that were killed have left beside ``output``."""
    for folder in output.parent.glob(f".{output.name}-*-*"):
        owner = folder.name.removeprefix(f".{output.name}-").split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def finish(
    folder: Path, dataset_id: str, features: dict[str, dict], label: str, **about: Any
) -> dict[str, Any]:
    """Write ``feature_map.json`` and ``dataset_card.json`` beside the five files of a folder.

    Args:
        features: FuxiCTR's specification of every feature but the meta columns.
        about: more entries for the card (``source``, ``licence``, ...).

    Returns:
        The card.
    """
    write_feature_map(folder / "feature_map.json", dataset_id, META | features, label)
    card = make_card(folder, dataset_id, features, label) | about
    (folder / CARD).write_text(json.dumps(card, indent=2))
    return card


def fingerprint(paths: Iterable[str | Path]) -> str:
    """A digest of the content of data files, which goes into every result."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def make_card(
    folder: Path, dataset_id: str, features: dict[str, dict], label: str
) -> dict[str, Any]:
    """Statistics of a data set, measured from its five files, and the hash of their content."""
    splits = {}
    for name in SPLITS:
        table = pl.scan_parquet(folder / f"{name}.parquet")
        rows, users, rate = (
            table.select(
                pl.len().alias("rows"),
                pl.col("user_index").n_unique().alias("users"),
                pl.col(label).cast(pl.Float64).mean().alias("rate"),
            )
            .collect(engine="streaming")
            .row(0)
        )
        length = table.select("seq_len").collect().to_series().to_numpy()
        edges = [0, 1, 10, 50, 100, 200, 500, 1000]
        counts = np.histogram(length, [*edges, max(1001, int(length.max(initial=0)) + 1)])[0]
        splits[name] = {
            "rows": rows,
            "users": users,
            "label_rate": round(rate or 0, 6),
            "history_length": {
                "mean": round(float(length.mean()), 2) if len(length) else 0,
                "max": int(length.max(initial=0)),
                "histogram": {f"{e}+": int(c) for e, c in zip(edges, counts, strict=True)},
            },
        }
    histories = pl.scan_parquet(folder / "user_info.parquet").select(
        pl.len().alias("users"), pl.col("full_item_seq").list.len().sum().alias("interactions")
    )
    users, interactions = histories.collect(engine="streaming").row(0)
    return {
        "dataset_id": dataset_id,
        "hash": fingerprint(folder / name for name in FILES),
        "users": users,
        "items": pq.read_metadata(folder / "item_info.parquet").num_rows - 1,
        "interactions": interactions,
        "vocab_sizes": {
            name: spec["vocab_size"] for name, spec in features.items() if "vocab_size" in spec
        },
        "splits": splits,
    }


def describe(card: dict[str, Any]) -> str:
    """The card as a short text."""
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
    if "bayes_auc" in card:
        lines.append(f"  Bayes-optimal test AUC {card['bayes_auc']['test']:.4f}")
    return "\n".join(lines)
