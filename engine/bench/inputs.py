"""Data of MicroVideo1.7M_x2's shape: its feature map, batches in memory, and data sets on disk.

Shape suffixes: B samples, L history length, N items of the table.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from torch import Tensor

from model_zoo.history.item_dict import ItemDict

from ..common.places import CONFIG
from ..config.feature_map import build_feature_map
from ..config.read import dataset_part
from ..datasets import SEED, synthetic
from ..datasets.prepared import layout
from .child import in_own_process
from .rivals import SHORTEST

DATASET = "MicroVideo1.7M_x2"
ITEMS = 24_323  # rows of the item table, padding included; also the vocabulary of item_id
CATEGORIES = 514
WIDTH = 64  # of the image embedding, and of every embedding in LongCTR's published runs
IMAGE = f"image_emb_dim{WIDTH}"
THEMES = 5
EVENTS = {"action": 6, "played": 18, "time_gap": 32}  # buckets of three features of events
MATCHES = 6  # numbers about what matches: three for each feature with ids
#: A data set that is generated quickly and has enough batches.
SIZE = replace(synthetic.SIZES["micro"], items=ITEMS - 1, impressions=20)

RandomBatch = tuple[dict[str, Tensor], ItemDict, Tensor]
"""A batch in LongCTR's form, whose items are known by their index."""
Draw = Callable[[int, tuple[int, ...], torch.Generator], Tensor]
"""Draws item indices from 1 to ``N - 1`` in some shape, for a table of N rows."""


def feature_map(items: int = ITEMS) -> FeatureMap:
    """Describe the data set as LongCTR published it, with an item table of so many rows."""
    changes = {"dataset_id": DATASET, "data_root": "", "embedding_dim": WIDTH}
    found = build_feature_map(dataset_part(CONFIG, DATASET, DATASET) | changes)
    found.features["item_id"]["vocab_size"] = items
    return found


@cache
def item_tables(device: torch.device, items: int = ITEMS) -> dict[str, Tensor]:
    """Draw the features of all items; image embeddings gather around ``THEMES`` centres."""
    g = torch.Generator().manual_seed(0)
    theme_N = torch.randint(THEMES, (items,), generator=g)
    image = 2 * torch.randn(THEMES, WIDTH, generator=g)[theme_N]
    image += torch.randn(items, WIDTH, generator=g)
    category = torch.randint(1, CATEGORIES, (items,), generator=g)
    tables = {"item_id": torch.arange(items), "cate_id": category, IMAGE: image}
    for table in tables.values():
        table[0] = 0
    return {name: table.to(device) for name, table in tables.items()}


def evenly(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Draw every item with the same chance: the worst case for models that embed distinct items once."""
    return torch.randint(1, rows, shape, generator=g)


def random_batch(
    batch_size: int,
    length: int,
    device: torch.device,
    items: int = ITEMS,
    draw: Draw = evenly,
    seed: int = 0,
) -> RandomBatch:
    """Draw a batch whose histories are ``SHORTEST`` to 1000 items long, cut to ``length``.

    Items are drawn from ``tables``, by default those of ``item_tables``. What matches and the buckets
    of events are drawn evenly; only models that read them take time for them.
    """
    g = torch.Generator().manual_seed(seed)
    length_B = torch.randint(SHORTEST, 1_001, (batch_size,), generator=g).clamp(max=length)
    mask_BL = (torch.arange(length) >= length - length_B[:, None]).float()
    index_BL1 = draw(items, (batch_size, length + 1), g)
    index_BL1[:, :-1] *= mask_BL.long()
    batch_dict = {
        "user_index": torch.arange(batch_size),
        "item_index": index_BL1[:, -1],
        "seq_len": length_B,
        "is_click": torch.randint(2, (batch_size,), generator=g).float(),
    }
    match_BM = torch.rand(batch_size, MATCHES, generator=g).to(device)
    events = {
        name: torch.randint(buckets, (batch_size, length), generator=g).to(device)
        for name, buckets in EVENTS.items()
    }
    tables = item_tables(device, items)
    return batch_dict, ItemDict(tables, index_BL1.to(device), match_BM, events), mask_BL


def ensure_data(folder: Path, size: synthetic.Size, users: int | None = None) -> None:
    """Generate a data set of a size, with so many users, unless the folder holds one.

    A process of its own does it: its memory would count as that of processes started later.
    """
    if folder.exists() and any(folder.iterdir()):
        return
    size = replace(size, users=users or size.users)
    print(f"generating {size.users:,} users into {folder} ...", flush=True)
    in_own_process(_generate, size, folder)


def _generate(size: synthetic.Size, folder: Path) -> None:
    with layout.new_folder(folder) as new:
        layout.write(synthetic.generate(size, SEED), new)
