"""A train step on a GPU: the host waits for it once at most, and only indices cross over.

Where Mamba4Rec packs histories, it waits once more in each block.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_zoo.backbones import mamba4rec
from model_zoo.history.history import History
from model_zoo.history.item_dict import ItemDict
from model_zoo.layers import mamba
from model_zoo.ops import scan_last as final_state
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.steps import Stepper

from ..support.helpers import (
    all_models,
    build_model,
    gather_always,
    loader,
    random_batch,
    tiny_params,
)
from ..support.host_syncs import HostSyncs

LENGTHS = [0, 1, 4, 20, 60, 33, 8, 60]


@pytest.fixture
def gpu_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runs on CUDA, on CPU tensors, where kernels give shapes only; the waits of packing so far."""
    waits = []
    monkeypatch.setattr(mamba4rec, "can_fuse", lambda device: True)
    packed = History.packed
    monkeypatch.setattr(History, "packed", lambda x: waits.append("aten.nonzero") or packed(x))
    monkeypatch.setattr(mamba, "segment_conv", lambda x, *others: x)
    monkeypatch.setattr(
        mamba, "segment_scan", lambda u, delta, A, B, C, *others: C.mean(-1, True) * u[0, -1]
    )
    gather_always(monkeypatch)
    monkeypatch.setattr(
        final_state, "_live_states", lambda later, mask, rate: [len(rate)] * later.shape[1]
    )
    return waits


@pytest.mark.parametrize("name", all_models())
def test_at_most_one_wait_in_a_step(name: str, tiny_data: Path, gpu_way: list[str]) -> None:
    params = tiny_params(tiny_data, name, verbose=0, embedding_regularizer=1e-4)
    if "reuse_hash" in params:
        params["reuse_hash"] = False
    for model in (build_model(params), build_model(params | {"amp": "bf16"})):
        stepper = Stepper(model.train(), build_optimizer(model))
        batch = random_batch(model.feature_map, LENGTHS, L=60)
        gpu_way.clear()
        with HostSyncs() as syncs:
            stepper.step(batch, step=1, steps=1)
        assert sorted(syncs.found) == gpu_way + (["tolist"] if model.branches else [])
        assert bool(gpu_way) == name.startswith("Mamba4Rec")


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.repeat_interleave(x.long().abs()),
        lambda x: x.clone().index_put_((x > 0,), x[x > 0]),
        lambda x: torch.tensor([1.0]) + x,
        lambda x: torch.where(x > 0),
    ],
)
def test_waits_are_found(wait: Callable[[Tensor], object]) -> None:
    x = torch.tensor([1.0, -2.0, 3.0])
    with HostSyncs() as syncs:
        wait(x)
    assert syncs.found


def test_what_needs_no_wait_is_none() -> None:
    x = torch.tensor([1.0, -2.0, 3.0])
    with HostSyncs() as syncs:
        x[x > 0] = 0.0
        x[1:].add_(x[torch.arange(2)]).sum(), x.to(torch.long).repeat_interleave(2)
    assert not syncs.found


def test_all_that_a_model_reads_is_on_the_device(tiny_data: Path) -> None:
    params = tiny_params(tiny_data, "TWIN", verbose=0)
    here, there = next(iter(loader(params))), next(iter(loader(params, device="meta")))
    batch_dict, items, mask_BL = there
    assert mask_BL.is_meta and items.index.is_meta and batch_dict["is_click"].is_meta
    assert all(table.is_meta for table in items.tables.values())
    assert not batch_dict["user_index"].is_meta  # the groups of gAUC, for the host
    assert (mask_BL.shape, mask_BL.dtype) == (here[2].shape, here[2].dtype)
    assert (items.index.shape, items.index.dtype) == (here[1].index.shape, here[1].index.dtype)


def test_padding_is_item_0(tiny_data: Path) -> None:
    """From which a GPU has the mask."""
    for _, items, mask_BL in loader(tiny_params(tiny_data, "TWIN", verbose=0)):
        assert torch.equal(mask_BL, (items.index[:, :-1] > 0).float())


@pytest.mark.parametrize("num_items", [7, 1000])
def test_distinct_items_of_a_gpu_are_the_same(num_items: int, gpu_way: None) -> None:
    """All of a table that has fewer items than the batch has positions, else those of the batch."""
    tables = {"a": torch.rand(num_items, 3), "b": torch.arange(num_items)}
    items = ItemDict(tables, torch.randint(num_items, (5, 9)))
    columns, row_BL1 = items.distinct()
    assert len(columns["b"]) <= 5 * 9
    for name in tables:
        assert torch.equal(columns[name][row_BL1.flatten()], items[name])
