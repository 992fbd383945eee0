"""What a stage trains, with which optimizer, and FuxiCTR's regulariser as a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import unwrap

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.torch_utils import get_optimizer, get_regularizer
from torch import nn

from ..moe.stages import StageName
from .sparse_embedding import RowAdam, coalesced, sparse_tables
from .trainable import Trainable

SPARSE_OPTIMIZERS = ("adam", "Adam", "SGD", "Adagrad")  # those that take sparse gradients


@contextmanager
def frozen_modules(model: Trainable, stage: StageName) -> Iterator[list[nn.Module]]:
    """Let only the parameters of a stage train (paper 4.3); yields the modules that do not.

    A parameter that did not train before does not train within the stage either.
    """
    frozen: list[nn.Module] = []
    if stage is StageName.BACKBONE:
        frozen = list(model.branches.values())
    elif stage is StageName.EXPERTS:
        frozen = list(model.backbone_parts())
    held = [p for module in frozen for p in module.parameters() if p.requires_grad]
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        yield frozen
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def build_optimizer(model: Trainable) -> torch.optim.Optimizer:
    """A fresh optimizer of all that trains; Adam is fused, one pass over each dense table."""
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

    The numbers are those of adding the loss, without a graph over the whole embedding table. A
    parameter without a gradient is left alone, such as an expert that no sample read. Of a sparse
    gradient only its rows are regularised.
    """
    dicts = [module for module in model.modules() if isinstance(module, FeatureEmbeddingDict)]
    embeddings = {id(parameter) for module in dicts for parameter in module.parameters()}
    of_embedding = get_regularizer(model.embedding_regularizer)
    of_net = get_regularizer(model.net_regularizer)
    for parameter in model.parameters():
        exempt = getattr(parameter, "_no_weight_decay", False)  # Mamba's A and D
        if exempt or parameter.grad is None:  # frozen, or nothing read it in this step
            continue
        values, gradient = parameter.detach(), parameter.grad
        if gradient.is_sparse:
            parameter.grad = coalesced(gradient)
            values = values.index_select(0, parameter.grad.indices()[0])
            gradient = parameter.grad.values()
        for norm, weight in of_embedding if id(parameter) in embeddings else of_net:
            if weight:
                gradient.add_(values.sign() if norm == 1 else values, alpha=weight)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """``clip_grad_norm_`` that also counts and scales sparse gradients; these must be coalesced."""
    holders: list[torch.Tensor] = []
    for parameter in parameters:
        holder: torch.Tensor = parameter
        if parameter.grad is not None and parameter.grad.is_sparse:
            holder = parameter.grad.values().detach()
            holder.grad = parameter.grad.values()  # scaled in place, they stay the gradient's
        holders.append(holder)
    nn.utils.clip_grad_norm_(holders, max_norm)
