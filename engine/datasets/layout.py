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
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..compat import write_feature_map
from ..errors import UserError

SPLITS = ("train", "valid", "test")
FILES = tuple(f"{name}.parquet" for name in (*SPLITS, "user_info", "item_info"))
CARD = "dataset_card.json"
META = {name: {"type": "meta"} for name in ("user_index", "item_index", "seq_len")}


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
    """Write a data set; the folder appears whole or not at all. Returns the card."""
    output = Path(output)
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise UserError(f"{output}: exists already; add --overwrite, or choose another --output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None
    try:
        for name, frame in dataset.splits.items():
            frame.write_parquet(partial / f"{name}.parquet")
        dataset.user_info.write_parquet(partial / "user_info.parquet")
        dataset.item_info.write_parquet(partial / "item_info.parquet")
        features = META | dataset.features
        write_feature_map(partial / "feature_map.json", output.name, features, dataset.label)
        card = make_card(dataset, output.name, fingerprint(partial / name for name in FILES))
        (partial / CARD).write_text(json.dumps(card, indent=2))
        partial.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        os.replace(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return card


def fingerprint(paths: Iterable[str | Path]) -> str:
    """A digest of the content of data files, which goes into every result."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def make_card(dataset: Dataset, dataset_id: str, content_hash: str) -> dict[str, Any]:
    """Measured statistics of a data set."""
    splits = {}
    for name, frame in dataset.splits.items():
        length = frame["seq_len"].to_numpy()
        edges = [0, 1, 10, 50, 100, 200, 500, 1000]
        counts = np.histogram(length, [*edges, max(1001, int(length.max(initial=0)) + 1)])[0]
        splits[name] = {
            "rows": len(frame),
            "users": frame["user_index"].n_unique(),
            "label_rate": round(float(frame[dataset.label].mean() or 0), 6),
            "history_length": {
                "mean": round(float(length.mean()), 2) if len(length) else 0,
                "max": int(length.max(initial=0)),
                "histogram": {f"{e}+": int(c) for e, c in zip(edges, counts, strict=True)},
            },
        }
    return {
        "dataset_id": dataset_id,
        "hash": content_hash,
        "users": len(dataset.user_info),
        "items": len(dataset.item_info) - 1,
        "interactions": int(dataset.user_info["full_item_seq"].list.len().sum()),
        "vocab_sizes": {
            name: spec["vocab_size"]
            for name, spec in dataset.features.items()
            if "vocab_size" in spec
        },
        "splits": splits,
        "source": dataset.source,
        "licence": dataset.licence,
        **dataset.extra,
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
