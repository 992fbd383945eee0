"""What the events of some users become: samples in the order of time, and histories."""

from __future__ import annotations

from typing import Any

import polars as pl


def in_time_order(events: pl.DataFrame, features: list[str]) -> pl.DataFrame:
    """Events sorted by user and time, with ``seq_len``: positive events at earlier moments.

    Where events are merged, the features are those of the first sample. A click that is logged
    apart has none, and would give the label away.
    """
    sample = pl.col("label").is_not_null()
    ordered = (
        events.lazy()
        .sort("user_index", "time", "row", ~sample)
        .group_by("user_index", "time", "item_index", maintain_order=True)
        .agg(
            pl.col("label").max(),
            pl.col("positive").any(),
            pl.col(features).filter(sample).first(),
        )
        .with_columns(pl.col("user_index", "item_index").cast(pl.Int64))
    )
    so_far = pl.col("positive").cast(pl.Int64).cum_sum().over("user_index") - pl.col("positive")
    ordered = ordered.with_columns(seq_len=so_far.cast(pl.Int64))
    return ordered.with_columns(pl.col("seq_len").first().over("user_index", "time")).collect()


def labelled(events: pl.DataFrame, starts: tuple[Any, ...]) -> pl.DataFrame:
    """Exposures with the label of what followed them.

    Only what happened before the next of the moments ``starts`` counts, because more is not known
    when training ends.
    """
    shown = pl.col("label").is_not_null()
    pair = ["user_index", "item_index"]
    visits = events.with_columns(visit=shown.cast(pl.Int64).cum_sum().over(pair))
    first = pl.col("time").filter("positive").min().over(*pair, "visit")
    followed = first.is_not_null()
    for start in starts:
        followed &= (pl.col("time") >= start) | (first < start)
    followed = followed.fill_null(False).cast(events["label"].dtype)
    return visits.with_columns(label=pl.when(shown).then(followed)).drop("visit")


def histories_of(events: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    """``user_index, full_item_seq`` of the users ``first`` to ``last``, empty lists included."""
    users = pl.DataFrame({"user_index": pl.int_range(first, last + 1, eager=True)})
    lists = events.filter("positive").group_by("user_index", maintain_order=True)
    histories = users.join(
        lists.agg(full_item_seq="item_index"), on="user_index", how="left", maintain_order="left"
    )
    return histories.with_columns(pl.col("full_item_seq").fill_null([]))
