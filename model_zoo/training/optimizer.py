"""What a stage trains, with which optimizer, and FuxiCTR's regulariser as a gradient.

A table with sparse gradients is regularised, clipped and updated in the rows that the batch reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import unwrap

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.torch_utils import get_optimizer, get_regularizer
from torch import Tensor, nn

from ..moe.stages import StageName
from .row_adam import RowAdam
from .table_rows import use_sparse_gradient
from .trainable import Trainable

SPARSE_OPTIMIZERS = ("adam", "Adam", "SGD", "Adagrad")  # those that take sparse gradients
SMALL_TABLE = 10_000  # rows; up to here a dense update costs less than finding the rows


@contextmanager
def frozen_modules(model: Trainable, stage: StageName) -> Iterator[list[nn.Module]]:
    """Let only the parameters of a stage train (paper 4.3); gives the modules that do not.

    ``backbone``: embeddings, global block and head. ``experts``: item and window experts with
    their routers. ``joint``: all. What did not train before does not train then.
    """
    backbone = list(model.backbone_parts())
    experts: list[nn.Module] = list(model.branches.values())
    frozen: list[nn.Module] = {
        StageName.BACKBONE: experts,
        StageName.EXPERTS: backbone,
        StageName.JOINT: [],
    }[stage]
    held = [p for module in frozen for p in module.parameters() if p.requires_grad]
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        yield frozen
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def build_optimizer(model: Trainable) -> torch.optim.Optimizer:
    """A fresh optimizer over what trains. Adam is fused: one pass over each dense table."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if model.optimizer_name.lower() == "adam":
        tables = [table for table in sparse_tables(model) if table.weight.requires_grad]
        if tables:
            return RowAdam(parameters, tables, lr=model.learning_rate)
        return Adam(parameters, lr=model.learning_rate, fused=True)
    return get_optimizer(model.optimizer_name, parameters, model.learning_rate)


class Adam(torch.optim.Adam):
    """torch's Adam without the guards that keep ``torch.compile`` out of its methods.

    At their first call they import ``torch._dynamo``, which takes two seconds and 70 MB; nothing
    here compiles an optimizer.
    """

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)


@torch.no_grad()
def add_regularizer_gradient(model: Trainable) -> None:
    """Add the gradient of FuxiCTR's ``regularization_loss`` in place, before clipping.

    The same mathematics as adding the loss, without a graph over the whole embedding table.
    What got no gradient, as experts that no sample read and rows of sparse gradients that no score
    read, is left alone.
    """
    embeddings = {
        id(p)
        for module in model.modules()
        if isinstance(module, FeatureEmbeddingDict)
        for p in module.parameters()
    }
    of_embedding = get_regularizer(model.embedding_regularizer)
    of_net = get_regularizer(model.net_regularizer)
    for parameter in model.parameters():
        if parameter.grad is None:  # frozen, or nothing read it in this step
            continue
        if getattr(parameter, "_no_weight_decay", False):  # Mamba's A and D
            continue
        if parameter.grad.is_sparse:
            parameter.grad = coalesced(parameter.grad)
        for norm, weight in of_embedding if id(parameter) in embeddings else of_net:
            if weight:
                values, gradient = _with_gradient(parameter)
                gradient.add_(values.sign() if norm == 1 else values, alpha=weight)


def _with_gradient(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """What of a parameter has a gradient, and that gradient: all, or of a table some rows."""
    gradient = parameter.grad
    if gradient.is_sparse:
        return parameter.index_select(0, gradient.indices()[0]), gradient.values()
    return parameter, gradient


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """``clip_grad_norm_`` that also counts and scales sparse gradients; these must be coalesced."""
    holders = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            values = parameter.grad.values()
            parameter = values.detach()
            parameter.grad = values  # scaled in place, it stays the sparse gradient's
        holders.append(parameter)
    nn.utils.clip_grad_norm_(holders, max_norm)


def use_sparse_gradients(module: nn.Module) -> None:
    """Give every table of more than ``SMALL_TABLE`` rows a sparse gradient."""
    for table in module.modules():
        if isinstance(table, nn.Embedding) and table.num_embeddings > SMALL_TABLE:
            use_sparse_gradient(table)


def sparse_tables(module: nn.Module) -> list[nn.Embedding]:
    """The tables with sparse gradients."""
    return [m for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]


def coalesced(gradient: Tensor) -> Tensor:
    """A sparse gradient with each row once. Rows that rise, as those of a batch's distinct items
    do, need no sorting and no sums."""
    rows, values = gradient._indices(), gradient._values()
    if bool((rows[0, 1:] <= rows[0, :-1]).any()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        rows, values, gradient.shape, is_coalesced=True, check_invariants=False
    )
