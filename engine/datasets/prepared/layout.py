"""Write a data set in LongCTR's parquet layout, whole or not at all.

A folder holds ``train.parquet``, ``valid.parquet``, ``test.parquet`` (one row per impression),
``user_info.parquet`` (the whole history of each user), ``item_info.parquet`` (row 0 is padding),
``feature_map.json`` (FuxiCTR's schema) and ``dataset_card.json`` (statistics and fingerprint).
"""

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from ...common.errors import UserError
from ...common.files import one_at_a_time
from ...config.feature_map_file import write_feature_map
from .card import CARD, FILES, SPLITS, fingerprint

ENCODERS = "encoders"  # folder of what ``encoders`` keeps
CONFIG = "config"  # folder of the experiments that ``ready_config`` writes
CONFIG_BEFORE = "config_before"  # what was in it before the data set was written again
WRITTEN = {*FILES, "feature_map.json", CARD, "user_ids.parquet", "item_ids.parquet"}
WRITTEN |= {ENCODERS, CONFIG, CONFIG_BEFORE}
META = ("user_index", "item_index", "seq_len", "time", "group_index", "group_user")
ASIDE = "moved aside"  # the folder to replace, where the system cannot exchange two in one step
LENGTHS = (0, 1, 10, 50, 100, 200, 500, 1000)  # where the bins of a card's histogram start


@dataclass
class Dataset:
    """A prepared data set in memory.

    Attributes:
        splits: samples by split; columns ``user_index, item_index, seq_len``, the label and
            features of the sample itself.
        user_info: columns ``user_index, full_item_seq``.
        item_info: ``item_index`` and item features; row 0 is padding.
        features: FuxiCTR's specification of every feature but the meta columns.
        label: the name of the label's column.
        about: entries for the card, such as ``source`` and ``licence``.
        item_ids: columns ``item_index, item`` and raw values of categories, without padding.
    """

    splits: dict[str, pl.DataFrame]
    user_info: pl.DataFrame
    item_info: pl.DataFrame
    features: dict[str, dict]
    label: str
    about: dict[str, Any]
    item_ids: pl.DataFrame | None = None


def write(dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Write a data set that is in memory into a folder, made if missing; returns its card."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = dataset.splits | {"user_info": dataset.user_info, "item_info": dataset.item_info}
    if dataset.item_ids is not None:
        tables["item_ids"] = dataset.item_ids
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    return finish(folder, dataset.features, dataset.label, dataset.about)


class AlreadyThereError(UserError):
    """``--output`` has content, and ``--overwrite`` is not set."""


def require_free(output: Path, overwrite: bool) -> None:
    """Reject a folder that a data set may not be written to.

    Args:
        output: must be missing or empty or, with ``overwrite``, a data set and nothing else.

    Raises:
        UserError: the folder holds something that would be lost.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; name a folder")
    content = {path.name for path in output.iterdir()} if output.exists() else set()
    if content and not overwrite:
        raise AlreadyThereError(
            f"--output {output} exists already; add --overwrite, or name another folder"
        )
    for name in sorted(content - WRITTEN):
        raise UserError(
            f"--output {output} holds {name}, which is no part of a data set, and --overwrite "
            "would delete it; move it away, or name another folder"
        )


@contextmanager
def new_folder(output: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to write a data set into; it becomes ``output`` whole or not at all.

    While another process writes ``output``, this one waits. A configuration that ``output`` had is
    kept as ``config_before``.

    Raises:
        UserError: ``output`` is not free (see ``require_free``), or cannot be written.
    """
    require_free(output, overwrite)
    place = output.resolve()
    lock, scratch = (place.with_name(f".{place.name}.{end}") for end in ("lock", "new"))
    partial = scratch / place.name
    busy = f"another process is writing {output}; waiting for it"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(lock, busy):
            _tidy(scratch, place)  # what a killed process has left behind
            try:
                require_free(output, overwrite)
                partial.mkdir(parents=True)
                yield partial
                require_free(output, overwrite)  # again, for the work may have taken hours
                kept = (place / CONFIG).exists()
                if kept:
                    shutil.copytree(place / CONFIG, partial / CONFIG_BEFORE)
                _replace(place, partial, scratch / ASIDE)
            finally:
                _tidy(scratch, place)
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk, or damaged input
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"--output {output} was not written ({reason})") from None
    if kept:
        print(f"the configuration that was there is in {output / CONFIG_BEFORE}")


def _replace(old: Path, new: Path, aside: Path) -> None:
    """Put a folder in the place of another, in one step where the system can."""
    if old.exists():
        system, here, exchange = ctypes.CDLL(None), -100, 2  # as Linux numbers them
        names = os.fsencode(old), os.fsencode(new)
        if hasattr(system, "renameat2") and not system.renameat2(
            here, names[0], here, names[1], exchange
        ):
            return
        os.replace(old, aside)
    os.replace(new, old)


def _tidy(scratch: Path, place: Path) -> None:
    """Put back a folder that was moved aside and not replaced, and delete all else in ``scratch``."""
    aside = scratch / ASIDE
    if aside.exists() and not place.exists():
        os.replace(aside, place)
    shutil.rmtree(scratch, ignore_errors=True)


def finish(
    folder: Path, features: dict[str, dict], label: str, about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``feature_map.json`` and ``dataset_card.json`` beside the five files of a folder.

    Args:
        features: FuxiCTR's specification of every feature but the meta columns.
        about: more entries for the card.

    Returns:
        The card.
    """
    columns = pq.read_schema(folder / "train.parquet").names
    specs = {name: {"type": "meta"} for name in META if name in columns} | features
    write_feature_map(folder / "feature_map.json", folder.name, specs, label)
    card = make_card(folder, features, label) | about
    (folder / CARD).write_text(json.dumps(card, indent=2))
    return card


def make_card(folder: Path, features: dict[str, dict], label: str) -> dict[str, Any]:
    """Measure the statistics of a data set from its five files, and the hash of their content."""
    histories = pl.scan_parquet(folder / "user_info.parquet", glob=False).select(
        users=pl.len(), interactions=pl.col("full_item_seq").list.len().sum()
    )
    counts = histories.collect(engine="streaming").row(0, named=True)
    user = "user_index"
    if "group_user" in pq.read_schema(folder / "train.parquet").names:  # of several histories
        user = "group_user"
        samples = pl.scan_parquet([folder / f"{name}.parquet" for name in SPLITS], glob=False)
        users = samples.select(pl.col(user).n_unique())
        counts["users"] = users.collect(engine="streaming").item()
    return {
        "dataset_id": folder.name,
        "hash": fingerprint(folder / name for name in FILES),
        "items": pq.read_metadata(folder / "item_info.parquet").num_rows - 1,
        **counts,
        "vocab_sizes": {k: v["vocab_size"] for k, v in features.items() if "vocab_size" in v},
        "splits": {
            name: _describe_split(folder / f"{name}.parquet", label, user) for name in SPLITS
        },
    }


def _describe_split(path: Path, label: str, user: str) -> dict[str, Any]:
    """The rows, users and label rate of a split, and how long its histories are."""
    length = pl.col("seq_len")
    bins = [
        length.is_between(low, high, closed="left").sum().alias(f"{low}+")
        for low, high in pairwise([*LENGTHS, 2**62])
    ]
    split = pl.scan_parquet(path, glob=False).select(
        rows=pl.len(),
        users=pl.col(user).n_unique(),
        label_rate=pl.col(label).cast(pl.Float64).mean().round(6),
        history_length=pl.struct(
            mean=length.mean().round(2), max=length.max(), histogram=pl.struct(bins)
        ),
    )
    return split.collect(engine="streaming").row(0, named=True)
