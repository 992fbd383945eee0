"""Count FLOPs, by torch's formulas for matrix products and by own formulas where torch has none.

A multiplication with an addition counts as two. Moving data (indexing, gathering) counts nothing.
Operations that are cheap beside the products (activations, norms, softmax) count nothing either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from model_zoo.layers.mamba import Mamba
from model_zoo.ops.scan import mamba_kernel

aten = torch.ops.aten


def count_flops(function: Callable[[], object]) -> float:
    """The FLOPs of one call of ``function``, including its backward pass if it has one."""
    with FlopCounter() as counter:
        function()
    return counter.flops


class FlopCounter(TorchDispatchMode):
    """Adds up the FLOPs of every operation inside the context, in ``flops``.

    It uses the formulas of ``torch.utils.flop_counter.FlopCounterMode``, but is faster. torch's class
    imports the compiler when it is entered, which takes two seconds. It also finds the module of each
    operation, which takes longer than the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self._inside = ExitStack()

    def __enter__(self) -> FlopCounter:
        self._inside.callback(register_module_forward_hook(self._add_scan).remove)
        # Fused attention has no formula on a CPU.
        self._inside.enter_context(sdpa_kernel(SDPBackend.MATH))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._inside.close()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch imports its compiler to skip this class

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out

    def _add_scan(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """A forward hook that adds the FLOPs of ``Mamba`` outside matrix products."""
        if isinstance(module, Mamba):
            self.flops += scan_flops(module, *inputs)


def scan_flops(mamba: Mamba, x_BLW: Tensor, real: Any, last: bool = False) -> float:
    """The FLOPs of the convolution and the selective scan in one call of ``Mamba``.

    At each position, a channel needs 2 FLOPs for each tap. Each number of the state needs 4 if only
    the last state is read, and otherwise 7, with 2 more for reading it. These 2 are not added here
    where torch's operations for them are counted.
    """
    channels, taps = len(mamba.D), mamba.conv1d.kernel_size[0]
    read = 2 if x_BLW.is_cuda and mamba_kernel() else 0  # a kernel that the counter does not see
    of_state = 4 if last else 7 + read
    return x_BLW[..., 0].numel() * (2 * taps * channels + of_state * mamba.A_log.numel())


@register_flop_formula(aten.sparse_sampled_addmm, get_raw=True)
def sampled_product(pattern: Tensor, left: Tensor, *others: Any, **options: Any) -> int:
    """Dot products of width D at the places of a sparse pattern."""
    return 2 * pattern.values().numel() * left.shape[1]


@register_flop_formula([aten._embedding_bag, aten._embedding_bag_forward_only], get_raw=True)
def weighted_sum(weight: Tensor, index: Tensor, *others: Any, **options: Any) -> int:
    """Weighted sums of rows: a sparse matrix times a dense one."""
    return 2 * index.numel() * weight.shape[1]


@register_flop_formula([aten._fft_r2c, aten._fft_c2r, aten._fft_c2c], get_raw=True)
def transform(x: Tensor, dim: list[int], *others: Any, out_val: Tensor, **options: Any) -> float:
    """Fourier transforms: ``5 N log2 N`` for N complex numbers, half as many for real ones."""
    length = math.prod(max(x.shape[d], out_val.shape[d]) for d in dim)
    each = 5.0 if x.is_complex() and out_val.is_complex() else 2.5
    return each * max(x.numel(), out_val.numel()) * math.log2(length)
