"""Write a data set in LongCTR's parquet layout, whole or not at all.

A folder holds ``train.parquet``, ``valid.parquet``, ``test.parquet`` (one row per impression),
``user_info.parquet`` (the whole history of each user), ``item_info.parquet`` (row 0 is padding),
``feature_map.json`` (FuxiCTR's schema) and ``dataset_card.json`` (statistics and fingerprint).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from ..common.errors import UserError
from ..config.feature_map import write_feature_map
from .card import CARD, FILES, SPLITS, fingerprint

ENCODERS = "encoders"  # folder of what ``encoders`` keeps
CONFIG = "config"  # folder of the experiments that ``ready_config`` writes
CONFIG_BEFORE = "config_before"  # what was in it before the data set was written again
WRITTEN = {*FILES, "feature_map.json", CARD, "user_ids.parquet", "item_ids.parquet"}
WRITTEN |= {ENCODERS, CONFIG, CONFIG_BEFORE}
META = {name: {"type": "meta"} for name in ("user_index", "item_index", "seq_len")}
LEFT_BEHIND = 86_400  # seconds without a new file, after which nobody writes to a folder any more
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
    """

    splits: dict[str, pl.DataFrame]
    user_info: pl.DataFrame
    item_info: pl.DataFrame
    features: dict[str, dict]
    label: str
    about: dict[str, Any]


def write(dataset: Dataset, output: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Write a data set that is in memory; returns its card."""
    with new_folder(output, overwrite) as folder:
        tables = dataset.splits | {"user_info": dataset.user_info, "item_info": dataset.item_info}
        for name, table in tables.items():
            table.write_parquet(folder / f"{name}.parquet")
        return finish(folder, dataset.features, dataset.label, dataset.about)


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
        raise UserError(
            f"--output {output} exists already; add --overwrite, or name another folder"
        )
    for name in sorted(content - WRITTEN):
        raise UserError(
            f"--output {output} holds {name}, which is no part of a data set, and --overwrite "
            "would delete it; move it away, or name another folder"
        )


@contextmanager
def new_folder(output: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a new folder to write a data set into; it becomes ``output`` whole or not at all.

    A configuration that ``output`` had is kept as ``config_before``.

    Raises:
        UserError: ``output`` is not free (see ``require_free``), or cannot be written.
    """
    output = Path(output)
    require_free(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # Killed processes leave folders behind. Others may be writing at this moment, so only old
        # folders are deleted.
        for folder in output.parent.glob(f".{output.name}-????????"):
            with suppress(FileNotFoundError):  # its writer may end at this moment
                changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - changed > LEFT_BEHIND:
                    shutil.rmtree(folder, ignore_errors=True)
        with TemporaryDirectory(
            dir=output.parent, prefix=f".{output.name}-", ignore_cleanup_errors=True
        ) as scratch:
            partial = Path(scratch, output.name)
            partial.mkdir()
            yield partial
            if (output / CONFIG).exists():
                shutil.copytree(output / CONFIG, partial / CONFIG_BEFORE)
                print(f"the configuration that was there is in {output / CONFIG_BEFORE}")
            replaced = Path(scratch, "replaced")
            if output.exists():
                os.replace(output, replaced)
            try:
                os.replace(partial, output)
            except BaseException:
                if replaced.exists():
                    os.replace(replaced, output)
                raise
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk, or damaged input
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"--output {output} was not written ({reason})") from None


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
    write_feature_map(folder / "feature_map.json", folder.name, META | features, label)
    card = make_card(folder, features, label) | about
    (folder / CARD).write_text(json.dumps(card, indent=2))
    return card


def make_card(folder: Path, features: dict[str, dict], label: str) -> dict[str, Any]:
    """Measure the statistics of a data set from its five files, and the hash of their content."""
    histories = pl.scan_parquet(folder / "user_info.parquet").select(
        users=pl.len(), interactions=pl.col("full_item_seq").list.len().sum()
    )
    return {
        "dataset_id": folder.name,
        "hash": fingerprint(folder / name for name in FILES),
        "items": pq.read_metadata(folder / "item_info.parquet").num_rows - 1,
        **histories.collect(engine="streaming").row(0, named=True),
        "vocab_sizes": {k: v["vocab_size"] for k, v in features.items() if "vocab_size" in v},
        "splits": {name: _describe_split(folder / f"{name}.parquet", label) for name in SPLITS},
    }


def _describe_split(path: Path, label: str) -> dict[str, Any]:
    """The rows, users and label rate of a split, and how long its histories are."""
    length = pl.col("seq_len")
    bins = [
        length.is_between(low, high, closed="left").sum().alias(f"{low}+")
        for low, high in pairwise([*LENGTHS, 2**62])
    ]
    split = pl.scan_parquet(path).select(
        rows=pl.len(),
        users=pl.col("user_index").n_unique(),
        label_rate=pl.col(label).cast(pl.Float64).mean().round(6),
        history_length=pl.struct(
            mean=length.mean().round(2), max=length.max(), histogram=pl.struct(bins)
        ),
    )
    return split.collect(engine="streaming").row(0, named=True)
