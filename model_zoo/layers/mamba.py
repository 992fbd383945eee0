"""The Mamba mixer (Gu and Dao, 2023) for left-padded sequences; names are as in ``mamba_ssm``.

Shape suffixes: B samples, L positions, W width, E inner channels, N state size, R rank of the step.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import Segments
from ..ops.causal_conv import causal_conv
from ..ops.compiled import uncompiled
from ..ops.functional import check_choice, check_sizes
from ..ops.packed_scan import segment_conv, segment_scan
from ..ops.precision import all_digits
from ..ops.scan import selective_scan

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # range of the first step sizes in mamba_ssm


class Mamba(nn.Module):
    """A selective state space mixer, without norm and residual.

    Padding changes nothing. At a padded position the inner channels are zero before the
    convolution. The step is zero too, so that the state does not change.

    Args:
        width: W.
        d_state: N.
        d_conv: width of the causal convolution.
        expand: the inner width E is ``expand * W``.
        dt_init: how step sizes are initialised. With ``mamba4rec`` every step is near
            softplus(0) = 0.69. The official Mamba4Rec gets this by drawing all linear layers from
            N(0, 0.02) with zero bias. With ``mamba_ssm`` steps are log-uniform in [0.001, 0.1].

    Raises:
        ValueError: a size is below 1, or ``dt_init`` is unknown.
    """

    def __init__(
        self,
        width: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_init: str = "mamba4rec",
    ) -> None:
        super().__init__()
        check_choice("mamba4rec", "mamba_ssm", dt_init=dt_init)
        check_sizes(d_state=d_state, d_conv=d_conv, expand=expand)
        inner, rank = expand * width, math.ceil(width / 16)
        self.dt_init = dt_init
        self.split = (rank, d_state, d_state)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, d_state))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        for parameter in (self.A_log, self.D):
            setattr(parameter, "_no_weight_decay", True)  # noqa: B010 - torch has no such field
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise every parameter. FuxiCTR calls this after its own reset, which zeroes some."""
        for linear in (self.in_proj, self.x_proj, self.dt_proj, self.out_proj):
            nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.dt_proj.bias)
        self.conv1d.reset_parameters()
        inner, d_state = self.A_log.shape
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1, d_state + 1).log().expand(inner, d_state))
            self.D.fill_(1.0)
            if self.dt_init == "mamba_ssm":
                bound = self.split[0] ** -0.5
                self.dt_proj.weight.uniform_(-bound, bound)
                low, high = math.log(DT_MIN), math.log(DT_MAX)
                step = torch.empty(inner).uniform_(low, high).exp().clamp(min=DT_FLOOR)
                self.dt_proj.bias.copy_(step + (-(-step).expm1()).log())  # softplus^-1

    def forward(self, x_BLW: Tensor, real: Tensor | Segments, last: bool = False) -> Tensor:
        """The mixed sequence ``(B, L, W)``, or with ``last`` its newest position ``(B, 1, W)``.

        Args:
            x_BLW: the sequence, or a packed history ``(1, P, W)``, which needs ``last``.
            real: the mask of real positions ``(B, L)``, or the ``Segments`` of a packed history.
            last: compute gate and output at the newest position only.

        Raises:
            ValueError: the history is packed, but ``last`` is False.
        """
        weight_x, weight_z = self.in_proj.weight.chunk(2)
        taps_EK, bias_E = self.conv1d.weight[:, 0], cast(Tensor, self.conv1d.bias)
        if isinstance(real, Segments):
            if not last:
                raise ValueError("a packed history gives only newest outputs; write last=True")
            u_BLE = segment_conv(F.linear(x_BLW, weight_x), taps_EK, bias_E, real.age_P)
        else:
            x_BLW = x_BLW * real[:, :, None].to(x_BLW.dtype)
            u_BLE = causal_conv(F.linear(x_BLW, weight_x), taps_EK, bias_E)
        u_BLE = F.silu(u_BLE)
        # C is needed only where an output is read.
        x_BRW, u_BRE = x_BLW, u_BLE
        if last:
            x_BRW, u_BRE = (newest(x, real) for x in (x_BLW, u_BLE))
        rank, N, _ = self.split
        weight_dtB, weight_C = self.x_proj.weight.split([rank + N, N])
        dt_BLR, B_BLN = F.linear(u_BLE, weight_dtB).split([rank, N], dim=-1)
        C_BRN = F.linear(u_BRE, weight_C)
        delta_BLE = F.softplus(self._steps(dt_BLR))
        A_EN = -self.A_log.exp()
        if isinstance(real, Segments):
            y_BRE = segment_scan(u_BLE, delta_BLE, A_EN, B_BLN, C_BRN, real.start_B, real.stop_B)
            y_BRE = torch.addcmul(y_BRE, self.D, u_BRE).to(u_BLE.dtype)
        else:
            y_BRE = scan(last, u_BLE, delta_BLE, A_EN, B_BLN, C_BRN, self.D, real)
        return self.out_proj(y_BRE * F.silu(F.linear(x_BRW, weight_z)))

    def _steps(self, dt_BLR: Tensor) -> Tensor:
        """Compute ``dt_proj(dt_BLR)`` with a contiguous transposed weight.

        On a CPU, the gradient of such a narrow matrix then takes a tenth of the time.
        """
        weight_RE = self.dt_proj.weight.T.contiguous()
        delta_PE = torch.addmm(self.dt_proj.bias, dt_BLR.flatten(0, 1), weight_RE)
        return delta_PE.view(*dt_BLR.shape[:2], -1)


def newest(x_BLW: Tensor, real: Tensor | Segments) -> Tensor:
    """The newest position of each sample, ``(B, 1, W)``; ``real`` as in ``Mamba``."""
    return real.newest(x_BLW) if isinstance(real, Segments) else x_BLW[:, -1:]


@uncompiled
def scan(last: bool, u_BLE: Tensor, *others: Tensor) -> Tensor:
    """Call ``selective_scan`` in full precision, also under mixed precision."""
    with all_digits(u_BLE):
        return selective_scan(u_BLE, *others, last=last)
