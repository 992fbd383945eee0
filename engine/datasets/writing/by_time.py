"""The moments of a log in order, of which few are in memory at once."""

import numpy as np
import polars as pl

SLICE = 4_000_000  # events of a slice of the time
SAMPLE = 1_000  # one of so many events is looked at, to cut the time into such slices


def slice_of(events: pl.LazyFrame) -> pl.Expr:
    """The number of the slice that the ``time`` of an event lies in; later ones have larger numbers.

    A slice has about ``SLICE`` of the events, or more if they are of one moment.
    """
    some = events.select("time").with_row_index().filter(pl.col("index") % SAMPLE == 0)
    times = np.sort(some.collect(engine="streaming")["time"])
    edges = times[:: max(1, SLICE // SAMPLE)][1:]
    return pl.col("time").map_batches(
        lambda time: pl.Series(edges.searchsorted(time, "right")), pl.Int64, is_elementwise=True
    )


def times_at(events: pl.LazyFrame, places: list[int]) -> list[int]:
    """The numbers at some places of the sorted column ``time``."""
    number, found = slice_of(events), []
    slices = events.group_by(number.alias("slice")).len().collect(engine="streaming").sort("slice")
    ends = slices["len"].cum_sum()
    for place in places:
        i = ends.search_sorted(place, "right")
        times = events.filter(number == slices["slice"][i]).group_by("time").len()
        counts = times.collect(engine="streaming").sort("time")
        rest = place - ends[i] + slices["len"][i]
        found.append(counts["time"][counts["len"].cum_sum().search_sorted(rest, "right")])
    return found
