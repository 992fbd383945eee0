"""FLOPs of every model, what counts and what does not, and the command line."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import model_zoo
from engine.loader.random_batch import one_sample
from engine.run.flops import count_flops, describe, flops_per_sample, spread_batch
from model_zoo.layers.mamba import Mamba

from ...support.command_line import Workspace, run_module
from ...support.helpers import (
    EACH_PART_ONCE,
    all_models,
    build_model,
    loader,
    random_batch,
    tiny_params,
)

# FLOPs at 50 items by formulas that once stood beside every layer. They agree with the counter.
# The routers of the whole history also project the target's row.
KNOWN = {
    "Mamba4Rec": 2_900_096,
    "Mamba4Rec_GShard": 4_870_272,
    "Mamba4Rec_MoS": 5_152_672,
    "TransAct": 12_958_112,
    "TransAct_MoS": 17_537_436,
    "TWIN": 189_952,
    "TWIN_DSelectK": 449_062,
    "TWIN_MoS": 1_560_556,
    "SDIM": 784_832,
    "SDIM_ExpertChoice": 1_423_432,
    "MIRRN": 669_632,
    "AttenMixer": 1_167_328,
    "MiasRec": 16_651_168,
}


@pytest.mark.parametrize("name", all_models([*KNOWN, *EACH_PART_ONCE]))
def test_every_model_is_counted(name: str, tiny_data: Path) -> None:
    params = tiny_params(tiny_data, name)
    parameters, flops = describe(params, model_zoo.get_model(name), 50)
    assert parameters == sum(p.numel() for p in build_model(params).parameters())
    assert flops.mean == pytest.approx(KNOWN.get(name, flops.mean)) and flops.mean > 1e5


@pytest.mark.parametrize("name, changes, flops", [
    ("Mamba4Rec", dict(num_layers=2), 13_703_296),
    ("MIRRN", dict(topk=100), 1_692_032),
    ("TWIN_DSelectK", dict(dselect_mode="static"), 418_752),
])  # fmt: skip
def test_other_settings_are_counted(
    name: str, changes: dict, flops: float, tiny_data: Path
) -> None:
    params = tiny_params(tiny_data, name, **changes)
    assert describe(params, model_zoo.get_model(name), 60)[1].mean == pytest.approx(flops)


def test_what_torch_does_not_count() -> None:
    x, table = torch.randn(2, 16, 3), torch.randn(5, 3)
    assert count_flops(lambda: torch.fft.rfft(x, dim=1)) == 2.5 * x.numel() * math.log2(16)
    spectrum = torch.fft.fft(x, dim=1)
    assert count_flops(lambda: torch.fft.ifft(spectrum, dim=1)) == 5 * x.numel() * math.log2(16)
    index, weights = torch.randint(5, (4, 6)), torch.randn(4, 6)
    bags = nn.EmbeddingBag.from_pretrained(table, mode="sum")
    assert count_flops(lambda: bags(index, per_sample_weights=weights)) == 2 * 4 * 6 * 3
    assert count_flops(lambda: nn.functional.embedding(index, table).relu()) == 0


def test_a_scan_costs_less_where_only_the_last_state_is_read() -> None:
    mamba, mask = Mamba(8, d_state=4), torch.ones(3, 10, dtype=torch.bool)
    x_BLW, channels, state = torch.randn(3, 10, 8), 16, 16 * 4
    beside = {  # what is computed at every position, and where outputs are read
        True: (2 * 8 * channels + 4 * channels + 2 * state, 1),
        False: (2 * 8 * channels + 4 * channels + 2 * state, 10),
    }
    for last, (everywhere, read) in beside.items():
        scan = (8 * channels + (4 if last else 9) * state) * 10
        products = everywhere * 10 + (4 * 8 * channels + 2 * state) * read
        counted = count_flops(lambda last=last: mamba(x_BLW, mask, last))
        assert counted == 3 * (scan + products)


def test_a_backward_pass_is_counted() -> None:
    layer, x = nn.Linear(3, 4, bias=False), torch.randn(5, 3, requires_grad=True)
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * count_flops(lambda: layer(x))


def test_ragged_samples_count_alone_and_without_padding(tiny_data: Path) -> None:
    model = build_model(tiny_params(tiny_data, "TransAct_MoS")).eval()
    lengths = [0, 1, 7, 30, 30]
    batch = random_batch(model.feature_map, lengths, L=30)
    ones = [one_sample(batch, b) for b in range(len(lengths))]
    with torch.no_grad():
        alone = [count_flops(lambda one=one: model(one)) for one in ones]
    assert alone[0] < alone[1] < alone[2] < min(alone[3:])
    flops = flops_per_sample(model, batch)
    assert flops.mean == pytest.approx(sum(alone) / len(alone))
    assert flops.error == pytest.approx(torch.tensor(alone).std().item() / 5**0.5)
    assert flops_per_sample(model, ones[1]).error is None


def test_experts_that_do_not_run_are_not_counted(tiny_data: Path) -> None:
    """With five experts the cost is that of the one that is read; without alphas, of the backbone."""
    vanilla = build_model(tiny_params(tiny_data, "TransAct"))
    params = tiny_params(tiny_data, "TransAct_MoS", alpha_window=0.0)
    mos = build_model(params)
    batch = random_batch(vanilla.feature_map, [40] * 8, L=40)
    base = flops_per_sample(vanilla, batch).mean
    one = build_model(params | {"num_experts": 1, "router_topk": 1})
    assert base < flops_per_sample(mos, batch).mean < flops_per_sample(one, batch).mean
    none = build_model(params | {"alpha_item": 0.0})
    assert flops_per_sample(none, batch).mean == base


@pytest.mark.parametrize("streaming", [False, True])
def test_samples_are_spread_over_the_whole_split(tiny_data: Path, streaming: bool) -> None:
    params = tiny_params(tiny_data, "TWIN")
    split = loader(params, "test", streaming=streaming, batch_size=100)
    everything = torch.cat([batch[0]["user_index"] for batch in split])
    batch = spread_batch(split, 7)
    chosen = torch.linspace(0, len(everything) - 1, 7).long()
    assert torch.equal(batch[0]["user_index"], everything[chosen])
    assert len(batch[2]) == len(batch[1].index) == 7
    assert len(spread_batch(split, 10**9)[2]) == len(everything)


def test_command_line(tmp_path: Path, tiny_data: Path) -> None:
    space = Workspace(tmp_path, tiny_data)
    expids = ("TWIN_tiny", "TWIN_MoS_tiny")
    done = run_module("engine.flops", "--config", str(space.config), "--expid", *expids)
    assert done.code == 0, done.stderr
    vanilla, mos = (line.split() for line in done.stdout.splitlines()[-2:])
    assert vanilla[0] == "TWIN_tiny" and vanilla[-1] == "1.00"
    assert mos[0] == "TWIN_MoS_tiny" and float(mos[-1]) > 1
