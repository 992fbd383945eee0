"""Items with equal features are one item, however their embeddings are rounded.

The products of a narrow dense projection round a row apart from its copies. Here a hook does it on
every machine.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_zoo.history.item_dict import ItemDict, first_equal
from model_zoo.sequence_model import SequenceModel

from ..support.helpers import build_model, random_batch, rows_of, tiny_params

MODELS = ["TWIN_ExpertChoice", "Mamba4Rec_ExpertChoice", "MiasRec"]
LENGTHS = [20, 7, 13, 0, 19, 20, 5, 17]
IMAGE = {"name": "image", "active": True, "dtype": "float", "type": "embedding", "source": "item"}


@pytest.fixture
def model(name: str, tiny_data: Path) -> SequenceModel:
    params = tiny_params(tiny_data, name)
    params["feature_cols"] = [
        *params["feature_cols"],
        IMAGE | dict(pretrain_dim=5, embedding_dim=4),
    ]
    model = build_model(params).eval()
    for module in model.embedding_layer.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.3)
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(rounded_apart)
    return model


def rounded_apart(_: torch.nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    return out * (1 + 1e-6 * (torch.arange(len(out)) * 7 % 5 - 2))[:, None]


@torch.no_grad()
def logits(model: SequenceModel, batch: tuple, plain: bool) -> Tensor:
    batch_dict, items, mask = batch
    if plain:
        items = {name: items[name] for name in items}
    return model((batch_dict, items, mask))["logit"].flatten()


@pytest.mark.parametrize("name", MODELS)
def test_rounding_decides_no_tie_and_counts_no_repeat(model: SequenceModel) -> None:
    batch_dict, items, mask = random_batch(model.feature_map, LENGTHS, L=20, num_items=7)
    for table in items.tables.values():
        table[4:] = table[1:4]  # three items under two names each
    batch = batch_dict, items, mask
    together = logits(model, batch, plain=False)
    assert (together[:, None] - together).abs().add(torch.eye(len(together))).min() > 1e-4
    for plain in (False, True):
        torch.testing.assert_close(logits(model, batch, plain), together, rtol=0, atol=1e-4)
        for b, length in enumerate(LENGTHS):
            alone = logits(model, rows_of(batch, [b], cut=20 - max(1, length)), plain)
            torch.testing.assert_close(alone[0], together[b], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_equal_rows_are_found(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(-2, 3, (500,), generator=g).to(dtype)
    lists = torch.randint(-1, 2, (500, 3), generator=g).to(dtype)
    found = first_equal({"ids": ids, "lists": lists}).tolist()
    names = [(i, *row) for i, row in zip(ids.tolist(), lists.tolist(), strict=True)]
    assert all(names[row] == names[i] for i, row in enumerate(found))
    assert len(set(found)) == len(set(names)) > 50


def test_an_item_dict_keeps_its_items_where_nobody_asks(tiny_data: Path) -> None:
    model = build_model(tiny_params(tiny_data, "TWIN"))
    batch = random_batch(model.feature_map, LENGTHS, L=20, num_items=7)
    for table in batch[1].tables.values():
        table[4:] = table[1:4]
    assert isinstance(batch[1], ItemDict)
    assert len(model.embed_items(batch)[0].index_BL.unique()) == 7
