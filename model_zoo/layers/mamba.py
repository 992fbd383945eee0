"""The Mamba mixer (Gu and Dao, 2023) for left-padded sequences, names as in ``mamba_ssm``.

Shape suffixes: B samples, L positions, W width, E inner channels, N state size, R rank of the step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.packed import Segments
from ..ops.causal_conv import causal_conv
from ..ops.compiled import uncompiled
from ..ops.packed_scan import segment_conv, segment_scan
from ..ops.precision import all_digits
from ..ops.scan import selective_scan
from ..ops.scan_last import selective_scan_last

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # the steps that mamba_ssm starts from


class Mamba(nn.Module):
    """Selective state space mixer; there is no norm or residual inside.

    Padding is exact: the inner channels are zero there before the convolution, and the step is zero,
    so that the state stays as it is.

    Args:
        width: W.
        d_state: N.
        d_conv: width of the causal convolution.
        expand: E / W.
        dt_init: ``mamba4rec`` starts every step near softplus(0) = 0.69, as the official Mamba4Rec
            does by drawing all linear layers from N(0, 0.02) with zero bias; ``mamba_ssm`` starts
            them log-uniform in [0.001, 0.1].
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
        if dt_init not in ("mamba4rec", "mamba_ssm"):
            raise ValueError(f"dt_init={dt_init!r}: write mamba4rec or mamba_ssm")
        for name, size in (("d_state", d_state), ("d_conv", d_conv), ("expand", expand)):
            if size < 1:
                raise ValueError(f"{name}={size}: must be at least 1")
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
            parameter._no_weight_decay = True
        self.init_weights()

    def init_weights(self) -> None:
        """FuxiCTR calls this after its own reset, which would zero the steps and the convolution."""
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
        """The mixed sequence ``(B, L, W)``, or with ``last`` its newest position ``(B, 1, W)``, for
        which gate and output are computed there only.

        Args:
            real: mask of the real positions, ``(B, L)``; or, with ``last``, the samples of a packed
                history ``(1, P, W)``, for which the output is ``(B, 1, W)``, too.

        Raises:
            ValueError: all outputs of a packed history are asked for.
        """
        packed = isinstance(real, Segments)
        if packed and not last:
            raise ValueError("a packed history gives newest outputs only: write last=True")
        if not packed:
            x_BLW = x_BLW * real[:, :, None].to(x_BLW.dtype)
        weight_x, weight_z = self.in_proj.weight.chunk(2)
        taps_EK, bias_E = self.conv1d.weight[:, 0], self.conv1d.bias
        x_BLE = F.linear(x_BLW, weight_x)
        if packed:
            u_BLE = F.silu(segment_conv(x_BLE, taps_EK, bias_E, real.age_P))
        else:
            u_BLE = F.silu(causal_conv(x_BLE, taps_EK, bias_E))
        # C is read where an output is
        x_BRW, u_BRE = x_BLW, u_BLE
        if last:
            x_BRW, u_BRE = (newest(x, real) for x in (x_BLW, u_BLE))
        rank, N, _ = self.split
        weight_dtB, weight_C = self.x_proj.weight.split([rank + N, N])
        dt_BLR, B_BLN = F.linear(u_BLE, weight_dtB).split([rank, N], dim=-1)
        C_BRN = F.linear(u_BRE, weight_C)
        delta_BLE = F.softplus(self._steps(dt_BLR))
        A_EN = -self.A_log.exp()
        if packed:
            y_BRE = segment_scan(u_BLE, delta_BLE, A_EN, B_BLN, C_BRN, real.start_S, real.stop_S)
            y_BRE = torch.addcmul(y_BRE, self.D, u_BRE).to(u_BLE.dtype)
        else:
            y_BRE = scan(last, u_BLE, delta_BLE, A_EN, B_BLN, C_BRN, self.D, real)
        return self.out_proj(y_BRE * F.silu(F.linear(x_BRW, weight_z)))

    def _steps(self, dt_BLR: Tensor) -> Tensor:
        """``dt_proj``, multiplied from the other side: on a CPU the gradient of a matrix as narrow
        as this one then takes a tenth of the time."""
        weight_RE = self.dt_proj.weight.T.contiguous()
        delta_PE = torch.addmm(self.dt_proj.bias, dt_BLR.flatten(0, 1), weight_RE)
        return delta_PE.view(*dt_BLR.shape[:2], -1)


def newest(x_BLW: Tensor, real: Tensor | Segments) -> Tensor:
    """The newest position of each sample, ``(B, 1, W)``; ``real`` as in ``Mamba``."""
    return real.newest(x_BLW) if isinstance(real, Segments) else x_BLW[:, -1:]


@uncompiled
def scan(last: bool, u_BLE: Tensor, *others: Tensor) -> Tensor:
    """All outputs of the selective scan, or with ``last`` the newest: ``(B, L or 1, E)``."""
    with all_digits(u_BLE):
        return (selective_scan_last if last else selective_scan)(u_BLE, *others)
