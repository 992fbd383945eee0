"""Run blocks and head through torch.compile, for the hyper-parameter ``compile: True``.

A graph leaves sizes open, so batches of other sizes and lengths reuse it. Training and evaluation
have a graph each. So does each path through a model, for example a history shorter than the top-k.
``torch._dynamo`` takes a second to import, so it is imported when the first part is compiled.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn

# The most graphs of one function. Each path through it needs one for each stage, in training and in
# evaluation. torch's own limit is 8.
MAX_GRAPHS = 64

_left_alone: dict[str, Callable[..., Any]] = {}


def on_eager_cpu(x: Tensor) -> bool:
    """Whether ``x`` is on a CPU and torch.compile is not tracing.

    If so, this project's own kernels run, and a size that depends on data needs no wait for a GPU.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def call_compiled(part: nn.Module, *inputs: Any) -> Tensor:
    """Call ``part(*inputs)`` compiled; parts of one structure share their graphs."""
    return _compiled()(part, *inputs)


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make torch.compile leave a function uncompiled; its arguments are positional only."""
    name = f"{function.__module__}.{function.__qualname__}"
    _left_alone[name] = function

    @wraps(function)
    def call(*inputs: Any) -> Any:
        return _left_alone[name](*inputs)

    return call


def require_compiler(device: torch.device) -> None:
    """Check, before training, that torch.compile has a compiler.

    Raises:
        ValueError: a small compilation fails. The message says why.
    """
    try:
        torch.compile(_add_one)(torch.zeros(2, device=device))
    except Exception as error:  # each backend has errors of its own
        raise ValueError(
            f"compile: torch.compile does not work here ({first_line(error)}); install a C++ "
            "compiler, and on CUDA triton, or write compile: False"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of the error's message, or its type where there is no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _add_one(x: Tensor) -> Tensor:
    return x + 1


@cache
def _compiled() -> Callable[..., Tensor]:
    import torch._dynamo as dynamo

    # Beyond this limit, torch would run a function uncompiled.
    dynamo.config.cache_size_limit = max(dynamo.config.cache_size_limit, MAX_GRAPHS)
    compiled = torch.compile(_forward, dynamic=True)
    for name, function in _left_alone.items():
        _left_alone[name] = dynamo.disable(function)
    return compiled


def _forward(part: nn.Module, *inputs: Any) -> Tensor:
    return part.forward(*inputs)
