"""The check of a prepared folder: what the loader rejects, and what makes results worthless."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ..common.errors import UserError
from ..config.feature_map import build_feature_map
from ..loader.columnar import Histories, ItemTable, Samples
from . import ready_config
from .layout import CARD, SPLITS, describe, make_card

PAIR = ("user_index", "item_index")
WITHOUT_HISTORY = 0.5  # of a split
CHANCE = 1e-3  # that labels of samples shown twice agree by chance, where they all do
SELF_LEAK = 0.5  # of the positives: so often the newest history item is the target only by mistake


@dataclass
class Report:
    """What a check found.

    Attributes:
        facts: statistics, to be read.
        warnings: what a benchmark should not have, but a model can be trained with.
        errors: what the loader rejects.
    """

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        marked = [("warning", self.warnings), ("error", self.errors)]
        lines = [f"{kind}: {text}" for kind, texts in marked for text in texts]
        count = f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        return "\n".join([*self.facts, *lines, count])


def check(folder: Path, root: Path) -> Report:
    """Check a folder in LongCTR's layout.

    What columns there must be is read from its ``feature_map.json`` or, where the files were copied
    by hand and there is none, from the project's configuration of a data set of that name.

    Args:
        folder: the data set; its name is the ``dataset_id``.
        root: of the project.

    Raises:
        UserError: there is no folder, or nothing says what its columns are.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / "feature_map.json").exists():
        dataset = ready_config.dataset_entry(folder, root)
    else:
        dataset = ready_config.shipped_entry(folder.name)
    if dataset is None:
        raise UserError(
            f"{folder}: has no feature_map.json, and no data set of its name is in the configuration; "
            "name a folder that data/prepare.py wrote"
        )
    params = dataset | {"dataset_id": folder.name, "data_root": str(folder.parent)}
    feature_map = build_feature_map(params | {"embedding_dim": 1, "group_id": None})
    report = Report()
    if _read_all(folder, feature_map, report):
        label = feature_map.labels[0]
        _statistics(folder, feature_map, report)
        _duplicates(folder, label, report)
        _leaks(folder, label, report)
    return report


def _read_all(folder: Path, feature_map: Any, report: Report) -> bool:
    """Read every file as the loader does; returns whether it accepts them all."""
    tables: dict[str, Any] = {}
    for name, read in (
        ("user_info", Histories),
        ("item_info", lambda p: ItemTable(p, feature_map)),
    ):
        try:
            tables[name] = read(folder / f"{name}.parquet")
        except UserError as error:
            report.errors.append(str(error))
    if report.errors:
        return False
    histories, items = tables["user_info"], tables["item_info"]
    try:
        histories.check_items(len(items), items.path)
    except UserError as error:
        report.errors.append(str(error))
    for name in SPLITS:
        try:
            samples = Samples(folder / f"{name}.parquet", feature_map, histories, len(items))
            if not len(samples):
                raise UserError(f"{samples.path}: has no samples; each split needs some")
        except UserError as error:
            report.errors.append(str(error))
    return not report.errors


def _statistics(folder: Path, feature_map: Any, report: Report) -> None:
    card = make_card(folder, folder.name, feature_map.features, feature_map.labels[0])
    report.facts.append(describe(card))
    path = folder / CARD
    if path.exists():
        try:
            before = json.loads(path.read_text())["hash"]
        except (ValueError, KeyError, TypeError) as error:
            report.errors.append(f"{path}: is no data set card ({error}); prepare the data again")
            return
        if before != card["hash"]:
            report.warnings.append(
                f"{path}: has hash {before}, the files have {card['hash']}: they were changed since"
            )
    train, test = _samples(folder, "train"), _samples(folder, "test")
    for column, what in zip(PAIR, ("user", "target"), strict=True):
        new = test.join(train, on=column, how="anti").select(pl.len()).collect().item()
        share = new / card["splits"]["test"]["rows"]
        report.facts.append(
            f"test samples whose {what} is not in the training samples: {share:.1%}"
        )
    for name, split in card["splits"].items():
        empty = split["history_length"]["histogram"]["0+"] / split["rows"]
        report.facts.append(f"{name} samples without a history: {empty:.1%}")
        if empty > WITHOUT_HISTORY:
            report.warnings.append(
                f"{name}: most samples have no history; is the time of events right?"
            )
        labels = _samples(folder, name, feature_map.labels[0]).select(feature_map.labels[0])
        if len(kinds := labels.unique().collect()) == 1:
            report.warnings.append(f"{name}: every label is {kinds.item():g}")


def _duplicates(folder: Path, label: str, report: Report) -> None:
    """Samples of the same user, target and history in two splits. That is natural where an item is
    shown again, but then the labels differ now and then."""
    key = [*PAIR, "seq_len"]
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        earlier = _samples(folder, first, label).rename({label: "before"}).unique(key)
        later = _samples(folder, second, label)
        both = later.join(earlier, on=key)
        rows, same = (
            both.select(pl.len(), (pl.col(label) == pl.col("before")).sum()).collect().row(0)
        )
        total, rate = later.select(pl.len(), pl.col(label).cast(pl.Float64).mean()).collect().row(0)
        report.facts.append(
            f"{second} samples that are in {first} too: {rows:,} ({rows / total:.1%})"
        )
        if rows and same == rows and (rate**2 + (1 - rate) ** 2) ** rows < CHANCE:
            report.warnings.append(
                f"{rows:,} samples of {second}.parquet stand in {first}.parquet with the same history "
                "and the same label; a model can learn them by heart"
            )


def _leaks(folder: Path, label: str, report: Report) -> None:
    """Clicks of validation and test that histories of earlier splits show."""
    histories = pl.scan_parquet(folder / "user_info.parquet").with_row_index("user_index_")
    histories = histories.select(
        user_index=pl.col("user_index_").cast(pl.Int64), item_index="full_item_seq"
    )
    clicks = histories.explode("item_index").with_columns(
        pl.col("item_index").cast(pl.Int64), place=pl.int_range(pl.len()).over("user_index")
    )
    for earlier, later in ((["train"], "valid"), (["train", "valid"], "test")):
        seen = pl.concat([_samples(folder, name) for name in earlier])
        seen = seen.group_by("user_index").agg(visible=pl.col("seq_len").max())
        samples = _samples(folder, later, label).with_row_index("sample")
        found = (
            samples.filter(pl.col(label) == 1)
            .join(seen, on="user_index")
            .join(clicks, on=PAIR)
            .filter((pl.col("place") >= pl.col("seq_len")) & (pl.col("place") < pl.col("visible")))
            .select(pl.col("sample").n_unique())
            .collect()
            .item()
        )
        names = " and ".join(earlier)
        report.facts.append(f"clicks of {later} in histories of {names}: {found:,}")
        if found:
            report.warnings.append(
                f"{found:,} clicked samples of {later}.parquet stand in histories that {names} samples "
                "show, after their own moment: training sees what it is tested on"
            )
    newest = (pl.col("seq_len") - 1).alias("place")
    samples = _samples(folder, "test", label).filter(pl.col("seq_len") > 0).with_columns(newest)
    matched = samples.join(clicks.with_columns(same=True), on=[*PAIR, "place"], how="left")
    rates = dict(
        matched.group_by(label).agg(pl.col("same").fill_null(False).mean()).collect().iter_rows()
    )
    clicked, other = rates.get(1.0, 0.0), rates.get(0.0, 0.0)
    report.facts.append(
        f"test targets that are the newest history item: {clicked:.1%} of the clicked, {other:.1%} of the others"
    )
    if clicked - other > SELF_LEAK:
        report.warnings.append(
            "the newest item of most clicked test samples is the target itself: the history holds the "
            "click that is to be predicted; seq_len must count earlier items only"
        )


def _samples(folder: Path, split: str, *more: str) -> pl.LazyFrame:
    columns = (pl.col("user_index", "item_index", "seq_len").cast(pl.Int64), *more)
    return pl.scan_parquet(folder / f"{split}.parquet").select(*columns)
