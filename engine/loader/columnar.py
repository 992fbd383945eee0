"""Load, check and hold the three kinds of file of LongCTR's layout as flat arrays.

Every rejection names the file, the column and the row.

Shape suffixes: B samples, L padded length, S interactions of all users.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from fuxictr.features import FeatureMap
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..common.errors import UserError
from .columns import (
    Arrays,
    Column,
    columns_of,
    open_parquet,
    pieces,
    read_in_pieces,
    whole_file,
)
from .one_copy import one_copy

INDEX = ("user_index", "item_index", "seq_len")  # of every sample
META = {"type": "meta"}  # what they are where the feature map does not say
FRONT = 1024  # zeros before the first item; longer windows get more of them
ITEMS_PER_PIECE = 2**16  # items of histories that are read at a time


class Histories:
    """``user_info.parquet``: all interactions on one tape, and where those of each user begin (CSR).

    Args:
        path: has the column ``full_item_seq`` (lists of item indices, oldest first); row i belongs
            to the user with ``user_index`` i.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._front = FRONT
        arrays = one_copy(self._read)
        self._tape, self.offsets = arrays["tape"], arrays["offsets"]

    def _read(self) -> Arrays:
        file = open_parquet(self.path, ["full_item_seq"])
        room = _values(file.metadata, "full_item_seq")
        rows = max(1, ITEMS_PER_PIECE * file.metadata.num_rows // max(1, room))
        # Zeros around the items, so that every window of a batch lies within the tape.
        tape = np.zeros(FRONT + room + 1, np.int32)
        end, lengths = FRONT, []
        names = [n for n in ("user_index", "full_item_seq") if n in file.schema_arrow.names]
        for piece in pieces(self.path, names, rows):
            if "user_index" in piece:
                piece["user_index"].require_numbered()
            column = piece["full_item_seq"]
            lists = column.lists()
            items_S = replace(column, values=lists.flatten()).integers()
            tape[end : end + len(items_S)] = np.clip(items_S, -1, 2**31 - 1)
            end += len(items_S)
            lengths.append(np.asarray(lists.value_lengths()))
        offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
        return {"tape": tape[: end + 1], "offsets": offsets}

    def __len__(self) -> int:
        """The number of users."""
        return len(self.offsets) - 1

    @property
    def items(self) -> NDArray[np.int32]:
        """The items of all interactions, user by user."""
        return self._tape[self._front : -1]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self._tape.nbytes + self.offsets.nbytes

    def lengths(self) -> NDArray[np.int64]:
        """The length of the whole history of each user."""
        return np.diff(self.offsets)

    def entries(self, name: str) -> Iterator[NDArray[np.int64]]:
        """The whole numbers in another column of lists, one for each interaction, piece by piece."""
        lengths_U = self.lengths()
        for piece in pieces(self.path, [name]):
            column, lists = piece[name], piece[name].lists()
            lengths = np.asarray(lists.value_lengths())
            wrong = lengths != lengths_U[column.start : column.start + len(lengths)]
            column.reject(wrong, "the list needs one entry for each of full_item_seq")
            yield replace(column, values=lists.flatten()).integers()

    def batch(
        self, user_B: NDArray, seq_len_B: NDArray, target_B: NDArray, max_len: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The indices of a batch, copied as windows of the tape.

        Returns:
            The indices ``(B, L + 1)``, and the mask ``(B, L)``, which is 1 at real items. A row has
            the first ``seq_len`` items of its user, cut to the newest ``max_len`` and left padded
            with 0 to the longest of the batch (L, at least 1), and then the target.
        """
        kept_B = np.minimum(seq_len_B, max_len)
        L = max(1, int(kept_B.max(initial=0)))
        self.reserve(L)
        start_B = self._front + self.offsets[user_B] + seq_len_B - L
        index_BL1 = sliding_window_view(self._tape, L + 1)[start_B]
        # Window k of a step of L zeros, then ones, is zero in all but the last k of L columns.
        step = np.repeat(np.array([0, 1], np.int32), [L, L + 1])
        index_BL1 *= sliding_window_view(step, L + 1)[kept_B]
        index_BL1[:, -1] = target_B
        return index_BL1, sliding_window_view(step[:-1].astype(np.float32), L)[kept_B]

    def reserve(self, max_len: int) -> None:
        """Make room for windows of this length. Before threads share the histories, call it."""
        if (more := min(max_len, int(self.lengths().max(initial=0))) - self._front) > 0:
            self._tape = np.r_[np.zeros(more, np.int32), self._tape]
            self._front += more

    def check_items(self, num_items: int, item_path: Path) -> None:
        """Reject an item index that is outside the item table, or is 0, the padding."""
        items_S = self.items
        if len(items_S) and not 1 <= items_S.min() <= items_S.max() < num_items:
            first = ((items_S < 1) | (items_S >= num_items)).argmax()
            row = np.searchsorted(self.offsets, first, side="right") - 1
            raise UserError(
                f"{self.path}, column full_item_seq, row {row}: the item index {items_S[first]} is "
                f"not between 1 and {num_items - 1}, the items of {item_path} (0 is padding)"
            )


class ItemTable:
    """``item_info.parquet``: one contiguous tensor per item feature; row i is the item of index i.

    Args:
        path: has ``item_index`` (0, 1, 2, ...) and the features with ``source: item``. Row 0 is
            padding: zeros.
        feature_map: names the features and their sizes.
    """

    def __init__(self, path: str | Path, feature_map: FeatureMap) -> None:
        self.path = Path(path)
        features = {k: v for k, v in feature_map.features.items() if v.get("source") == "item"}

        def convert(piece: dict[str, Column]) -> Arrays:
            index = piece.pop("item_index")
            index.require_numbered()
            found = {name: column.feature(features[name]) for name, column in piece.items()}
            if index.start == 0:
                for name, values in found.items():
                    shown = np.array2string(values[0].flatten()[:4], precision=3)
                    what = "row 0 is the padding item, whose values must be zero"
                    piece[name].reject(values[:1] != 0, f"the value is {shown}; {what}")
            return found

        names = ["item_index", *features]
        arrays = one_copy(partial(read_in_pieces, self.path, names, convert))
        self.tables = {name: torch.from_numpy(values) for name, values in arrays.items()}

    def __len__(self) -> int:
        return len(next(iter(self.tables.values())))

    @property
    def nbytes(self) -> int:
        """Memory of the tables."""
        return sum(table.nbytes for table in self.tables.values())

    def to(self, device: str | torch.device) -> "ItemTable":
        """Move the tables to a device, once for all loaders that share them."""
        self.tables = {name: table.to(device) for name, table in self.tables.items()}
        return self


class Samples:
    """``train/valid/test.parquet``: one row per impression, held whole or read by row group.

    Args:
        path: has ``user_index``, ``item_index``, ``seq_len``, the label, and the features of the
            sample itself.
        feature_map: names the columns.
        histories: what ``user_index`` and ``seq_len`` are checked against.
        num_items: what ``item_index`` is checked against.
        streaming: hold one row group at a time in memory.
        derive: makes further columns from those of some rows.
    """

    def __init__(
        self,
        path: str | Path,
        feature_map: FeatureMap,
        histories: Histories,
        num_items: int,
        streaming: bool = False,
        derive: Callable[[Arrays], Arrays] | None = None,
    ) -> None:
        path = Path(path)
        self.path = path if path.suffix == ".parquet" else Path(f"{path}.parquet")
        self.feature_map, self._derive = feature_map, derive
        own = [k for k, v in feature_map.features.items() if v.get("source") != "item"]
        self.names = list(dict.fromkeys([*INDEX, *own, *feature_map.labels]))
        self.file = open_parquet(self.path, self.names)
        groups = map(self.file.metadata.row_group, range(self.file.num_row_groups))
        self.group_start = np.cumsum([0, *(group.num_rows for group in groups)])
        if not len(self):
            raise UserError(f"{self.path}: has no samples; each split needs some")
        self.limits = histories.path, histories.lengths(), num_items
        read = partial(read_in_pieces, self.path, self.names, self._convert)
        self.resident = None if streaming else one_copy(read)

    def __len__(self) -> int:
        return int(self.group_start[-1])

    @property
    def nbytes(self) -> int:
        """Memory of what is resident."""
        return sum(column.nbytes for column in (self.resident or {}).values())

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Arrays]:
        """Columns of ``batch_size`` rows, the last batch shorter; in file order without ``rng``."""
        kept: Arrays | None = None  # rows of one block that did not fill a batch
        for columns in self._blocks(rng):
            rows = len(columns["user_index"])
            order = np.arange(rows) if rng is None else rng.permutation(rows)
            if kept is not None:
                columns = {k: np.concatenate([kept[k], v[order]]) for k, v in columns.items()}
                order = np.arange(len(columns["user_index"]))
            whole = len(order) - len(order) % batch_size
            for start in range(0, whole, batch_size):
                batch = order[start : start + batch_size]
                yield {name: column[batch] for name, column in columns.items()}
            kept = {name: column[order[whole:]] for name, column in columns.items()}
        if kept and len(kept["user_index"]):
            yield kept

    def _blocks(self, rng: np.random.Generator | None) -> Iterator[Arrays]:
        if self.resident is not None:
            yield self.resident
            return
        groups = np.arange(self.file.num_row_groups)
        for group in groups if rng is None else rng.permutation(groups):
            with whole_file(self.path):
                table = self.file.read_row_group(int(group), self.names)
            yield self._convert(columns_of(self.path, table, int(self.group_start[group])))

    def _convert(self, piece: dict[str, Column]) -> Arrays:
        features, labels = self.feature_map.features, self.feature_map.labels
        arrays = {
            name: column.label() if name in labels else column.feature(features.get(name, META))
            for name, column in piece.items()
        }
        user_path, lengths, num_items = self.limits
        user, item, seq_len = (arrays[name] for name in INDEX)
        users = f"the users of {user_path}"
        piece["user_index"].require_within(user, 0, len(lengths) - 1, users)
        piece["item_index"].require_within(item, 1, num_items - 1, "the item table (0 is padding)")
        longest = lengths[user]
        whose = f"but in {user_path} the history of user"
        piece["seq_len"].reject(
            (seq_len < 0) | (seq_len > longest),
            lambda i: f"the value is {seq_len[i]}, {whose} {user[i]} has {longest[i]} items",
        )
        return arrays | (self._derive(arrays) if self._derive else {})


def _values(metadata: pq.FileMetaData, column: str) -> int:
    """How many values the lists of a column hold, or a few more: an empty list counts as one."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    leaves = (group.column(j) for group in groups for j in range(group.num_columns))
    return sum(leaf.num_values for leaf in leaves if leaf.path_in_schema.split(".")[0] == column)
