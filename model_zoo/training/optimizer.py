"""The optimizer of a stage, the parameters that it trains, and FuxiCTR's regulariser."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import unwrap

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.torch_utils import get_optimizer, get_regularizer
from torch import nn

from .. import ranks
from ..moe.stages import StageName
from .sparse_embedding import RowAdam, coalesced, sparse_tables
from .trainable import Trainable

SPARSE_OPTIMIZERS = ("adam", "Adam", "SGD", "Adagrad")  # they accept sparse gradients


def require_sparse_optimizer(name: str) -> None:
    """Raise a ValueError if an optimizer does not accept sparse gradients."""
    if name not in SPARSE_OPTIMIZERS:
        raise ValueError(
            f"sparse_embedding: optimizer {name!r} cannot use sparse gradients; "
            f"write one of {', '.join(SPARSE_OPTIMIZERS)}"
        )


@contextmanager
def frozen_modules(model: Trainable, stage: StageName) -> Iterator[list[nn.Module]]:
    """Freeze the modules that a stage does not train (paper 4.3), and yield them.

    A parameter that was frozen before stays frozen, both in the stage and after it.
    """
    frozen: list[nn.Module] = []
    if stage is StageName.BACKBONE:
        frozen = list(model.expert_parts())
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
    """Make an optimizer of all parameters that train.

    Adam is fused: it passes once over each dense table. Sparse tables get ``RowAdam``.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if model.optimizer_name.lower() == "adam":
        tables = [table for table in sparse_tables(model) if table.weight.requires_grad]
        if tables:
            return RowAdam(parameters, tables, lr=model.learning_rate)
        return Adam(parameters, lr=model.learning_rate, fused=True)
    return get_optimizer(model.optimizer_name, parameters, model.learning_rate)


class Adam(torch.optim.Adam):
    """torch's Adam without the wrappers that keep ``torch.compile`` out of its methods.

    Nothing here compiles an optimizer. The wrappers would import ``torch._dynamo`` at their first
    call, which takes two seconds and 70 MB.
    """

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)


@torch.no_grad()
def add_regularizer_gradient(model: Trainable) -> None:
    """Add the gradient of FuxiCTR's ``regularization_loss`` to the gradients, before clipping.

    The result is the same as adding the loss, but needs no graph over the whole embedding table. A
    parameter without a gradient, such as an expert that no sample used, is not regularised. Of a
    table with a sparse gradient, only the rows in the gradient are.
    """
    dicts = [module for module in model.modules() if isinstance(module, FeatureEmbeddingDict)]
    embeddings = {id(parameter) for module in dicts for parameter in module.parameters()}
    of_embedding = get_regularizer(model.embedding_regularizer)
    of_net = get_regularizer(model.net_regularizer)
    for parameter in model.parameters():
        exempt = getattr(parameter, "_no_weight_decay", False)  # Mamba's A and D
        if exempt or parameter.grad is None:  # frozen, or not used in this step
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
    """Clip gradients as ``clip_grad_norm_`` does, but include sparse ones, which are coalesced.

    The norm is that of whole gradients, also where each rank has rows of its own.
    """
    holders: list[torch.Tensor] = []
    divided: list[bool] = []
    for parameter in parameters:
        divided.append(ranks.is_divided(parameter))
        holder: torch.Tensor = parameter
        if parameter.grad is not None and parameter.grad.is_sparse:
            holder = parameter.grad.values().detach()
            holder.grad = parameter.grad.values()  # a view: scaling it scales the gradient
        holders.append(holder)
    if any(divided):
        _clip_divided(holders, divided, max_norm)
    else:
        nn.utils.clip_grad_norm_(holders, max_norm)


def _clip_divided(holders: list[torch.Tensor], divided: list[bool], max_norm: float) -> None:
    """Clip gradients where all ranks agree on which are ``divided``, though one may lack a gradient."""
    common, own = holders[0].new_zeros(()), holders[0].new_zeros(())
    gradients = [(x.grad, part) for x, part in zip(holders, divided, strict=True)]
    for gradient, part in gradients:
        if gradient is not None:
            (own if part else common).add_(gradient.square().sum())
    scale = (max_norm / ((common + ranks.total(own)).sqrt() + 1e-6)).clamp(max=1)
    for gradient, _ in gradients:
        if gradient is not None:
            gradient.mul_(scale)
