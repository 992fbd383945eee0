"""How the cost of a train step grows with the length of the history and with the number of experts.

Vanilla and MoS of one backbone at MicroVideo1.7M_x2's shape, in turns. A third line shows what routing
each distinct item once is worth: the same MoS on the same batch as a plain dictionary of rows, where no
two positions are known to show the same item. Experts are counted per branch; k = 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import model_zoo
from model_zoo.batch import Batch

from ..common.errors import UserError
from . import microvideo
from .step import build, model_options, our_step
from .timing import Report, alternate

BACKBONES = ("TWIN", "SDIM", "TransAct", "Mamba4Rec")
VANILLA, MOS, POSITIONS = "vanilla", "MoS", "MoS, positions routed"
LENGTHS, EXPERTS = (100, 200, 500, 1000, 2000), (1, 2, 4, 8, 16)


def measure(
    backbone: str,
    lengths: list[int],
    experts: list[int],
    batch_size: int,
    repeats: int,
    device: torch.device,
) -> Report:
    """See the module.

    Args:
        backbone: one of ``BACKBONES``.
        lengths: history lengths, with five experts per branch.
        experts: numbers of experts per branch, at the length of ``_middle``.
        batch_size: B.
        repeats: rounds.
        device: where it runs.
    """
    if backbone not in BACKBONES:
        raise UserError(f"--model {backbone}: write one of {', '.join(BACKBONES)}")
    middle = _middle(lengths)
    seconds: dict[str, list[float]] = {}
    for length in lengths:
        seconds |= _times(backbone, length, [5], batch_size, repeats, device, positions=True)
    seconds |= _times(backbone, middle, experts, batch_size, repeats, device, positions=False)
    ratios = {
        f"{MOS} / {VANILLA}, length {length}": (_name(MOS, length, 5), _name(VANILLA, length), "")
        for length in lengths
    }
    few, many = (_name(MOS, middle, count) for count in (min(experts), max(experts)))
    ratios[f"{max(experts)} experts / {min(experts)}, length {middle}"] = (many, few, "")
    longest = max(lengths)
    ratios[f"positions / distinct items routed, length {longest}"] = (
        _name(POSITIONS, longest, 5),
        _name(MOS, longest, 5),
        "",
    )
    return Report(
        title=f"Growth of a train step: {backbone}, MicroVideo1.7M_x2's shape",
        settings={"batch": batch_size, "device": str(device), "repeats": repeats},
        samples=batch_size,
        seconds=seconds,
        ratios=ratios,
    )


def plot(report: Report, lengths: list[int], experts: list[int], file: Path) -> None:
    """Milliseconds per step against length and against experts, medians."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    middle = _middle(lengths)

    def milliseconds(name: str) -> float:
        return 1000 * median(report.seconds[name])

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for label, style in ((VANILLA, "o-"), (MOS, "s-"), (POSITIONS, "^--")):
        count = None if label == VANILLA else 5
        times = [milliseconds(_name(label, length, count)) for length in lengths]
        left.plot(lengths, times, style, label=label)
    left.set(xlabel="history length", ylabel="ms per train step", xscale="log", yscale="log")
    left.set_xticks(lengths, [str(length) for length in lengths])
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.minorticks_off()
    left.legend()
    right.axhline(milliseconds(_name(VANILLA, middle)), linestyle=":", color="0.4", label=VANILLA)
    times = [milliseconds(_name(MOS, middle, count)) for count in experts]
    right.plot(experts, times, "s-", color="C1", label=MOS)
    right.set(xlabel=f"experts per branch (length {middle})", xscale="log", ylim=(0, None))
    right.set_xticks(experts, [str(count) for count in experts])
    right.minorticks_off()
    right.legend()
    figure.suptitle(report.title)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UserError(f"--plot {file}: cannot be written ({error})") from None
    plt.close(figure)


def _times(
    backbone: str,
    length: int,
    experts: list[int],
    batch_size: int,
    repeats: int,
    device: torch.device,
    positions: bool,
) -> dict[str, list[float]]:
    """Seconds of the cases of one length, in turns."""
    batch = microvideo.random_batch(batch_size, length, device)
    plain = (batch[0], dict(batch[1]), batch[2])
    with tempfile.TemporaryDirectory() as folder:  # of checkpoints; none is written
        options = model_options(backbone, folder, device) | {"max_len": length}
        vanilla = build(model_zoo.get_model(backbone), options)
        cases = {_name(VANILLA, length): our_step(vanilla, batch)}
        for count in experts:
            options = model_options(f"{backbone}_MoS", folder, device) | {"max_len": length}
            cases[_name(MOS, length, count)] = _mos_step(backbone, options, count, batch)
            if positions:
                cases[_name(POSITIONS, length, count)] = _mos_step(backbone, options, count, plain)
        for case in cases.values():
            case()
        return alternate(cases, repeats, device)


def _mos_step(
    backbone: str, options: dict[str, Any], experts: int, batch: Batch
) -> Callable[[], torch.Tensor]:
    model = build(model_zoo.get_model(f"{backbone}_MoS"), options | {"num_experts": experts})
    model.before_experts([batch], seed=0)
    return our_step(model, batch)


def _middle(lengths: list[int]) -> int:
    """At which length experts are counted: the shortest above 100, or the longest."""
    return min([length for length in lengths if length > 100], default=max(lengths))


def _name(label: str, length: int, experts: int | None = None) -> str:
    count = "" if experts is None else f", {experts} experts"
    return f"{label}, length {length}{count}"
