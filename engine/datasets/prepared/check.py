"""Check a prepared folder: what the loader rejects, and what makes results worthless."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ...common.errors import UserError
from ...common.files import write_json
from ...config.feature_map import build_feature_map
from . import data_profile, facts, ready_config
from .card import CARD, FILES, SPLITS, card_beside, describe
from .layout import make_card

if TYPE_CHECKING:
    from fuxictr.features import FeatureMap

PAIR = ["user_index", "item_index"]
CHANCE = 1e-3  # least chance at which samples shown twice may all have the same label
Samples = dict[str, pl.LazyFrame]


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
        count = ", ".join(
            f"{len(texts)} {kind}{'s' * (len(texts) != 1)}" for kind, texts in reversed(marked)
        )
        return "\n".join([*self.facts, *lines, count])


def check(folder: Path, renew: bool = False) -> Report:
    """Check a folder in LongCTR's layout.

    Args:
        folder: the data set, see ``ready_config.described``.
        renew: write the card anew, for files that were edited since.

    Raises:
        UserError: nothing says what the columns are.
    """
    params = ready_config.described(folder)
    feature_map = build_feature_map(params)
    report = Report(errors=read_errors(folder, feature_map, params.get("event_cols", [])))
    if not report.errors:
        label = feature_map.labels[0]
        card = make_card(folder, feature_map.features, label)
        saved: dict[str, Any] = {}
        with _collected(report.errors):
            saved = card_beside(folder / FILES[0])
            before = saved.get("hash", card["hash"])
            if renew:
                write_json(folder / CARD, saved | card)
                report.facts.append(f"{folder / CARD} was written anew")
            elif before != card["hash"]:
                report.errors.append(
                    f"{folder / CARD} has the hash {before}, but the files have {card['hash']}: "
                    "they were changed since; if that is meant, --renew writes the card anew"
                )
        report.facts += [describe(saved | card), data_profile.describe(folder)]
        timed = saved.get("time_unit") != "order"
        found = facts.measure(folder, feature_map.features, label, timed)
        shown = [f"{name} {fact.auc:.3f}" for name, fact in found.items()]
        report.facts.append(f"AUC of single facts (0.5 tells nothing): {', '.join(shown)}")
        report.warnings += facts.warnings(found, saved.get("negatives"))
        report.errors += facts.errors(found)
        columns = [pl.col(*PAIR, "seq_len").cast(pl.Int64), pl.col(label).alias("label")]
        samples = {
            s: pl.scan_parquet(folder / f"{s}.parquet", glob=False).select(columns) for s in SPLITS
        }
        for name, split in card["splits"].items():
            empty = split["history_length"]["histogram"]["0+"] / split["rows"]
            report.facts.append(f"{name} samples without a history: {empty:.1%}")
            if (rate := split["label_rate"]) in (0, 1):
                report.warnings.append(f"{name}: every label, or nearly so, is {rate:g}")
        if "negatives" not in saved:  # or else two positives of one moment may share some
            _find_duplicates(samples, card, report)
        _find_leaks(samples, _clicks(folder), report)
    return report


def read_errors(
    folder: Path, feature_map: "FeatureMap", event_cols: Sequence[dict[str, Any]] = ()
) -> list[str]:
    """Read every file of a folder as training does; returns what the loader rejects."""
    from ...loader.columnar import Histories, ItemTable, Samples  # these need torch
    from ...loader.event_columns import EventColumns

    errors: list[str] = []
    with _collected(errors):
        histories = Histories(folder / "user_info.parquet")
    with _collected(errors):
        items = ItemTable(folder / "item_info.parquet", feature_map)
    if errors:
        return errors  # samples refer to both tables
    with _collected(errors):
        histories.check_items(len(items), items.path)
        EventColumns(histories, event_cols, feature_map)
    for name in SPLITS:
        with _collected(errors):
            Samples(folder / f"{name}.parquet", feature_map, histories, len(items))
    return errors


@contextmanager
def _collected(errors: list[str]) -> Iterator[None]:
    """Add the error that ends the block to a list."""
    try:
        yield
    except UserError as error:
        errors.append(str(error))


def _find_duplicates(samples: Samples, card: dict[str, Any], report: Report) -> None:
    """Warn of samples of the same user, target and history in two splits.

    They are natural where an item is shown again, but then the labels differ now and then.
    """
    key = [*PAIR, "seq_len"]
    for first, second in combinations(SPLITS, 2):
        both = samples[second].join(samples[first].unique(key), on=key, suffix="_before")
        same_label = (pl.col("label") == pl.col("label_before")).sum()
        counts = both.select(pl.len(), same_label).collect(engine="streaming")
        rows, same = counts.row(0)
        total, rate = (card["splits"][second][fact] for fact in ("rows", "label_rate"))
        report.facts.append(f"{second} samples in {first} too: {rows:,} ({rows / total:.1%})")
        if rows and same == rows and (rate**2 + (1 - rate) ** 2) ** rows < CHANCE:
            report.warnings.append(
                f"{rows:,} samples of {second}.parquet stand in {first}.parquet with the same history "
                "and the same label; a model can learn them by heart"
            )


def _find_leaks(samples: Samples, clicks: pl.LazyFrame, report: Report) -> None:
    """Warn of clicks of validation and test that histories of earlier splits show."""
    for later in SPLITS[1:]:
        earlier = SPLITS[: SPLITS.index(later)]
        seen = pl.concat([samples[name] for name in earlier]).group_by("user_index")
        clicked = samples[later].with_row_index("sample").filter(pl.col("label") == 1)
        clicked = clicked.join(seen.agg(visible=pl.col("seq_len").max()), on="user_index")
        shown = pl.col("place").is_between(pl.col("seq_len"), pl.col("visible"), closed="left")
        leaked = clicked.join(clicks, on=PAIR).filter(shown).select(pl.col("sample").n_unique())
        found = leaked.collect(engine="streaming").item()
        names = " and ".join(earlier)
        report.facts.append(f"clicks of {later} in histories of {names}: {found:,}")
        if found:
            report.warnings.append(
                f"{found:,} clicked samples of {later}.parquet stand in histories that {names} samples "
                "show, after their own moment: training sees what it is tested on"
            )


def _clicks(folder: Path) -> pl.LazyFrame:
    """``user_index, item_index, place`` of every history item."""
    histories = pl.scan_parquet(folder / "user_info.parquet", row_index_name="user", glob=False)
    rows = histories.select(user_index=pl.col("user").cast(pl.Int64), item_index="full_item_seq")
    return rows.explode("item_index").with_columns(
        pl.col("item_index").cast(pl.Int64), place=pl.int_range(pl.len()).over("user_index")
    )
