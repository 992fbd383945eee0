"""The profile of a prepared data set: what is in it, and how far its users hop between sessions.

Session hopping is measured by kappa. For a feature such as the category of an item, it is

    kappa = (same - expected) / (1 - expected).

Here ``same`` is the share of events with the value of the user's event before. ``expected`` is what
this share would be if each user's events were shuffled: the sum of n_v (n_v - 1) / (n (n - 1)) over
the values v, for n events of which n_v have the value v. Users weigh as much as they have pairs of
neighbouring events, and those with one value only are left out. So are events without a value.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..raw.moments import PER_SECOND
from .card import FILES, SPLITS, card_beside
from .stored import read_stored

PIECE = 2_000_000  # events that are read at a time
ENOUGH = 10_000_000  # events of users, evenly chosen, from which kappa is measured
QUANTILES = (0.1, 0.5, 0.9, 0.99)
RECENT = 20  # items that a short history has
HOPPING = 0.28  # kappa between that of MovieLens 1M (0.23) and those of Taobao and LFM (0.34)
USERS = "user_info.parquet"
NO_THEMES = {"item_index", "item", "name"}  # columns of ``item_ids.parquet``


def measure(folder: Path) -> dict[str, Any]:
    """The numbers of a prepared folder.

    Returns:
        ``times``, the first and the last moment of samples, or None; ``lengths``, quantiles of the lengths of
        the samples' histories; ``repeats``, the share of the events whose item the user had before.

        ``hopping`` has ``kappa`` and ``returns`` of each theme of which a user has two values.
        ``returns`` is the share of the changes that go to a value that the user had before. Themes
        are the categorical features whose raw values ``item_ids.parquet`` has.
    """
    known = themes(folder)
    totals = {name: np.zeros(4) for name in known}
    events = distinct = 0
    for piece in events_of(folder, ENOUGH):
        events += len(piece)
        distinct += piece.select("user_index", "item_index").n_unique()
        for name, values in known.items():
            value = values.gather(piece["item_index"])
            totals[name] += hops(piece.select("user_index", value=value))
    return {
        "times": _times(folder),
        "lengths": _lengths(folder),
        "repeats": 1 - distinct / max(1, events),
        "hopping": {name: rates(*total) for name, total in totals.items() if total[0]},
    }


def describe(folder: Path) -> str:
    """The profile as a short text for a terminal, to stand below the card."""
    found, lines = measure(folder), []
    unit = card_beside(folder / FILES[0]).get("time_unit", "unknown")
    if unit == "order":
        lines.append("no times, only the order of each user's events")
    elif found["times"]:
        lines.append(f"times {' to '.join(_moment(time, unit) for time in found['times'])}")
    lengths = [f"{quantile:.0%} up to {length:,}" for quantile, length in found["lengths"].items()]
    lines.append(f"lengths of histories: {', '.join(lengths)}")
    lines.append(
        f"repeats: {found['repeats']:.1%} of the events show an item that the user had before"
    )
    for name, hopping in found["hopping"].items():
        lines.append(
            f"session hopping of {name}: kappa {hopping['kappa']:.2f}, and {hopping['returns']:.0%} of "
            "the changes return to an earlier value"
        )
    return "\n".join(f"  {line}" for line in [*lines, advice(found)])


def advice(found: dict[str, Any]) -> str:
    """Whether a long history and a mixture can be expected to pay, in a sentence; see ``measure``."""
    kappas = [hopping["kappa"] for hopping in found["hopping"].values()]
    if found["lengths"][0.9] <= RECENT:
        return (
            f"Nine of ten histories have at most {RECENT} items, so neither a long history nor a "
            "mixture can be expected to pay."
        )
    if not kappas:
        return (
            "Whether a long history or a mixture pays is open, for no raw categories of the items are "
            "known."
        )
    if max(kappas) < HOPPING:
        return (
            "Users hop little between themes, as on MovieLens, where no mixture helped; a long history "
            "may still pay."
        )
    return (
        "Users stay with a theme and hop, as on Taobao and LFM: long histories can pay, and a mixture "
        "gained at most 0.5 AUC points."
    )


def hops(events: pl.DataFrame) -> NDArray[np.float64]:
    """What kappa is made of, summed over users of two or more values.

    Args:
        events: ``user_index, value``, all events of some users in order; null is no value.

    Returns:
        The number of pairs of neighbouring events, of those with one value, of those expected to
        have one, and of first events with a value but for each user's first.
    """
    counts = pl.col("value").unique_counts().cast(pl.Int64)
    users = (
        events.drop_nulls()
        .group_by("user_index")
        .agg(
            n=pl.len().cast(pl.Int64),
            same=(pl.col("value") == pl.col("value").shift()).sum(),
            alike=(counts * (counts - 1)).sum(),
            values=counts.len().cast(pl.Int64),
        )
    )
    users = users.filter(pl.col("values") > 1)
    sums = users.select(
        pairs=(pl.col("n") - 1).sum(),
        same=pl.col("same").sum(),
        expected=(pl.col("alike") / pl.col("n")).sum(),
        new=(pl.col("values") - 1).sum(),
    )
    return sums.to_numpy()[0].astype(np.float64)


def rates(pairs: float, same: float, expected: float, new: float) -> dict[str, float]:
    """``kappa`` and ``returns`` from the sums of ``hops``, if there are pairs; see ``measure``."""
    kappa = (same - expected) / (pairs - expected)
    return {"kappa": kappa, "returns": 1 - new / (pairs - same)}


def events_of(folder: Path, enough: int | None = None) -> Iterator[pl.DataFrame]:
    """The events of histories, some users at a time.

    The columns are ``user_index``, ``item_index``, ``place`` (from 0 in the user's history) and,
    where the folder has it, ``time``.

    Args:
        enough: give evenly chosen users alone, who have about so many events.
    """
    path = folder / USERS
    file, first = pq.ParquetFile(path, pre_buffer=False), 0
    names = [n for n in ("full_item_seq", "full_time_seq") if n in file.schema_arrow.names]
    total = pl.scan_parquet(path, glob=False).select(pl.col("full_item_seq").list.len().sum())
    events = max(1, total.collect(engine="streaming").item())
    users = max(1, PIECE * file.metadata.num_rows // events)
    for batch in file.iter_batches(users, columns=names):
        lists = pl.DataFrame(batch).with_row_index("user_index", first)
        first += len(lists)
        if enough is not None:
            lists = lists.gather_every(-(-events // enough))
        lists = lists.with_columns(place=pl.int_ranges(pl.col("full_item_seq").list.len()))
        rows = lists.explode(*names, "place", empty_as_null=False).cast(pl.Int64)
        yield rows.rename({"full_item_seq": "item_index", "full_time_seq": "time"}, strict=False)


def themes(folder: Path) -> dict[str, pl.Series]:
    """For each theme a number of the value of each item, or null, by ``item_index``."""
    if not (folder / "item_ids.parquet").exists():
        return {}
    raw = read_stored(folder, "item_ids").drop(NO_THEMES, strict=False)
    numbers = raw.select(pl.all().cast(pl.String).cast(pl.Categorical).to_physical())
    return {c.name: pl.concat([pl.Series([None], dtype=c.dtype), c]) for c in numbers}


def _times(folder: Path) -> tuple[int, int] | None:
    """The first and the last moment of samples; None if they are not known."""
    samples = pl.scan_parquet([folder / f"{name}.parquet" for name in SPLITS], glob=False)
    if "time" not in samples.collect_schema():
        return None
    low, high = pl.col("time").min(), pl.col("time").max().alias("last")
    return samples.select(low, high).collect(engine="streaming").row(0)


def _lengths(folder: Path) -> dict[float, int]:
    """The quantiles of ``seq_len`` over all samples."""
    lengths = pl.concat(
        pl.scan_parquet(folder / f"{name}.parquet", glob=False).group_by("seq_len").len()
        for name in SPLITS
    )
    counts = lengths.collect(engine="streaming").sort("seq_len")
    share = pl.col("len").cum_sum() / pl.col("len").sum()
    return {q: counts.filter(share >= q)["seq_len"][0] for q in QUANTILES}


def _moment(time: int, unit: str) -> str:
    """A moment as people read it, if its unit is known."""
    if unit not in PER_SECOND:
        return f"{time:,}"
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time / PER_SECOND[unit])
    return f"{moment:%Y-%m-%d %H:%M}"
