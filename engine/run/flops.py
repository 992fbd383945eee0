"""Parameters and FLOPs per sample: ``python -m engine.flops --expid TWIN_session_hopping ...``.

A sample is scored alone, as if it were a batch, so that only its own items, its own experts and no
padding count. FLOPs are counted twice: by formula, each block from the length of what it reads, and
by torch's counter, which sees matrix products only. A multiplication with addition counts as two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model_zoo.batch import Batch
from model_zoo.history.rows import RowTable
from model_zoo.layers.block import SequenceBlock
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.base_model import StagedModel

from ..common.errors import UserError
from ..common.places import CONFIG
from ..common.text_table import text_table
from ..config.feature_map import build_feature_map
from ..config.load import load
from ..config.models import build
from ..config.options import RunOptions
from ..datasets import ensure_generated
from ..loader.random_batch import one_sample, random_batch

SAMPLES = 32  # FLOPs of a mixture depend on the sample: how many to average over
ITEMS = 2_000  # of the random catalogue


@dataclass
class Flops:
    """FLOPs of the forward pass of one sample.

    Attributes:
        products: matrix products, by formula.
        elementwise: scans and Fourier transforms, by formula; the counter does not see them.
        counted: matrix products, by torch's counter.
    """

    products: float
    elementwise: float
    counted: float

    @property
    def total(self) -> float:
        """By formula."""
        return self.products + self.elementwise


def num_parameters(model: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def counted_flops(model: StagedModel, batch: Batch) -> float:
    """Matrix-product FLOPs of a forward pass over a batch, by torch's counter."""
    from .flop_counter import product_flops  # here, for it takes two seconds to import

    model.eval()
    return product_flops(lambda: model(batch))


def mean_flops(model: StagedModel, batch: Batch, samples: int = SAMPLES) -> float:
    """FLOPs of one sample by formula: the mean over samples spread over the batch.

    A foreign model has no formula: counted is the
    whole batch, for some of LongCTR's fail on a history shorter than their window.
    """
    if not isinstance(model, SequenceModel):
        return counted_flops(model, batch) / len(batch[2])
    return sum(_mean(lambda one: _formula(model, one), batch, samples))


def measure(model: SequenceModel, batch: Batch, samples: int = SAMPLES) -> Flops:
    """Formula and counter on the same samples."""
    products, elementwise = _mean(lambda one: _formula(model, one), batch, samples)
    (counted,) = _mean(lambda one: (counted_flops(model, one),), batch, samples)
    return Flops(products, elementwise, counted)


def _mean(
    function: Callable[[Batch], tuple[float, ...]], batch: Batch, samples: int
) -> list[float]:
    """Each number of ``function``, as its mean over samples spread over the batch."""
    chosen = torch.linspace(0, len(batch[2]) - 1, min(samples, len(batch[2]))).long().tolist()
    found = [function(one_sample(batch, sample)) for sample in chosen]
    return [sum(numbers) / len(found) for numbers in zip(*found, strict=True)]


@torch.no_grad()
def _formula(model: SequenceModel, one: Batch) -> tuple[float, float]:
    """FLOPs (matrix products, elementwise) of one sample: of the blocks that run, each from the
    length of its own sequence, the routers, the encoders of item features and the head."""
    found = [0.0, 0.0]

    tables: set[RowTable] = set()

    def add(block: SequenceBlock, inputs: tuple, output: Any) -> None:
        tables.add(inputs[0].table)
        length = int(inputs[0].mask_BL.sum())
        found[0] += block.products(length)
        found[1] += block.elementwise(length)

    blocks = [module for module in model.encoder.modules() if isinstance(module, SequenceBlock)]
    hooks = [block.register_forward_hook(add) for block in blocks]
    model.eval()
    try:
        model(one)
    finally:
        for hook in hooks:
            hook.remove()
    history, _ = model.embed_items(one)
    for name, branch in model.branches.items():
        sequence, router = model.encoder.sequence(name, history), branch.router
        if not router.itemwise:
            found[0] += router.products() * min(len(sequence.table), sequence.index_BL.numel())
            continue
        found[0] += router.row_products(sequence.table)
        if router.trains and not router.auxiliary:  # the newest once more, with gradient
            found[0] += router.products() + sequence.last(1).narrow().table.products()
    found[0] += sum(table.products() for table in tables)
    found[0] += 2 * _matrices(model.classifier)
    found[0] += 2 * _matrices(model.embedding_layer) * len(history.table)
    return found[0], found[1]


def _matrices(module: nn.Module) -> int:
    """Multiplications of the linear layers of a module for one vector."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def describe(
    params: dict[str, Any], model_class: type[SequenceModel], length: int
) -> dict[str, Any]:
    """Parameters and FLOPs of a model as it starts, on random items; routers with a codebook start
    from k-means, as they do in training."""
    torch.manual_seed(params["seed"])
    feature_map = build_feature_map(params)
    model = build(model_class, feature_map, {**params, "verbose": 0}, params["model_id"])
    for module in model.embedding_layer.modules():  # all but equal at first: routers need more
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    batch = random_batch(feature_map, [length] * SAMPLES, length, max(ITEMS, length + 2))
    if model.branches:
        model.before_experts([batch], params["seed"])
    flops = measure(model, batch)
    return {"parameters": num_parameters(model), "flops": flops}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.flops", description="Parameters and FLOPs per sample of models."
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="configuration directory")
    parser.add_argument("--expid", nargs="+", required=True, help="experiment ids")
    parser.add_argument("--length", type=int, help="items of the history; default: max_len")
    args = parser.parse_args()
    if args.length is not None and args.length < 1:
        raise UserError(f"--length {args.length}: write 1 or more")
    found = {}
    for expid in args.expid:
        experiment = load(expid, RunOptions(args.config))
        params = experiment.params
        ensure_generated(params)
        what = describe(params, experiment.model_class, args.length or params["max_len"])
        found[expid] = params["dataset_id"], params["model"], what
    vanilla = {(data, model): what["flops"].total for data, model, what in found.values()}
    rows = []
    for expid, (data, model, what) in found.items():
        flops = what["flops"]
        base = vanilla.get((data, model.split("_")[0]))
        rows.append(
            [
                expid,
                f"{what['parameters']:,}",
                f"{flops.products / 1e6:.3f}",
                f"{flops.counted / 1e6:.3f}",
                f"{flops.products / flops.counted - 1:+.2%}",
                f"{flops.elementwise / 1e6:.3f}",
                f"{flops.total / 1e6:.3f}",
                f"{flops.total / base:.2f}" if base else "",
            ]
        )
    header = ["expid", "parameters", "formula", "counter", "difference", "elementwise", "total"]
    print("FLOPs of one sample in millions (matrix products by formula and by torch's counter)")
    print(text_table([*header, "/ vanilla"], rows))
    return 0
