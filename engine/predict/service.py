"""Scores of one user's candidates at a time, for a server: all that a request needs is in memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..common.errors import UserError
from ..datasets.prepared.stored import read_stored
from ..datasets.writing.encoders import load
from ..datasets.writing.features import (
    PADDING,
    UNKNOWN,
    CategoricalEncoder,
    Encoder,
    SequenceEncoder,
)
from ..loader.times import TIMES, has_times
from .extended import main_histories
from .scorers import Exported


class Service:
    """An exported model with the histories and items of its data set.

    Args:
        folder: of the exported model.
        data: folder of the data set, where it is not that of the run.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: str | Path, data: str | Path | None = None) -> None:
        self.model = Exported(folder, data)
        prepared = self.model.folder
        encoders = load(prepared).by_source["sample"]
        self.encode = {encoder.feature.name: encoding(encoder) for encoder in encoders}
        self.loader = self.model.loader("test")
        histories = self.loader.histories
        histories.reserve(self.model.params["max_len"])  # before threads share them
        lengths = pl.Series(histories.lengths())
        self.users = dict(main_histories(prepared, lengths).iter_rows())
        items = read_stored(prepared, "item_ids", ["item"])["item"]
        self.items = {item: index for index, item in enumerate(items, start=1)}
        self.time_S = None
        if has_times(histories.path, self.model.feature_map.features):
            self.time_S = np.concatenate(list(histories.entries(TIMES)))
            self.newest = int(self.time_S.max(initial=0))

    def score(
        self,
        user: str,
        items: Sequence[str],
        time: int | None = None,
        features: Mapping[str, Any] = {},
    ) -> list[float]:
        """The score of each item.

        Args:
            user: one without a history may be asked for, too.
            items: the candidates, which must be in the data set.
            time: the moment, in the unit of the data set; a history ends before it. Without it, or
                where times are not known, the whole history counts, at the moment of its last event.
            features: a raw value for each feature of samples; lists for sequences and vectors.

        Raises:
            UserError: an item is not in the data set, or a feature is missing or of another form.
        """
        if unknown := [item for item in items if item not in self.items]:
            raise UserError(f"item {unknown[0]!r} is not in {self.model.folder}")
        user_index, length, moment = self._history(user, time)
        same = {"user_index": user_index, "seq_len": length, "time": moment}
        columns = {name: np.full(len(items), value) for name, value in same.items()}
        columns["item_index"] = np.array([self.items[item] for item in items])
        for name, encode in self.encode.items():
            if name not in features:
                raise UserError(f"feature {name!r} is missing; give its value in `features`")
            try:
                value = np.asarray(encode(features[name]))
            except (TypeError, ValueError, pl.exceptions.PolarsError):
                what = f"{features[name]!r} is no value of it"
                raise UserError(f"feature {name!r}: {what}; give one as the log has it") from None
            columns[name] = np.tile(value, (len(items), *[1] * value.ndim))
        if self.loader.matches is not None:
            columns |= self.loader.matches.column(columns)
        return self.model.score(self.loader.collate(columns)).tolist()

    def _history(self, user: str, time: int | None) -> tuple[int, int, int]:
        """The user's number, the length of the history, and the moment."""
        number, offsets = self.users.get(user), self.loader.histories.offsets
        first, last = (0, 0) if number is None else offsets[number : number + 2].tolist()
        if self.time_S is None:
            return number or 0, last - first, 0
        if time is None:
            moment = int(self.time_S[last - 1]) if last > first else self.newest
            return number or 0, last - first, moment
        return number or 0, int(np.searchsorted(self.time_S[first:last], time)), time


def encoding(encoder: Encoder) -> Callable[[Any], Any]:
    """A function that encodes one value, as the encoder does with a column."""
    if not isinstance(encoder, CategoricalEncoder):
        return lambda value: encoder.encode(pl.Series([value])).to_list()[0]
    known = encoder.id_by_text()

    def id_of(value: Any) -> int:
        return UNKNOWN if value is None else known.get(str(value), UNKNOWN)

    if not isinstance(encoder, SequenceEncoder):
        return id_of

    def ids_of(values: Sequence[Any] | None) -> list[int]:
        if isinstance(values, str):
            raise TypeError
        ids = [id_of(value) for value in values or [] if value is not None]
        return (ids + [PADDING] * encoder.longest)[: encoder.longest]

    return ids_of
