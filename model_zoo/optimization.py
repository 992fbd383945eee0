"""What a stage trains, with which optimizer, and FuxiCTR's regulariser as a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import unwrap
from typing import TYPE_CHECKING

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.torch_utils import get_optimizer, get_regularizer
from torch import nn

if TYPE_CHECKING:
    from .staged_model import StagedModel


@contextmanager
def frozen_modules(model: StagedModel, stage: str) -> Iterator[list[nn.Module]]:
    """Let only the parameters of a stage train (paper 4.3); gives the modules that do not.

    ``backbone``: embeddings, global block and head. ``experts``: item and window experts with
    their routers. ``joint``: all. What did not train before does not train then.
    """
    backbone = list(model.backbone_parts())
    experts = list(model.branches.values())
    frozen = {"backbone": experts, "experts": backbone, "joint": []}[stage]
    held = [p for module in frozen for p in module.parameters() if p.requires_grad]
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        yield frozen
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def build_optimizer(model: StagedModel) -> torch.optim.Optimizer:
    """A fresh optimizer over what trains. Adam is fused: one pass over each large table."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if model.optimizer_name.lower() == "adam":
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
def add_regularizer_gradient(model: StagedModel) -> None:
    """Add the gradient of FuxiCTR's ``regularization_loss`` in place, before clipping.

    The same mathematics as adding the loss, without a graph over the whole embedding table.
    Parameters that got no gradient, as experts that no sample read, are left alone.
    """
    embeddings = {
        id(p)
        for module in model.modules()
        if isinstance(module, FeatureEmbeddingDict)
        for p in module.parameters()
    }
    of_embedding = get_regularizer(model._embedding_regularizer)
    of_net = get_regularizer(model._net_regularizer)
    for parameter in model.parameters():
        if parameter.grad is None:  # frozen, or nothing read it in this step
            continue
        if getattr(parameter, "_no_weight_decay", False):  # Mamba's A and D
            continue
        for norm, weight in of_embedding if id(parameter) in embeddings else of_net:
            if weight:
                gradient = parameter.sign() if norm == 1 else parameter
                parameter.grad.add_(gradient, alpha=weight)
