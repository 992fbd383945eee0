"""What a step does with a GPU: how long its kernels run, and its peak memory."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from .floor import Work


def describe_use(
    step: Callable[[], object], seconds: list[float], work: Work, device: torch.device
) -> str:
    """One more step, in words: share of the time with a kernel at work, FLOP/s, memory.

    Args:
        seconds: of the step, as they were timed without a profiler.
        work: what has to be done.
    """
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize(device)
    kernel_s = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    peak = torch.cuda.max_memory_allocated(device) - held
    time_s = median(seconds)
    return (
        f"kernels {kernel_s / time_s:.0%} of a step, {work.flops / time_s / 1e9:,.0f} GFLOP/s, at least "
        f"{work.bytes / time_s / 1e9:,.1f} GB/s, peak memory {peak / 2**30:.2f} GiB beside the model"
    )
