"""Make random batches of any data set's features, for counting FLOPs and for tests.

Shape suffixes: B samples, L history length.
"""

from typing import Any

import torch
from fuxictr.features import FeatureMap
from torch import Tensor

from model_zoo.batch import Batch
from model_zoo.history.item_dict import ItemDict


def random_batch(
    feature_map: FeatureMap, lengths: list[int], L: int, num_items: int = 40, seed: int = 0
) -> tuple[dict[str, Tensor], ItemDict, Tensor]:
    """A random batch ``(batch_dict, item_dict, mask)``; padded positions show item 0.

    Args:
        feature_map: names the item features; samples get no features of their own.
        lengths: the number of real items in each history.
        L: padded length.
        num_items: the rows of the item table. If they are enough, no history repeats an item.
        seed: the seed of all random numbers.
    """
    g = torch.Generator().manual_seed(seed)
    B = len(lengths)
    tables = {}
    for name, spec in feature_map.features.items():
        if spec.get("source") != "item":
            continue
        width = {"embedding": "pretrain_dim", "sequence": "max_len"}.get(spec["type"])
        shape = (num_items, spec[width]) if width else (num_items,)
        if spec["type"] in ("embedding", "numeric"):
            tables[name] = torch.randn(shape, generator=g)
        else:
            tables[name] = torch.randint(1, spec["vocab_size"], shape, generator=g)
    for table in tables.values():
        table[0] = 0
    mask_BL = (torch.arange(L) >= L - torch.tensor(lengths)[:, None]).float()
    if num_items > L + 1:
        index_BL1 = 1 + torch.rand(B, num_items - 1, generator=g).argsort(1)[:, : L + 1]
    else:
        index_BL1 = torch.randint(1, num_items, (B, L + 1), generator=g)
    index_BL1[:, :-1] *= mask_BL.long()
    batch_dict = {
        "user_index": torch.arange(B),
        "item_index": index_BL1[:, -1],
        "seq_len": torch.tensor(lengths),
        feature_map.labels[0]: torch.randint(0, 2, (B,), generator=g).float(),
    }
    return batch_dict, ItemDict(tables, index_BL1), mask_BL


def random_events(event_cols: list[dict[str, Any]], mask_BL: Tensor) -> dict[str, Tensor]:
    """Random buckets of event features, as ``ItemDict.events`` has them."""
    return {c["name"]: torch.randint(c["vocab_size"], mask_BL.shape) for c in event_cols}


def one_sample(batch: Batch, sample: int) -> Batch:
    """One sample of a batch with an ``ItemDict``, without its padding; one column is kept at least."""
    batch_dict, items, mask_BL = batch
    assert isinstance(items, ItemDict)
    length = max(1, int((mask_BL[sample] > 0).sum()))
    keep = slice(sample, sample + 1)
    return (
        {name: column[keep] for name, column in batch_dict.items()},
        ItemDict(
            items.tables,
            items.index[keep, -length - 1 :],
            None if items.matches is None else items.matches[keep],
            {name: bucket_BL[keep, -length:] for name, bucket_BL in items.events.items()},
        ),
        mask_BL[keep, -length:],
    )
