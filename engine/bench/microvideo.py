"""Data of MicroVideo1.7M_x2's shape: its feature map, a batch in memory, and a data set on disk.

Shape suffixes: B samples, L history length, N items of the table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from fuxictr.features import FeatureMap

from model_zoo.batch import Batch
from model_zoo.history.item_dict import ItemDict

from ..config.feature_map import build_feature_map
from ..datasets import SEED, layout, synthetic
from . import longctr

ITEMS = 24_323  # rows of the item table, padding included; also the vocabulary of item_id
CATEGORIES = 514
WIDTH = 64  # of the image embedding, and of every embedding in LongCTR's published runs
IMPRESSIONS = 20  # per user: enough batches, and quickly generated
THEMES = 5


def feature_map(items: int = ITEMS) -> FeatureMap:
    """LongCTR's published description of the data set; ``items`` are the rows of the item table."""
    item = {"source": "item"}
    columns = [{"name": n, "type": "meta"} for n in ("user_index", "item_index", "seq_len")]
    columns += [
        item | {"name": "item_id", "type": "categorical", "vocab_size": items},
        item | {"name": "cate_id", "type": "categorical", "vocab_size": CATEGORIES},
        item | {"name": f"image_emb_dim{WIDTH}", "type": "embedding", "embedding_dim": WIDTH},
    ]
    columns[-1]["feature_encoder"] = "nn.Identity()"
    dataset = {"dataset_id": "MicroVideo1.7M_x2", "data_root": "", "embedding_dim": WIDTH}
    return build_feature_map(dataset | {"feature_cols": columns, "label_col": {"name": "is_click"}})


def item_tables(device: torch.device, items: int = ITEMS) -> dict[str, torch.Tensor]:
    """Item features; image embeddings gather around ``THEMES`` centres."""
    g = torch.Generator().manual_seed(0)
    theme_N = torch.randint(THEMES, (items,), generator=g)
    image = 2 * torch.randn(THEMES, WIDTH, generator=g)[theme_N]
    image += torch.randn(items, WIDTH, generator=g)
    tables = {
        "item_id": torch.arange(items),
        "cate_id": torch.randint(1, CATEGORIES, (items,), generator=g),
        f"image_emb_dim{WIDTH}": image,
    }
    for table in tables.values():
        table[0] = 0
    return {name: table.to(device) for name, table in tables.items()}


def random_batch(
    batch_size: int,
    length: int,
    device: torch.device,
    seed: int = 0,
    tables: dict[str, torch.Tensor] | None = None,
) -> Batch:
    """A batch whose histories are 50 to 1000 items long, cut to ``length``: from LongCTR's short window
    on, for its TWIN shifts the mask of shorter ones by an item.

    Items are drawn evenly from ``tables`` (by default those of ``item_tables``), so that a batch
    shows nearly all of them, or of millions hardly one twice: the worst case for a model that
    embeds each distinct item once.
    """
    tables = item_tables(device) if tables is None else tables
    g = torch.Generator().manual_seed(seed)
    length_B = torch.randint(longctr.SHORT_WINDOW, 1_001, (batch_size,), generator=g)
    kept_B = length_B.clamp(max=length)
    mask_BL = (torch.arange(length) >= length - kept_B[:, None]).float()
    index_BL1 = torch.randint(1, len(tables["item_id"]), (batch_size, length + 1), generator=g)
    index_BL1[:, :-1] *= mask_BL.long()
    batch_dict = {
        "user_index": torch.arange(batch_size),
        "item_index": index_BL1[:, -1],
        "seq_len": kept_B,
        "is_click": torch.randint(2, (batch_size,), generator=g).float(),
    }
    return batch_dict, ItemDict(tables, index_BL1.to(device)), mask_BL


def ensure_dataset(folder: Path, users: int) -> None:
    """Generate a data set of ``users`` with histories to 1000 items, unless the folder is there.

    Labels are whole numbers, as LongCTR's loader needs them: it reads all columns as one array,
    and with a fractional column user numbers become fractions too.
    """
    if folder.exists() and any(folder.iterdir()):
        return
    print(f"generating {users:,} users into {folder} ...", flush=True)
    size = replace(
        synthetic.SIZES["micro"],
        users=users,
        items=ITEMS - 1,
        vocab=ITEMS,
        categories=CATEGORIES,
        impressions=IMPRESSIONS,
    )
    dataset = synthetic.generate(size, SEED)
    dataset.splits = {
        name: part.with_columns(pl.col("is_click").cast(pl.Int64))
        for name, part in dataset.splits.items()
    }
    layout.write(dataset, folder)
