"""The train step of whole models on data of MicroVideo1.7M_x2's shape.

A step is forward, backward, regulariser, gradient clipping and Adam on a batch that is there already.
Hyper-parameters are those of the shipped experiments, which are LongCTR's published ones.

Shape suffix: N items of the table.
"""

from argparse import Namespace
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import model_zoo
from model_zoo.batch import Batch
from model_zoo.registry import OURS, variant
from model_zoo.training.checkpoints import from_longctr
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.steps import Stepper
from model_zoo.training.trainable import Trainable

from ..config.read import read_yaml
from . import rivals
from .harness import FLOAT, Case, Report
from .inputs import EVENTS, ITEMS, WIDTH, Draw, RandomBatch, evenly, feature_map, random_batch

TOLERANCE = 1e-4
MAX_GRADIENT_NORM = 10.0
# Over the parameters: the gradient written; it, the parameter and two moments read; three written.
ADAM_PASSES = 8


class Subject(NamedTuple):
    """A model to time.

    Attributes:
        model: its vanilla class.
        goal: for the time of LongCTR's model over ours; empty if it has none.
        mixture_goal: for the time of its MoS over ours; empty if that is not timed.
        signals: whether it is timed with each of ``SIGNALS``, too.
        share: part of ``--batch`` that it gets; LongCTR's TransAct is slow.
        changes: hyper-parameters that differ from the shipped experiment.
    """

    model: str
    goal: str = ""
    mixture_goal: str = ""
    signals: bool = False
    share: float = 1.0
    changes: Mapping[str, Any] = {}


KNOWN = read_yaml(Path(__file__).with_name("subjects.yaml"))
SUBJECTS = {name: Subject(**about) for name, about in KNOWN.items()}
# What a model may read beside items: its keys, and the goal for the time of a step with it.
SIGNALS: dict[str, tuple[dict[str, Any], str]] = {
    "match features": ({"match_features": True}, "at most 1.05"),
    "three event features": (
        {"event_cols": [{"name": name, "vocab_size": n} for name, n in EVENTS.items()]},
        "at most 1.25",
    ),
}
FIVE = 5  # experts per branch, where lengths differ
MIXTURE, POSITIONS = f"{OURS}, {FIVE} experts", f"{OURS}, {FIVE} experts, positions routed"
LINES = {"vanilla": "o-", MIXTURE: "s-", POSITIONS: "^--"}  # of the plot
BATCHES = 8  # that take turns, with tables of different sizes


def step(report: Report, args: Namespace) -> None:
    """Train step: forward, backward, optimiser; MicroVideo1.7M_x2's shape.

    Each model takes turns with its rival, LongCTR's model, with its MoS, and with itself where it reads
    what matches or features of events, all on the same batch.
    LongCTR's model gets item features as a plain dictionary of rows, which is built beforehand. Ours
    gets item indices and gathers within the step. Before anything is timed, the rival's weights are
    loaded into our model, and the predictions of both are compared in evaluation mode. For that ours
    runs with longctr_compat, which repeats LongCTR's short mask.
    """
    for name in args.models:
        subject, ours = SUBJECTS[name], f"our {name}"
        samples = max(1, round(subject.share * args.batch))
        batch = random_batch(samples, args.length, args.device)
        changes = {**subject.changes, "max_len": args.length}
        own = changes | {"amp": args.amp, "compile": args.compile}
        cases = [step_case(ours, build(subject.model, args, **own), batch)]
        if args.longctr and subject.goal:
            rival = build(subject.model, args, args.longctr, **changes)
            compatible = build(subject.model, args, **changes, longctr_compat=True)
            compatible.load_state_dict(from_longctr(compatible, rival.state_dict()))
            pair = _prediction(compatible, batch), _prediction(rival, _plain(batch))
            report.agree(f"predictions, {name}", *pair, TOLERANCE)
            over = {ours: subject.goal}
            cases.insert(0, step_case(f"LongCTR's {name}", rival, batch, over, plain=True))
        if subject.mixture_goal:
            mixture = build(variant(subject.model, OURS), args, **own)
            over = {ours: subject.mixture_goal}
            cases.append(step_case(f"{ours}, {OURS}", mixture, batch, over))
        for signal, (keys, goal) in SIGNALS.items() if subject.signals else ():
            reader = build(subject.model, args, **own, **keys)
            cases.append(step_case(f"{ours}, {signal}", reader, batch, {ours: goal}))
        report.time(cases, samples)


@torch.no_grad()
def _prediction(model: Any, batch: Batch) -> list[Tensor]:
    """Return what a model predicts in evaluation mode."""
    torch.manual_seed(0)  # for hashes that are drawn anew
    found = model.eval()(batch)["y_pred"]
    model.train()
    return [found]


def growth(report: Report, args: Namespace) -> None:
    """Growth of a train step with the length of the history and with the number of experts.

    Vanilla and MoS of one backbone take turns. A third line shows what routing each distinct item once
    is worth: the same MoS on the same batch as a plain dictionary of rows, where no two positions are
    known to show the same item. Experts are counted per branch; k = 1. They vary at the shortest length
    above 100.
    """
    middle, mixture = _middle(args.lengths), variant(args.model, OURS)
    for length in sorted(args.lengths):
        at, batch = f", length {length}", random_batch(args.batch, length, args.device)
        cases = [step_case(f"vanilla{at}", build(args.model, args, max_len=length), batch)]
        numbers = {FIVE, *args.experts} if length == middle else {FIVE}
        counts = {f"{OURS}, {n} experts": n for n in sorted(numbers)}
        over = {MIXTURE: {f"vanilla{at}": ""}, POSITIONS: {MIXTURE + at: ""}}
        for name, count in (counts | {POSITIONS: FIVE}).items():
            model = build(mixture, args, max_len=length, num_experts=count)
            cases.append(step_case(name + at, model, batch, over.get(name, {}), name == POSITIONS))
        report.time(cases, args.batch)
    ends = max(args.experts), min(args.experts)
    report.compare(*(f"{OURS}, {count} experts, length {middle}" for count in ends))


def _middle(lengths: Iterable[int]) -> int:
    """Return the length at which experts vary: the shortest above 100."""
    return min((length for length in lengths if length > 100), default=max(lengths))


def plot(report: Report, args: Namespace) -> None:
    """Draw the median milliseconds of a step by length and by experts, into ``args.plot``."""
    from matplotlib.figure import Figure

    lengths, experts = sorted(args.lengths), sorted(args.experts)
    middle = _middle(lengths)

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
    names = (f"{OURS}, {count} experts, length {middle}" for count in experts)
    right.plot(experts, milliseconds(names), "s-", color="C1", label=OURS)
    right.set(xlabel=f"experts per branch (length {middle})", xscale="log", ylim=(0, None))
    for axes, ticks in ((left, lengths), (right, experts)):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend()
    figure.suptitle(f"Growth of a train step: {args.model}, MicroVideo1.7M_x2's shape")
    figure.savefig(args.plot)


def table(report: Report, args: Namespace) -> None:
    """Train step of TWIN by size of the item table (--rows), with sparse_embedding.

    A large table differs from a small one in two ways: it is large, and a batch shows more distinct
    items of it. So the step is compared on items drawn by popularity, as in most logs; on items drawn
    evenly, hardly one twice, which is the worst case; and on as many distinct items as the small table
    has. Batches take turns, so that no cache holds the rows of the next.
    """
    report.notes.append("distinct items of a batch:")
    small, cases = min(args.rows), []
    for rows in sorted(args.rows):
        train = train_step(build("TWIN", args, items=rows, sparse_embedding=True))
        draws: dict[str, Draw] = {"by popularity": by_popularity, "evenly": evenly}
        draws |= {f"{small:,} items": from_few(small)} if rows > small else {}
        for way, draw in draws.items():
            sizes = (args.batch, args.length, args.device)
            batches = [random_batch(*sizes, rows, draw, seed) for seed in range(BATCHES)]
            for batch in batches[1:]:  # the first one is the warm-up of the harness
                train(batch)
            name, steps = f"{rows:,} rows, {way}", map(train, cycle(batches))
            rival = way if way == "by popularity" else "evenly"
            over = {f"{small:,} rows, {rival}": "at most 1.5"} if rows > small else {}
            cases.append(Case(name, steps.__next__, over))
            report.notes.append(f"  {name}: {len(batches[0][1].index.unique()):,}")
    report.time(cases, args.batch)


def by_popularity(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Draw by Zipf's law: the n-th most popular item comes about 1 / n times as often as the first.

    Popular items are scattered over the table, in the same places every time.
    """
    rank = (rows - 1) ** torch.rand(shape, generator=g, dtype=torch.float64)
    item_N = torch.randperm(rows - 1, generator=torch.Generator().manual_seed(0)) + 1
    return item_N[rank.long().clamp(max=rows - 1) - 1]


def from_few(count: int) -> Draw:
    """Make a function that draws evenly from ``count`` items, which differ from batch to batch."""

    def draw(rows: int, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
        return evenly(rows, (count,), g)[torch.randint(count, shape, generator=g)]

    return draw


# ---------------------------------------------------------------- a step, for other commands too


def build(name: str, args: Namespace, checkout: str = "", items: int = ITEMS, **keys: Any) -> Any:
    """Build a model in training mode, always with the same first weights.

    Args:
        name: of the model.
        args: the command's options, which name the device and the folder for checkpoints.
        checkout: LongCTR's root folder, if its model of this name is wanted instead of ours.
        items: rows of the item table.
        keys: hyper-parameters that differ from the shipped experiment's.
    """
    options = rivals.published(name) | {"metrics": ["AUC"], "verbose": 0}
    options |= {"model_root": str(args.folder), "gpu": 0 if args.device.type == "cuda" else -1}
    model_class: Any = model_zoo.get_model(name)
    if checkout:
        model_class = rivals.load_class(checkout, f"{name}/{name}.py", name)
    torch.manual_seed(0)
    return model_class(feature_map(items), **options | keys).train()


def train_step(model: Any) -> Any:
    """Make a function that trains a model on a batch, for our models as for LongCTR's."""
    if not isinstance(model, Trainable):
        model._max_gradient_norm = MAX_GRADIENT_NORM  # as FuxiCTR's ``fit`` sets it before it
        model._batch_index = 0
        return model.train_step
    stepper = Stepper(model, build_optimizer(model), MAX_GRADIENT_NORM)
    return lambda batch: stepper.step(batch, step=1, steps=1)


def step_case(
    name: str, model: Any, batch: RandomBatch, over: Mapping[str, str] = {}, plain: bool = False
) -> Case:
    """Make a case of a train step; a mixture is in its joint stage, with codes of k-means.

    Args:
        name: of the case.
        model: ours or LongCTR's.
        batch: what it trains on.
        over: as in ``Case``.
        plain: give it item features as a plain dictionary of rows, as LongCTR does.
    """
    given: Batch = _plain(batch) if plain else batch
    if hasattr(model, "before_experts"):
        model.before_experts([given], seed=0)
    train, width, index = train_step(model), 3 * WIDTH, batch[1].index
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # An embedding and a gradient of each distinct item; of each position its index and its item.
    items = 2 * FLOAT * len(index.unique()) * width + index.numel() * (8 + FLOAT * width)
    return Case(name, lambda: train(given), over, ADAM_PASSES * FLOAT * parameters + items)


def _plain(batch: RandomBatch) -> Batch:
    return batch[0], dict(batch[1]), batch[2]
