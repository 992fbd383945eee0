"""How the cost of a train step grows with the length of the history and with the number of experts.

Vanilla and MoS of one backbone take turns on data of MicroVideo1.7M_x2's shape. A third line shows what
routing each distinct item once is worth: the same MoS on the same batch as a plain dictionary of rows,
where no two positions are known to show the same item. Experts are counted per branch; k = 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import model_zoo
from model_zoo.batch import Batch

from ..common.errors import UserError
from .harness import COMMON, Case, Report
from .inputs import random_batch
from .step_cases import build, step_case

FIVE = 5  # experts per branch, where lengths differ
MOS, POSITIONS = f"MoS, {FIVE} experts", f"MoS, {FIVE} experts, positions routed"
LINES = {"vanilla": "o-", MOS: "s-", POSITIONS: "^--"}
DEFAULTS = COMMON | {"model": "TWIN", "lengths": [100, 200, 500, 1000, 2000]}
DEFAULTS |= {"experts": [1, 2, 4, 8, 16], "plot": None}


def measure(args: argparse.Namespace) -> Report:
    """Time a step at each length, and with each number of experts at one length."""
    if f"{args.model}_MoS" not in model_zoo.MODELS:
        backbones = (name for name in model_zoo.MODELS if f"{name}_MoS" in model_zoo.MODELS)
        raise UserError(f"--model {args.model}: write one of {', '.join(backbones)}")
    report = Report(f"Growth of a train step: {args.model}, MicroVideo1.7M_x2's shape", args)
    lengths, experts, middle = _axes(args)
    for length in lengths:
        counts = sorted({FIVE, *experts}) if length == middle else [FIVE]
        report.time(_cases(length, counts, args), args.batch, args.repeats)
    few, many = (f"MoS, {count} experts, length {middle}" for count in (experts[0], experts[-1]))
    report.compare(many, few)
    return report


def _cases(length: int, counts: list[int], args: argparse.Namespace) -> list[Case]:
    """The cases of one length; MoS with each number of experts."""
    at, batch = f", length {length}", random_batch(args.batch, length, args.device)
    plain, seen = (batch[0], dict(batch[1]), batch[2]), len(batch[1].index.unique())
    cases = [step_case(f"vanilla{at}", build(args.model, args, max_len=length), batch, seen)]
    inputs: dict[str, tuple[int, Batch]] = {f"MoS, {n} experts": (n, batch) for n in counts}
    inputs[POSITIONS] = (FIVE, plain)
    over = {MOS: {f"vanilla{at}": ""}, POSITIONS: {MOS + at: ""}}
    for name, (count, data) in inputs.items():
        mixture = build(f"{args.model}_MoS", args, max_len=length, num_experts=count)
        cases.append(step_case(name + at, mixture, data, seen, over.get(name)))
    return cases


def _axes(args: argparse.Namespace) -> tuple[list[int], list[int], int]:
    """Lengths, numbers of experts, and the length at which experts vary: the shortest above 100."""
    lengths, experts = sorted(args.lengths), sorted(args.experts)
    middle = min((length for length in lengths if length > 100), default=lengths[-1])
    return lengths, experts, middle


def plot(report: Report, args: argparse.Namespace) -> None:
    """Draw the median milliseconds of a step by length and by experts, into ``args.plot``."""
    from matplotlib.figure import Figure

    lengths, experts, middle = _axes(args)

    def milliseconds(names: Iterable[str]) -> list[float]:
        return [1000 * report.times[name]["median_s"] for name in names]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, style in LINES.items():
        names = (f"{label}, length {length}" for length in lengths)
        left.plot(lengths, milliseconds(names), style, label=label)
    left.set(xlabel="history length", ylabel="ms per train step", xscale="log", yscale="log")
    left.yaxis.set_major_formatter("{x:g}")
    (flat,) = milliseconds([f"vanilla, length {middle}"])
    right.axhline(flat, linestyle=":", color="0.4", label="vanilla")
    names = (f"MoS, {count} experts, length {middle}" for count in experts)
    right.plot(experts, milliseconds(names), "s-", color="C1", label="MoS")
    right.set(xlabel=f"experts per branch (length {middle})", xscale="log", ylim=(0, None))
    for axes, ticks in ((left, lengths), (right, experts)):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend()
    figure.suptitle(report.title)
    try:
        figure.savefig(args.plot)
    except (OSError, ValueError) as error:
        raise UserError(f"--plot {args.plot}: cannot be written ({error})") from None
