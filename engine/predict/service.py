"""Scores of one user's candidates at a time, for a server: all that a request needs is in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..common.errors import UserError
from ..datasets.writing.encoders import load
from ..loader.times import TIMES, has_times
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
        self.loader = self.model.loader("test")
        self.users = self._numbers("user")
        self.items = self._numbers("item")
        self.features = load(self.model.folder).by_source["sample"]
        histories = self.loader.histories
        self.time_S = None
        if has_times(histories.path, self.model.feature_map.features):
            self.time_S = np.concatenate(list(histories.entries(TIMES)))

    def _numbers(self, what: str) -> dict[str, int]:
        ids = pl.read_parquet(self.model.folder / f"{what}_ids.parquet", glob=False)
        return dict(ids.select(what, f"{what}_index").iter_rows())

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
                where times are not known, the whole history counts, as of its last event.
            features: a raw value for each feature of samples.

        Raises:
            UserError: an item is not in the data set, or a feature is missing.
        """
        if unknown := [item for item in items if item not in self.items]:
            raise UserError(f"item {unknown[0]!r} is not in {self.model.folder}")
        user_index, length, moment = self._history(user, time)
        same = {"user_index": user_index, "seq_len": length, "time": moment}
        columns = {name: np.full(len(items), value) for name, value in same.items()}
        columns["item_index"] = np.array([self.items[item] for item in items])
        for encoder in self.features:
            name = encoder.feature.name
            if name not in features:
                raise UserError(f"feature {name!r} is missing; give its value in `features`")
            value = encoder.encode(pl.Series(name, [features[name]])).to_numpy()
            columns[name] = np.repeat(value, len(items), axis=0)
        if self.loader.matches is not None:
            columns |= self.loader.matches.column(columns)
        return self.model.score(self.loader.collate(columns)).tolist()

    def _history(self, user: str, time: int | None) -> tuple[int, int, int]:
        """The user's number, the length of the history, and the moment."""
        if user not in self.users:
            return 0, 0, time or 0
        number, offsets = self.users[user], self.loader.histories.offsets
        if self.time_S is None:
            return number, int(offsets[number + 1] - offsets[number]), 0
        time_L = self.time_S[offsets[number] : offsets[number + 1]]
        moment = int(time_L.max(initial=0)) if time is None else time
        length = len(time_L) if time is None else int(np.searchsorted(time_L, moment))
        return number, length, moment
