"""The kernels of ``packed_scan`` in Triton; import this module only where Triton is installed.

A program works on a block of channels, and on one segment or some positions. No two programs add to
the same number. For a sum over programs, each writes its part to a place of its own.

Shape suffixes: P positions of all segments, S segments, T positions of a tile, E channels, N state,
K taps, J blocks of channels, G tiles.
"""

import triton
import triton.language as tl

INFINITY: tl.constexpr = tl.constexpr(float("inf"))


@triton.jit
def conv_forward(
    x_PE, taps_KE, bias_E, age_P, out_PE, P, E, K: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """``out_t = bias + sum_k taps[K-1-k] x_{t-k}``, over the k that stay in the segment of t."""
    p_T = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    e_E = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at_TE, real_E = p_T[:, None] * E + e_E[None, :], (e_E < E)[None, :]
    age_T = tl.load(age_P + p_T, p_T < P, other=-1)
    out_TE = tl.zeros([TILE, BLOCK], x_PE.dtype.element_ty)
    out_TE += tl.load(bias_E + e_E, e_E < E, other=0.0)[None, :]
    for k in tl.static_range(K):
        tap_E = tl.load(taps_KE + (K - 1 - k) * E + e_E, e_E < E, other=0.0)
        x_TE = tl.load(x_PE + at_TE - k * E, (age_T >= k)[:, None] & real_E, other=0.0)
        out_TE += x_TE * tap_E[None, :]
    tl.store(out_PE + at_TE, out_TE, (p_T < P)[:, None] & real_E)


@triton.jit
def conv_backward(
    x_PE, taps_KE, age_P, dout_PE, dx_PE, dtaps_GKE, P, E,
    K: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The gradients of x, the taps and the bias, which is the last of a program's K + 1 rows."""
    p_T = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    e_E = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at_TE, real_E = p_T[:, None] * E + e_E[None, :], (e_E < E)[None, :]
    real_TE = (p_T < P)[:, None] & real_E
    age_T = tl.load(age_P + p_T, p_T < P, other=-1)
    dout_TE = tl.load(dout_PE + at_TE, real_TE, other=0.0)
    dtaps_E = dtaps_GKE + tl.program_id(0).to(tl.int64) * (K + 1) * E + e_E
    tl.store(dtaps_E + K * E, tl.sum(dout_TE, 0), e_E < E)
    dx_TE = tl.zeros_like(dout_TE)
    for k in tl.static_range(K):
        x_TE = tl.load(x_PE + at_TE - k * E, (age_T >= k)[:, None] & real_E, other=0.0)
        tl.store(dtaps_E + (K - 1 - k) * E, tl.sum(dout_TE * x_TE, 0), e_E < E)
        tap_E = tl.load(taps_KE + (K - 1 - k) * E + e_E, e_E < E, other=0.0)
        reached_T = tl.load(age_P + p_T + k, p_T + k < P, other=-1) >= k
        later_TE = tl.load(dout_PE + at_TE + k * E, reached_T[:, None] & real_E, other=0.0)
        dx_TE += later_TE * tap_E[None, :]
    tl.store(dx_PE + at_TE, dx_TE, real_TE)


@triton.jit
def scan_forward(
    u_PE, delta_PE, rate_NE, slowest_N, B_PN, C_SN, start_S, stop_S,
    later_PE, y_SE, E, N, zero_below, TILE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """``y = sum_t weight_t delta_t u_t`` of a segment, from its newest tile to its oldest.

    Here ``weight_t = sum_n C[n] B_t[n] 2^(later_t rate[n])``. A state whose power of 2 rounds to
    zero in a whole tile is skipped. There are many, except at the newest positions.
    """
    segment = tl.program_id(0).to(tl.int64)
    e_E = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start, stop = tl.load(start_S + segment), tl.load(stop_S + segment)
    y_E = tl.zeros([BLOCK], u_PE.dtype.element_ty)
    carried_E = tl.zeros([BLOCK], u_PE.dtype.element_ty)  # the steps that newer tiles have read
    for tile in range(tl.cdiv(stop - start, TILE)):
        p_T = stop - (tile + 1) * TILE + tl.arange(0, TILE)
        at_TE = p_T[:, None] * E + e_E[None, :]
        real_TE = (p_T >= start)[:, None] & (e_E < E)[None, :]
        next_TE = tl.load(delta_PE + at_TE + E, real_TE & (p_T + 1 < stop)[:, None], other=0.0)
        later_TE = tl.cumsum(next_TE, 0, reverse=True) + carried_E[None, :]
        carried_E += tl.sum(next_TE, 0)
        tl.store(later_PE + at_TE, later_TE, real_TE)
        shortest = tl.min(tl.where(real_TE, later_TE, INFINITY))
        weight_TE = tl.zeros_like(later_TE)
        for n in range(N):
            largest = shortest * tl.load(slowest_N + n)
            if (largest > zero_below) | (largest != largest):  # do not skip NaN
                rate_E = tl.load(rate_NE + n * E + e_E, e_E < E, other=0.0)
                B_T = tl.load(B_PN + p_T * N + n, p_T >= start, other=0.0)
                G_T = B_T * tl.load(C_SN + segment * N + n)
                weight_TE += tl.exp2(later_TE * rate_E[None, :]) * G_T[:, None]
        delta_TE = tl.load(delta_PE + at_TE, real_TE, other=0.0)
        u_TE = tl.load(u_PE + at_TE, real_TE, other=0.0)
        y_E += tl.sum(weight_TE * delta_TE * u_TE, 0)
    tl.store(y_SE + segment * E + e_E, y_E, e_E < E)


@triton.jit
def scan_backward(
    u_PE, delta_PE, rate_NE, slowest_N, B_PN, C_SN, start_S, stop_S, later_PE, dy_SE,
    du_PE, ddelta_PE, drate_SNE, dB_JPN, dC_JSN, P, E, N, zero_below,
    TILE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The gradients of the scan, from the oldest tile to the newest.

    The gradient of rate lacks a factor ln 2. The memory for the gradients of rate, B and C must be
    zero before.
    """
    segment = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    e_E = block * BLOCK + tl.arange(0, BLOCK)
    start, stop = tl.load(start_S + segment), tl.load(stop_S + segment)
    dy_E = tl.load(dy_SE + segment * E + e_E, e_E < E, other=0.0)
    carried_E = tl.zeros([BLOCK], u_PE.dtype.element_ty)  # gradient of later, from older positions
    for tile in range(tl.cdiv(stop - start, TILE)):
        p_T = start + tile * TILE + tl.arange(0, TILE)
        at_TE = p_T[:, None] * E + e_E[None, :]
        real_TE = (p_T < stop)[:, None] & (e_E < E)[None, :]
        later_TE = tl.load(later_PE + at_TE, real_TE, other=0.0)
        delta_TE = tl.load(delta_PE + at_TE, real_TE, other=0.0)
        u_TE = tl.load(u_PE + at_TE, real_TE, other=0.0)
        dweight_TE = delta_TE * u_TE * dy_E[None, :]
        shortest = tl.min(tl.where(real_TE, later_TE, INFINITY))
        weight_TE, dlater_TE = tl.zeros_like(later_TE), tl.zeros_like(later_TE)
        for n in range(N):
            largest = shortest * tl.load(slowest_N + n)
            if (largest > zero_below) | (largest != largest):
                rate_E = tl.load(rate_NE + n * E + e_E, e_E < E, other=0.0)
                B_T = tl.load(B_PN + p_T * N + n, p_T < stop, other=0.0)
                C = tl.load(C_SN + segment * N + n)
                term_TE = tl.exp2(later_TE * rate_E[None, :])
                weight_TE += term_TE * (B_T * C)[:, None]
                term_TE *= dweight_TE
                dG_T = tl.sum(term_TE, 1)
                tl.store(dB_JPN + (block * P + p_T) * N + n, dG_T * C, p_T < stop)
                dC = dC_JSN + (block * tl.num_programs(0) + segment) * N + n
                tl.store(dC, tl.load(dC) + tl.sum(dG_T * B_T))
                term_TE *= (B_T * C)[:, None]
                dlater_TE += term_TE * rate_E[None, :]
                drate_E = drate_SNE + (segment * N + n) * E + e_E
                found_E = tl.load(drate_E, e_E < E, other=0.0) + tl.sum(term_TE * later_TE, 0)
                tl.store(drate_E, found_E, e_E < E)
        dx_TE = weight_TE * dy_E[None, :]
        tl.store(du_PE + at_TE, dx_TE * delta_TE, real_TE)
        dlater_TE *= 0.6931471805599453
        # Shift the cumulative sum. Subtracting each position's own part from it would lose digits.
        t_TE = tl.arange(0, TILE)[:, None] + tl.zeros([TILE, BLOCK], tl.int32)
        before_TE = tl.gather(tl.cumsum(dlater_TE, 0), tl.maximum(t_TE - 1, 0), 0)
        older_TE = tl.where(t_TE > 0, before_TE, 0.0) + carried_E[None, :]
        carried_E += tl.sum(dlater_TE, 0)
        tl.store(ddelta_PE + at_TE, dx_TE * u_TE + older_TE, real_TE)
