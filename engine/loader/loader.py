"""Load batches as LongCTR does, but store each history once and gather a batch in a few calls.

Shape suffixes: B samples, L padded length, N items, S interactions of all users.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from fuxictr.features import FeatureMap
from torch import Tensor

from model_zoo.batch import Batch
from model_zoo.history.item_dict import ItemDict

from ..common.errors import UserError
from .columnar import Histories, ItemTable, Samples
from .event_columns import EventColumns
from .match_index import MATCHES, MatchIndex


class SequenceLoader:
    """Gives batches ``(batch_dict, item_dict, mask)`` as LongCTR's loader does, value by value.

    A history is the first ``seq_len`` items of its user, cut to the newest ``max_len`` and left
    padded to the longest of the batch (at least one column). ``item_dict`` is an ``ItemDict``: item
    features stay in resident tables on ``device`` and are gathered where they are read. Only
    indices (4 bytes each), labels and features of the samples go to a GPU. They go from pinned
    memory, so that the host need not wait. Integers stay int64, floats are float32.

    Args:
        feature_map: names the columns to load.
        data_path: samples, a parquet file.
        user_info, item_info: parquet files of the histories and of the item features; or the
            ``Histories`` and ``ItemTable`` of another loader, to share them.
        batch_size: samples per batch; the last batch may be smaller.
        shuffle: take a new order in each ``epoch``, given by ``seed`` and the number of the epoch.
        max_len: the length to which histories are cut.
        padding: must be ``pre``, the only one that the models read.
        seed: the seed of the shuffled order.
        streaming: read one row group at a time, for samples larger than memory. Shuffling then
            changes the order of the row groups, and the order within each.
        device: where the item tables live, and what models read of a batch.
        match_features: count what target and history share; or the ``MatchIndex`` of another loader,
            to share it.
        match_span: count matches in the whole history (``all``), or in its newest ``max_len`` items.
        match_windows: seconds before the sample in which they are counted by themselves, too; None
            where no times are known.
        event_cols: the features that events have of their own (see ``EventColumns``); or the
            ``EventColumns`` of another loader, to share them.
        kwargs: other keys of FuxiCTR's configuration, such as ``num_workers``; they change nothing.

    Attributes:
        least: a last batch of fewer samples joins the batch before, as batch norm and ranks need it.
        share: the rows of each batch that are loaded, by default all.
        epoch: decides the shuffled order; each pass over the loader adds one.
        read: the names of the labels and of the samples' features, which go to the device.
    """

    num_blocks = 1  # FuxiCTR's loop reads these
    least = 1
    share = slice(None)

    def __init__(
        self,
        feature_map: FeatureMap,
        data_path: str | Path,
        user_info: str | Path | Histories,
        item_info: str | Path | ItemTable,
        batch_size: int = 32,
        shuffle: bool = False,
        max_len: int = 50,
        padding: str = "pre",
        seed: int = 2024,
        streaming: bool = False,
        device: str | torch.device = "cpu",
        match_features: bool | MatchIndex = False,
        match_span: Literal["all", "max_len"] = "all",
        match_windows: list[float] | None = None,
        event_cols: list[dict[str, Any]] | EventColumns | None = None,
        **kwargs: object,
    ) -> None:
        if padding != "pre":
            raise UserError(f"padding is {padding!r}, but models read left padding only; write pre")
        if not isinstance(user_info, Histories):
            user_info = Histories(user_info)
        if not isinstance(item_info, ItemTable):
            item_info = ItemTable(item_info, feature_map)
        self.histories = user_info
        self.items = item_info.to(device)
        self.histories.check_items(len(self.items), self.items.path)
        if match_features is True:
            newest = max_len if match_span == "max_len" else None
            match_features = MatchIndex(
                self.histories, self.items, feature_map, newest, match_windows
            )
        self.matches = match_features or None
        derive = self.matches and self.matches.column
        self.samples = Samples(
            data_path, feature_map, self.histories, len(self.items), streaming, derive
        )
        if isinstance(event_cols, list):
            event_cols = EventColumns(self.histories, event_cols, feature_map)
        self.events = event_cols
        self.batch_size, self.shuffle, self.max_len, self.seed = batch_size, shuffle, max_len, seed
        self.device = torch.device(device)
        self.epoch = 0
        self.read = [*feature_map.labels] + [  # meta columns, as the user's, are for the host
            name
            for name, spec in feature_map.features.items()
            if spec["type"] != "meta" and spec.get("source") != "item"
        ]
        self.num_samples = len(self.samples)
        self.num_batches = -(-self.num_samples // batch_size)

    def __len__(self) -> int:
        joins = 0 < self.num_samples % self.batch_size < self.least
        return self.num_batches - (joins and self.num_samples > self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, self.epoch)) if self.shuffle else None
        self.epoch += 1
        batches = self.samples.batches(self.batch_size, rng)
        yield from map(self._load, islice(batches, len(self) - 1))
        rest = list(batches)
        yield self._load({k: np.concatenate([columns[k] for columns in rest]) for k in rest[0]})

    def _load(self, columns: dict[str, np.ndarray]) -> Batch:
        return self.collate({name: column[self.share] for name, column in columns.items()})

    def collate(self, columns: dict[str, np.ndarray]) -> Batch:
        """The batch of some samples, given as columns of B rows."""
        positions = self.histories.batch(
            columns["user_index"], columns["seq_len"], columns["item_index"], self.max_len
        )
        index_BL1, mask_BL = map(torch.from_numpy, positions)
        batch_dict = {name: torch.from_numpy(column) for name, column in columns.items()}
        matches = batch_dict.pop(MATCHES, None)
        if self.device.type != "cpu":
            index_BL1 = self._send(index_BL1)
            mask_BL = (index_BL1[:, :-1] > 0).float()
            batch_dict |= {name: self._send(batch_dict[name]) for name in self.read}
            matches = self._send(matches) if matches is not None else None
        items = ItemDict(self.items.tables, index_BL1.long(), matches)
        if self.events is not None:
            buckets = self.events.batch(columns, positions[1])
            items.events = {name: self._send(torch.from_numpy(x)) for name, x in buckets.items()}
        return batch_dict, items, mask_BL

    def _send(self, x: Tensor) -> Tensor:
        """Copy to the device; without pinned memory the host would wait for the GPU to catch up."""
        if self.device.type == "cuda":
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)
