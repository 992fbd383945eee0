"""How well a single fact tells the label of a prepared data set.

Each fact gives a number to every sample of a seeded choice, and its AUC is reported as it is: 0.03
tells the label as well as 0.97. The facts are:

- ``in the history``: whether the candidate is an item of the sample's history;
- ``popularity``: how many events of histories have the candidate before the sample's moment or,
  where moments are not known, how many training samples have it;
- ``place in the group``: the sample's place in the file among those of its ``group_index``, as a
  share, where the files have this column;
- ``length of the history``, and ``time``;
- each feature. A number is taken as it is. A category stands for its label rate in the training
  samples, and a sequence for the mean rate of its values. A vector is projected on the difference
  between the mean vectors of clicked and other training samples. These three are learned, so their
  AUC is that of validation and test samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_zoo.training.metrics import auc

from . import SEED
from .card import SPLITS
from .data_profile import events_of

ROWS = 200_000  # samples that are chosen
TELLING = 0.45  # distance of an AUC to 0.5 from which the fact alone tells the label
FAIR = 0.02  # such a distance that is no reason for a warning, beside the noise
FAIR_POPULARITY = 0.1
HISTORY, POPULARITY, PLACE = "in the history", "popularity", "place in the group"
PAIR = ["user_index", "item_index"]
LENGTH, TIME = "length of the history", "time"


class Fact(NamedTuple):
    """How well a fact tells the label.

    Attributes:
        auc: of the fact's number.
        noise: three standard errors of the AUC of a fact that tells nothing.
        clicked_only: whether the number is 0 for all samples of label 0.
    """

    auc: float
    noise: float
    clicked_only: bool


def measure(
    folder: Path, features: dict[str, dict[str, Any]], label: str, timed: bool, rows: int = ROWS
) -> dict[str, Fact]:
    """The facts of a prepared folder by name; those that have no AUC are left out.

    Args:
        features: the feature map's specifications.
        label: the label's column.
        timed: whether ``time``, where the samples have it, is a moment and no mere place.
        rows: number of samples to choose.
    """
    columns = [pl.col(label).cast(pl.Int64).alias("label"), pl.all().exclude(label)]
    files = {
        name: pl.scan_parquet(folder / f"{name}.parquet", row_index_name="row").select(columns)
        for name in SPLITS
    }
    samples = _choose(folder, files, rows)
    timed &= "time" in samples
    before = timed and "full_time_seq" in pl.read_parquet_schema(folder / "user_info.parquet")
    label_B = samples["label"].to_numpy()
    scores = {
        HISTORY: _in_history(folder, samples),
        POPULARITY: _popularity(folder, samples) if before else _targets(files["train"], samples),
        LENGTH: samples["seq_len"].to_numpy(),
    }
    if "group_index" in samples:
        scores[PLACE] = _place(files, samples)
    if timed:
        scores[TIME] = samples["time"].to_numpy()
    found = {name: _fact(label_B, score_B) for name, score_B in scores.items()}
    for name, spec in features.items():
        if spec["type"] != "meta":
            found[f"feature {name}"] = _feature(folder, files["train"], samples, name, spec)
    return {name: fact for name, fact in found.items() if fact is not None}


def warnings(found: dict[str, Fact], negatives: dict[str, Any] | None) -> Iterator[str]:
    """Say which facts alone tell the label, or do so because of how negatives were drawn.

    Args:
        found: see ``measure``.
        negatives: the card's entry, for a data set with sampled negatives.
    """
    fair: dict[str, float] = {}
    if negatives:
        fair = dict.fromkeys((PLACE, LENGTH, TIME), FAIR) | {POPULARITY: FAIR_POPULARITY}
        fair |= {HISTORY: FAIR} if negatives["targets"] == "first" else {}
    for name, fact in found.items():
        distance, shown = abs(fact.auc - 0.5), f"{name} alone has an AUC of {fact.auc:.3f}"
        if distance > max(TELLING, fact.noise):
            yield f"{shown}, so it tells the label; leave it out, or mend how samples were made"
        elif name in fair and distance > fair[name] + fact.noise:
            yield (
                f"{shown} because of how negatives were drawn, where 0.5 would be fair; "
                "a model that learns this knows nothing of users"
            )
        elif name == HISTORY and not negatives and fact.clicked_only and distance > fact.noise:
            yield (
                f"{shown}, since no sample of label 0 has its item in the history: negatives seem to "
                "be drawn among items that the user never had; leave out clicks on items of the history"
            )


def _choose(folder: Path, files: dict[str, pl.LazyFrame], rows: int) -> pl.DataFrame:
    """Some samples of all files, with ``split`` and ``row``, their place in the file."""
    sizes = [pq.read_metadata(folder / f"{name}.parquet").num_rows for name in files]
    starts = np.cumsum([0, *sizes])
    rng = np.random.default_rng(SEED)
    chosen = np.sort(rng.choice(starts[-1], min(rows, starts[-1]), replace=False))
    parts = []
    for (name, file), start, end in zip(files.items(), starts[:-1], starts[1:], strict=True):
        own = chosen[(start <= chosen) & (chosen < end)] - start
        wanted = pl.LazyFrame({"row": own}, schema={"row": pl.get_index_type()})
        part = file.join(wanted, on="row", how="semi").collect(engine="streaming")
        parts.append(part.with_columns(split=pl.lit(name)))
    index = pl.col("user_index", "item_index", "seq_len").cast(pl.Int64)
    return pl.concat(parts, how="vertical_relaxed").with_columns(index)


def _in_history(folder: Path, samples: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether the candidate of each sample is an item of its history."""
    wanted = samples.select(*PAIR, "seq_len").with_row_index("sample")
    found = np.zeros(len(samples), bool)
    for events in events_of(folder):
        shown = wanted.join(events, on=PAIR).filter(pl.col("place") < pl.col("seq_len"))
        found[shown["sample"]] = True
    return found


def _popularity(folder: Path, samples: pl.DataFrame) -> NDArray[np.int64]:
    """The number of events of histories with each sample's candidate before its moment."""
    moments = samples.select("item_index", pl.col("time").cast(pl.Int64)).with_row_index("sample")
    moments, asked = moments.sort("time"), moments.select("item_index").unique()
    count = np.zeros(len(samples), np.int64)
    for events in events_of(folder):
        known = events.join(asked, on="item_index", how="semi").sort("time")
        so_far = pl.int_range(1, pl.len() + 1).over("item_index")
        known = known.select("item_index", "time", count=so_far)
        last = moments.join_asof(
            known, on="time", by="item_index", allow_exact_matches=False, check_sortedness=False
        )
        count[last["sample"]] += last["count"].fill_null(0).to_numpy()
    return count


def _targets(train: pl.LazyFrame, samples: pl.DataFrame) -> NDArray[np.int64]:
    """The number of other training samples with each sample's candidate."""
    targets = train.group_by("item_index").len("count").collect(engine="streaming")
    targets = targets.cast(pl.Int64)
    both = samples.join(targets, on="item_index", how="left", maintain_order="left")
    own = pl.col("split") == "train"
    return both.select(pl.col("count").fill_null(0) - own.cast(pl.Int64)).to_series().to_numpy()


def _place(files: dict[str, pl.LazyFrame], samples: pl.DataFrame) -> NDArray[np.float64]:
    """The place of each sample among those of its group, as a share."""
    group, parts = "group_index", []
    place = ((pl.col("row").rank("ordinal") - 0.5) / pl.len()).over(group)
    for name, file in files.items():
        chosen = samples.lazy().filter(pl.col("split") == name).select(group).unique()
        groups = file.select("row", group).join(chosen, on=group, how="semi")
        placed = groups.collect(engine="streaming").select("row", place=place)
        parts.append(placed.with_columns(split=pl.lit(name)))
    key = ["split", "row"]
    both = samples.join(pl.concat(parts), on=key, how="left", maintain_order="left")
    return both["place"].to_numpy()


def _feature(
    folder: Path, train: pl.LazyFrame, samples: pl.DataFrame, name: str, spec: dict[str, Any]
) -> Fact | None:
    """The fact that a feature is."""
    of_item = spec.get("source") == "item"
    if of_item:
        table = pl.read_parquet(folder / "item_info.parquet", columns=[name])[name]
        values = table.gather(samples["item_index"])
    else:
        values = samples[name]
    label_B, training_B = samples["label"].to_numpy(), (samples["split"] == "train").to_numpy()
    if spec["type"] == "numeric":
        return _fact(label_B, values.to_numpy())
    if spec["type"] == "embedding":
        score_B = _projection(values, label_B, training_B)
    else:
        counts = {"n": pl.len(), "clicked": pl.col("label").sum()}
        counted = train.group_by(value="item_index" if of_item else name).agg(**counts)
        rows = counted.collect(engine="streaming")
        if of_item:
            rows = rows.with_columns(value=table.gather(rows["value"]))
        score_B = _label_rates(values, rows)
    return _fact(label_B[~training_B], score_B[~training_B])


def _label_rates(values: pl.Series, rows: pl.DataFrame) -> NDArray[np.float64]:
    """For each value, or list of values, the label rate that training rows show.

    Args:
        rows: ``value``; ``n``, how many samples have it; ``clicked``, how many of these are clicked.
    """
    each = pl.DataFrame({"value": values}).with_row_index("sample")
    if isinstance(values.dtype, pl.List | pl.Array):
        rows, each = rows.explode("value"), each.explode("value")
    known = rows.group_by("value").sum()
    overall = float(known["clicked"].sum()) / max(1, int(known["n"].sum()))
    rate = (pl.col("clicked") + overall) / (pl.col("n") + 1)
    each = each.join(known.select("value", rate=rate), on="value", how="left")
    means = each.group_by("sample").agg(pl.col("rate").fill_null(overall).mean()).sort("sample")
    return means["rate"].to_numpy()


def _projection(vectors: pl.Series, label_B: NDArray, training_B: NDArray) -> NDArray[np.float64]:
    """How far each vector lies towards the clicked ones of the training samples."""
    x_BD = vectors.explode().to_numpy().reshape(len(vectors), -1)
    if len(set(label_B[training_B])) < 2:
        return np.zeros(len(x_BD))
    clicked_D, other_D = (x_BD[training_B & (label_B == y)].mean(0) for y in (1, 0))
    return x_BD @ (clicked_D - other_D)


def _fact(label_B: NDArray, score_B: NDArray) -> Fact | None:
    """The fact that a number of each sample is; None if all labels are the same."""
    clicked = int(label_B.sum())
    others = len(label_B) - clicked
    if not clicked or not others:
        return None
    noise = 3 * np.sqrt((len(label_B) + 1) / (12 * clicked * others))
    return Fact(auc(label_B, score_B), noise, not score_B[label_B == 0].any())
