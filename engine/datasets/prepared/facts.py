"""How well a single fact tells the label of a prepared data set.

Each fact gives a number to every sample of a seeded choice, and its AUC is reported as it is: 0.03
tells the label as well as 0.97. The facts are:

- ``in the history``: whether the candidate is an item of the sample's history, and ``newest of the
  history``, whether it is the last one;
- ``popularity``: how many events of histories have the candidate before the sample's moment;
- ``place in the group``: the sample's place in the file among those of its ``group_index``, as a
  share, where the files have this column;
- ``length of the history``, and ``time``;
- each feature. A number is taken as it is. A category stands for its label rate in the training
  samples, and a sequence for the mean rate of its values. A vector is projected on the difference
  between the mean vectors of clicked and other training samples.

The last three are learned from training samples, so their AUC is that of validation and test samples.
So is popularity where moments are not known: it is the number of clicked training samples then.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_zoo.training.metrics import auc

from .. import SEED
from .card import SPLITS
from .data_profile import events_of
from .stored import read_stored

ROWS = 200_000  # samples that are chosen
TELLING = 0.45  # distance of an AUC to 0.5 from which the fact alone tells the label
FAIR = 0.02  # such a distance that is no reason for a warning, beside the noise
FAIR_POPULARITY = 0.1
OWN_CLICK = 0.25  # such a distance that tells of histories with the click that is to be predicted
HISTORY, NEWEST = "in the history", "newest of the history"
POPULARITY, PLACE = "popularity", "place in the group"
PAIR = ["user_index", "item_index"]
LENGTH, TIME, FEATURE = "length of the history", "time", "feature "


class Fact(NamedTuple):
    """How well a fact tells the label.

    Attributes:
        auc: of the fact's number.
        noise: three standard errors of the AUC of a fact that tells nothing.
        clicked_only: whether the number is 0 for all samples of label 0.
        is_label: whether the number has two values with one label each, and at most a third one, which
            then stands for what is missing.
    """

    auc: float
    noise: float
    clicked_only: bool
    is_label: bool


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
    every, samples = _choose(folder, label, rows)
    train = every.filter(pl.col("split") == 0)
    timed &= "time" in samples
    histories = pl.scan_parquet(folder / "user_info.parquet", glob=False)
    before = timed and "full_time_seq" in histories.collect_schema()
    scores = _in_history(folder, samples) | {LENGTH: samples["seq_len"]}
    if before:
        scores[POPULARITY] = _popularity(folder, samples)
    if "group_index" in samples:
        scores[PLACE] = _place(every, samples)
    if timed:
        scores[TIME] = samples["time"]
    learned = {} if before else {POPULARITY: _clicks(train, samples)}
    for name, spec in features.items():
        if spec["type"] != "meta":
            of = scores if spec["type"] == "numeric" else learned
            of[f"{FEATURE}{name}"] = _feature(folder, train, samples, name, spec)
    return _facts(samples, scores, learned)


def of_features(
    columns: dict[str, NDArray], features: dict[str, dict[str, Any]], label: str
) -> dict[str, Fact]:
    """The facts of features alone: learned from every other sample, measured on the rest.

    Args:
        columns: the label and the features of some samples, ``(rows,)`` or ``(rows, width)``.
        features: the feature map's specifications.
        label: the label's column.
    """
    rows = pl.DataFrame({"label": columns[label].astype(np.int64)})
    rows, learned = rows.with_columns(split=pl.int_range(pl.len()) % 2), {}
    for name, spec in features.items():
        if spec["type"] != "meta":
            samples = rows.with_columns(x=pl.Series(list(columns[name])))
            train, spec = samples.lazy().filter(pl.col("split") == 0), spec | {"source": ""}
            learned[f"{FEATURE}{name}"] = _feature(Path(), train, samples, "x", spec)
    return _facts(rows, {}, learned)


def shares_in_history(folder: Path, label: str) -> list[float]:
    """Which share of the clicked samples, and of the others, show an item of their history."""
    _, samples = _choose(folder, label, ROWS)
    shown, labels = _in_history(folder, samples)[HISTORY], samples["label"]
    return [int((shown & (labels == y)).sum()) / max(1, int((labels == y).sum())) for y in (1, 0)]


def errors(found: dict[str, Fact]) -> Iterator[str]:
    """Say which features are the label."""
    for name, fact in found.items():
        if name.startswith(FEATURE) and fact.is_label:
            yield f"{name} equals the label wherever it is not missing; write active: False for it"


def warnings(found: dict[str, Fact], negatives: dict[str, Any] | None) -> Iterator[str]:
    """Say which facts alone tell the label, or do so because of how negatives were drawn.

    Args:
        found: see ``measure``.
        negatives: the card's entry, for a data set with sampled negatives.
    """
    fair: dict[str, float] = {}
    if negatives:
        of_items = [POPULARITY, *(name for name in found if name.startswith(FEATURE))]
        fair = dict.fromkeys((PLACE, LENGTH, TIME), FAIR)
        fair |= dict.fromkeys(of_items, FAIR_POPULARITY)
        fair |= dict.fromkeys((HISTORY, NEWEST), FAIR) if negatives["targets"] == "first" else {}
    for name, fact in found.items():
        distance, shown = abs(fact.auc - 0.5), f"{name} alone has an AUC of {fact.auc:.3f}"
        if name == NEWEST and fact.auc > 0.5 + max(OWN_CLICK, fact.noise):
            yield (
                f"{shown}: the history holds the click that is to be predicted; seq_len must count "
                "earlier items only"
            )
        elif distance > max(TELLING, fact.noise):
            yield f"{shown}, so it tells the label; leave it out, or mend how samples were made"
        elif name in fair and distance > fair[name] + fact.noise:
            other = negatives and negatives["from"] != "time"
            fairer = "; with times, --negatives-from time is fairer" if other else ""
            yield (
                f"{shown} because of how negatives were drawn, where 0.5 would be fair; "
                f"a model that learns this knows nothing of users{fairer}"
            )
        elif name == HISTORY and not negatives and fact.clicked_only and distance > fact.noise:
            yield (
                f"{shown}, since no sample of label 0 has its item in the history: negatives seem to "
                "be drawn among items that the user never had; leave out clicks on items of the history"
            )


def _choose(folder: Path, label: str, rows: int) -> tuple[pl.LazyFrame, pl.DataFrame]:
    """All samples with ``row``, ``split`` (0 is training) and ``label``; and some, in their order."""
    files = [folder / f"{name}.parquet" for name in SPLITS]
    splits = [pl.scan_parquet(f, glob=False).with_columns(split=i) for i, f in enumerate(files)]
    every = pl.concat(splits, how="diagonal_relaxed").rename({label: "label"}).with_row_index("row")
    every = every.with_columns(pl.col("label", *PAIR, "seq_len").cast(pl.Int64))
    total = sum(pq.read_metadata(file).num_rows for file in files)
    chosen = np.random.default_rng(SEED).choice(total, min(rows, total), replace=False)
    wanted = pl.LazyFrame({"row": np.sort(chosen)}, schema={"row": pl.get_index_type()})
    return every, every.join(wanted, on="row", how="semi").collect(engine="streaming").sort("row")


def _in_history(folder: Path, samples: pl.DataFrame) -> dict[str, pl.Series]:
    """Whether the candidate of each sample is an item of its history, and the newest one."""
    asked, end = samples.select("row", *PAIR, "seq_len"), pl.col("seq_len")
    found = [asked.join(events, on=PAIR) for events in events_of(folder)]
    shown = pl.concat(found).filter(pl.col("place") < end)
    newest = shown.filter(pl.col("place") == end - 1)
    return {
        name: samples["row"].is_in(rows["row"].implode())
        for name, rows in ((HISTORY, shown), (NEWEST, newest))
    }


def _popularity(folder: Path, samples: pl.DataFrame) -> pl.Series:
    """The number of events of histories with each sample's candidate before its moment."""
    asked = samples.select("row", "item_index", pl.col("time").cast(pl.Int64)).sort("time")
    count = pl.zeros(len(asked), pl.Int64, eager=True)
    for events in events_of(folder):
        known = events.join(asked, on="item_index", how="semi").sort("time")
        so_far = pl.int_range(1, pl.len() + 1).over("item_index")
        known = known.select("item_index", "time", count=so_far)
        last = asked.join_asof(
            known, on="time", by="item_index", allow_exact_matches=False, check_sortedness=False
        )
        count += last["count"].fill_null(0)
    return asked.with_columns(count=count).sort("row")["count"]


def _clicks(train: pl.LazyFrame, samples: pl.DataFrame) -> pl.Series:
    """The number of clicked training samples with each sample's candidate."""
    clicks = (
        train.group_by("item_index").agg(clicks=pl.col("label").sum()).collect(engine="streaming")
    )
    asked = samples.select("item_index").join(
        clicks, on="item_index", how="left", maintain_order="left"
    )
    return asked["clicks"].fill_null(0)


def _place(every: pl.LazyFrame, samples: pl.DataFrame) -> pl.Series:
    """The place of each sample among those of its group, as a share."""
    chosen = samples.lazy().select("group_index").unique()
    groups = every.select("row", "group_index").join(chosen, on="group_index", how="semi")
    place = (pl.col("row").rank("ordinal") - 0.5) / pl.len()
    placed = groups.collect(engine="streaming").select("row", place=place.over("group_index"))
    return samples.select("row").join(placed, on="row", maintain_order="left")["place"]


def _feature(
    folder: Path, train: pl.LazyFrame, samples: pl.DataFrame, name: str, spec: dict[str, Any]
) -> pl.Series:
    """The number that a feature gives to each sample."""
    key, values = name, samples.get_column(name, default=pl.Series())
    if spec.get("source") == "item":
        table = read_stored(folder, "item_info", [name])[name]
        key, values = "item_index", table.gather(samples["item_index"])
    if spec["type"] == "numeric":
        return values
    if spec["type"] == "embedding":
        return _projection(values, samples)
    counts = {"n": pl.len(), "clicked": pl.col("label").sum()}
    rows = train.group_by(value=key).agg(**counts).collect(engine="streaming")
    if key != name:
        rows = rows.with_columns(value=table.gather(rows["value"]))
    return _label_rates(values, rows)


def _label_rates(values: pl.Series, rows: pl.DataFrame) -> pl.Series:
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
    means = each.group_by("sample").agg(pl.col("rate").fill_null(overall).mean())
    return means.sort("sample")["rate"]


def _projection(vectors: pl.Series, samples: pl.DataFrame) -> pl.Series:
    """How far each vector lies towards the clicked ones of the training samples."""
    x_BD = vectors.explode().to_numpy().reshape(len(vectors), -1)
    training = samples["split"] == 0
    clicked_B, other_B = ((training & (samples["label"] == y)).to_numpy() for y in (1, 0))
    if not clicked_B.any() or not other_B.any():
        return pl.zeros(len(x_BD), eager=True)
    return pl.Series(x_BD @ (x_BD[clicked_B].mean(0) - x_BD[other_B].mean(0)))


def _facts(
    samples: pl.DataFrame, scores: dict[str, pl.Series], learned: dict[str, pl.Series]
) -> dict[str, Fact]:
    """The facts by name. What was learned from training samples, of split 0, is measured on the rest."""
    labels, later = samples["label"], samples["split"] > 0
    found = {name: _fact(labels, score) for name, score in scores.items()}
    rest = labels.filter(later)
    found |= {name: _fact(rest, score.filter(later)) for name, score in learned.items()}
    return {name: fact for name, fact in found.items() if fact is not None}


def _fact(labels: pl.Series, score: pl.Series) -> Fact | None:
    """The fact that a number of each sample is; None if all labels are the same."""
    clicked, others = int(labels.sum()), int((1 - labels).sum())
    if not clicked or not others:
        return None
    noise = 3 * ((clicked + others + 1) / (12 * clicked * others)) ** 0.5
    value = auc(labels.to_numpy(), score.to_numpy())
    clicked_only = not score.filter(labels == 0).cast(pl.Boolean).any()
    return Fact(value, noise, clicked_only, _is_label(labels, score))


def _is_label(labels: pl.Series, score: pl.Series) -> bool:
    """Whether two values of ``score`` have one label each, in too many samples for chance."""
    rows = pl.DataFrame({"score": score, "label": labels}).drop_nulls().group_by("score")
    values = rows.agg(n=pl.len(), rate=pl.col("label").mean()).sort("rate")
    pure = values.filter(pl.col("rate").is_in([0.0, 1.0]))
    return len(values) <= 3 and pure["rate"].to_list() == [0, 1] and bool((pure["n"] >= 8).all())
