"""MoS, the Mixture of Sequence: item and window experts behind theme-aware routers (paper 4)."""

from __future__ import annotations

from typing import Any

from ..history.history import History
from ..ops.functional import check_sizes
from .branch import MakeBlock
from .mixtures import BranchedMixture
from .theme_router import ThemeRouter


class MoS(BranchedMixture):
    """The Mixture of Sequence: a branch of item experts and a branch of window experts.

    Args:
        window_size, window_stride, window_anchor: see ``History.windows``.
        alpha_item, alpha_window: weights of eq. 8 in the joint stage.
        kwargs: see ``BranchedMixture`` and ``ThemeRouter``. Each branch has ``num_experts``
            experts, which the paper calls n1 and n2.
    """

    router = ThemeRouter

    def __init__(
        self,
        make_block: MakeBlock,
        item_dim: int,
        *,
        window_size: int = 8,
        window_stride: int = 4,
        window_anchor: str = "start",
        alpha_item: float = 0.25,
        alpha_window: float = 0.25,
        **kwargs: Any,
    ) -> None:
        if window_anchor not in ("start", "end"):
            raise ValueError(f"window_anchor={window_anchor!r}: write start or end")
        check_sizes(window_size=window_size)
        if not 1 <= window_stride <= window_size:
            raise ValueError(
                f"window_stride={window_stride}: write 1 to window_size={window_size}, "
                "so that no item falls between two windows"
            )
        alphas = {"alpha_item": alpha_item, "alpha_window": alpha_window}
        super().__init__(make_block, item_dim, alphas, **kwargs)
        self.window_size, self.window_stride = window_size, window_stride
        self.window_anchor = window_anchor

    def sequence(self, branch: str, history: History) -> History:
        """The items, or the windows over them (paper 4.2)."""
        if branch != "window":
            return history
        return history.windows(self.window_size, self.window_stride, self.window_anchor)
