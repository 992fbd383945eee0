"""Encode raw feature columns as FuxiCTR reads them: ids, sequences of ids, scaled numbers, vectors.

Encoders learn from the training data alone. Id 0 is padding. Id 1 stands for what is missing, rare,
or not in the training data. Known values follow in their order. Events in histories have ids alone,
so a number there becomes the id of a bucket.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ...common.errors import UserError
from ...config.feature_map import POOLING

PADDING, UNKNOWN, FIRST = 0, 1, 2
EVENT = "event_"  # the columns of features of events start with it
BUCKETS = 16  # of a number of events, at most
DIGITS = 4  # of such a number that count, so that few values have to be counted


@dataclass(frozen=True)
class Feature:
    """How a raw column is to be read.

    Attributes:
        name: of the column.
        kind: ``categorical``, ``sequence``, ``numeric`` or ``embedding``.
        separator: stands between the values of a sequence, where the raw column holds texts.
            Without it, the first values decide.
        max_len: values of a sequence that are kept, the first ones.
        min_count: how often a value must occur in the training data to get an id of its own.
        column: the name of the column in the raw table, which ``generic`` reads.
        missing: a value of a category in that table that says that there is none.
    """

    name: str
    kind: Literal["categorical", "sequence", "numeric", "embedding"]
    separator: str | None = None
    max_len: int = 5
    min_count: int = 1
    column: str = ""
    missing: str | int | None = None

    def encoder(self, source: str = "sample") -> "Encoder":
        """A new encoder, which has seen nothing, for a feature of ``item``, ``sample`` or ``event``."""
        bucketed = source == "event" and self.kind == "numeric"
        return (BucketEncoder if bucketed else ENCODERS[self.kind])(self)


class Encoder(ABC):
    """Learns from training values (``observe``, any number of times), then encodes any values.

    Attributes:
        fixed: whether lengths and scales stay as they are.
        grows: whether values that ``observe`` sees get ids, after those that have one.
    """

    STATE: tuple[str, ...] = ()  # attributes that are learned, but for a vocabulary
    fixed, grows = False, True

    def __init__(self, feature: Feature) -> None:
        self.feature = feature

    @abstractmethod
    def observe(self, values: pl.Series, times: NDArray) -> None:
        """Learn from values, each of which occurs a number of times."""

    @abstractmethod
    def encode(self, values: pl.Series) -> pl.Series:
        """The values as they are written; missing ones are filled in."""

    def theme(self, values: pl.Series) -> pl.Series | None:
        """One raw value for each, if the feature has categories; of a sequence the first."""
        return None

    def spec(self) -> dict[str, Any]:
        """FuxiCTR's specification of the feature."""
        return {"type": self.feature.kind}


NO_COUNTS = pl.DataFrame(schema={"value": pl.Null, "times": pl.Int64})


class CategoricalEncoder(Encoder):
    """Turns a value into one id.

    Attributes:
        known: column ``value``, from the start on, in the order of the ids.
    """

    known = pl.DataFrame(schema={"value": pl.Null})
    counts = NO_COUNTS

    def observe(self, values: pl.Series, times: NDArray) -> None:
        if self.grows:
            self.counts = _counted(self.counts, values, times)

    def vocabulary(self) -> pl.DataFrame:
        """Columns ``value`` and ``id`` of the values that have an id of their own, in this order."""
        often = self.counts.filter(pl.col("times") >= self.feature.min_count)
        values = [self.known, often.select(pl.col("value").sort())]
        both = pl.concat(values, how="vertical_relaxed").unique(keep="first", maintain_order=True)
        return both.with_columns(id=pl.int_range(FIRST, FIRST + pl.len()))

    def id_by_text(self) -> dict[str, int]:
        """The id of each value that has one of its own, by the value as a text."""
        return dict(self.vocabulary().cast({"value": pl.String}).iter_rows())

    def encode(self, values: pl.Series) -> pl.Series:
        return pl.select(self.ids(pl.lit(values))).to_series()

    def theme(self, values: pl.Series) -> pl.Series:
        return values

    def ids(self, values: pl.Expr) -> pl.Expr:
        """The id of each value."""
        known = self.vocabulary()
        return values.replace_strict(
            known["value"], known["id"], default=UNKNOWN, return_dtype=pl.Int64
        )

    def spec(self) -> dict[str, Any]:
        size = FIRST + len(self.vocabulary())
        ids = {"padding_idx": PADDING, "oov_idx": UNKNOWN, "vocab_size": size}
        return super().spec() | ids


class SequenceEncoder(CategoricalEncoder):
    """Turns a list into a few ids; shorter lists are padded at the end."""

    STATE = ("longest",)
    longest = 1

    def observe(self, values: pl.Series, times: NDArray) -> None:
        lists = self._lists(values)
        if not self.fixed:
            longest = int(lists.list.len().to_numpy().max(initial=0))
            self.longest = max(self.longest, min(longest, self.feature.max_len))
        each = pl.DataFrame({"value": lists, "times": times}).explode("value")
        super().observe(each["value"], each["times"].to_numpy())

    def encode(self, values: pl.Series) -> pl.Series:
        ids = pl.lit(self._lists(values)).list.eval(self.ids(pl.element()))
        padded = ids.list.concat([PADDING] * self.longest).list.head(self.longest)
        return pl.select(padded).to_series()

    def theme(self, values: pl.Series) -> pl.Series:
        return self._lists(values).list.first()

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"feature_encoder": POOLING, "max_len": self.longest}

    def _lists(self, values: pl.Series) -> pl.Series:
        return values.fill_null([]).list.drop_nulls()


class NumericEncoder(Encoder):
    """Scales a number to mean 0 and deviation 1; missing and infinite ones become the mean."""

    STATE = ("mean", "deviation")
    count, mean, deviation = 0, 0.0, 0.0

    def observe(self, values: pl.Series, times: NDArray) -> None:
        numbers = values.cast(pl.Float64)
        known = numbers.is_finite().fill_null(False).to_numpy() & (times > 0)
        if self.fixed or not known.any():
            return
        x, times = numbers.to_numpy()[known], times[known]
        count, mean = times.sum(), np.average(x, weights=times)
        total, distance = self.count + count, mean - self.mean  # parts are merged as Chan et al. do
        squares = (times * (x - mean) ** 2).sum() + self.count * self.deviation**2
        squares += distance**2 * self.count * count / total
        self.mean += distance * count / total
        self.count, self.deviation = total, (squares / total) ** 0.5

    def encode(self, values: pl.Series) -> pl.Series:
        x = values.cast(pl.Float64)
        scaled = (x - self.mean) / (self.deviation or 1.0)
        return scaled.set(~x.is_finite().fill_null(False), 0.0).cast(pl.Float32)


class BucketEncoder(Encoder):
    """Turns a number into the id of a bucket; the buckets hold about as many training values each.

    Equal values share a bucket, and missing and infinite ones are unknown.

    Attributes:
        edges: the least value of each bucket but the first.
    """

    STATE = ("edges",)
    counts = NO_COUNTS

    def __init__(self, feature: Feature) -> None:
        super().__init__(feature)
        self.edges: list[float] = []

    def observe(self, values: pl.Series, times: NDArray) -> None:
        if self.fixed:
            return
        self.counts = _counted(self.counts, _short(values), times)
        value, count = self.counts.sort("value")
        bucket = BUCKETS * (count.cum_sum() - count) // count.sum()
        self.edges = value.filter(bucket != bucket.shift()).to_list()

    def encode(self, values: pl.Series) -> pl.Series:
        numbers = _short(values)
        ids = pl.Series(FIRST + np.searchsorted(self.edges, numbers.to_numpy(), side="right"))
        return ids.set(numbers.is_null(), UNKNOWN)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"vocab_size": FIRST + 1 + len(self.edges)}


class EmbeddingEncoder(Encoder):
    """Keeps a vector as it is. All have one width. Missing and empty ones become zeros."""

    STATE = ("width",)
    width = 0

    def observe(self, values: pl.Series, times: NDArray) -> None:
        self.width = self.width or int(values.list.len().fill_null(0).to_numpy().max(initial=0))

    def encode(self, values: pl.Series) -> pl.Series:
        where = f"column {self.feature.name}"
        if not self.width:
            raise UserError(f"{where} holds no vector in the training data; leave it out")
        length = values.list.len().fill_null(0)
        if len(other := length.filter(~length.is_in([0, self.width]))):
            raise UserError(
                f"{where} has vectors of {self.width} and of {other[0]} numbers; give all of them "
                "one width"
            )
        kind = pl.List(pl.Float32)
        zeros = pl.lit([0.0] * self.width, kind)
        given = pl.when(pl.lit(length > 0)).then(pl.lit(values.cast(kind))).otherwise(zeros)
        encoded = pl.select(given).to_series()
        if not np.isfinite(encoded.explode().to_numpy()).all():
            raise UserError(
                f"{where} has vectors with missing or infinite numbers; fill them in, or leave the "
                "whole vector out"
            )
        return encoded

    def spec(self) -> dict[str, Any]:
        widths = {"embedding_dim": self.width, "pretrain_dim": self.width}
        return super().spec() | {"feature_encoder": "nn.Identity()"} | widths


ENCODERS: dict[str, type[Encoder]] = {
    "categorical": CategoricalEncoder,
    "sequence": SequenceEncoder,
    "numeric": NumericEncoder,
    "embedding": EmbeddingEncoder,
}


def _counted(counts: pl.DataFrame, values: pl.Series, times: NDArray) -> pl.DataFrame:
    """How often each value occurs, in ``counts`` and now; missing ones do not count."""
    seen = pl.DataFrame({"value": values, "times": times})
    seen = seen.filter(pl.col("value").is_not_null() & (pl.col("times") > 0))
    both = pl.concat([counts, seen], how="vertical_relaxed")
    return both.group_by("value").agg(pl.col("times").sum())


def _short(values: pl.Series) -> pl.Series:
    """Numbers with as many digits as count; infinite ones are missing."""
    numbers = values.cast(pl.Float64).round_sig_figs(DIGITS)
    return numbers.set(~numbers.is_finite(), None)


def list_column(values: NDArray, dtype: type[pl.DataType]) -> pl.Series:
    """A matrix as a column of lists."""
    return pl.Series(values, dtype=pl.Array(dtype, values.shape[1])).cast(pl.List(dtype))
