"""The start of embedding tables, in FuxiCTR's spelling: parsed here, and never evaluated as code."""

import ast
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

FUXICTR_START = "partial(nn.init.normal_, std=1e-4)"
DRAWS = (
    "normal_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_",
    "kaiming_normal_", "kaiming_uniform_",
)  # fmt: skip


def parse_initializer(text: str) -> Callable[[Tensor], Tensor]:
    """The function of ``torch.nn.init`` that a text names, with the keywords that it gives.

    FuxiCTR evaluates such a text. Here it may name only a function of ``DRAWS``, by itself or as
    ``partial(nn.init.normal_, std=0.25)``, and the keywords may only be plain values.

    Raises:
        ValueError: the text is anything else, or the function does not take the keywords.
    """
    try:
        named, keywords = ast.parse(text.strip(), mode="eval").body, {}
        if isinstance(named, ast.Call) and ast.unparse(named.func) == "partial":
            keywords = {str(k.arg): ast.literal_eval(k.value) for k in named.keywords}
            (named,) = named.args
        known = {f"nn.init.{name}": getattr(nn.init, name) for name in DRAWS}
        initializer = partial(known[ast.unparse(named).removeprefix("torch.")], **keywords)
        with torch.random.fork_rng(devices=[]):  # a draw shows whether the keywords are right
            if not initializer(torch.empty(2, 2)).isfinite().all():
                raise ValueError
    except (SyntaxError, KeyError, TypeError, ValueError, RuntimeError, MemoryError):
        raise ValueError(
            f"embedding_initializer: is {text!r}; write partial(nn.init.normal_, std=0.25), or one "
            f"of nn.init.{', nn.init.'.join(DRAWS)}"
        ) from None
    return initializer
