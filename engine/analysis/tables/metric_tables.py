"""The tables of metrics: Tables 1 and 2 of the paper, what single keys change, and the trials of tuning.

The first three have models by row; data sets and metrics by column, beside what others published. They
differ in their cells, in who is compared with whom, and in the split. Each table is None if no data set has
what it shows.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from model_zoo.registry import OURS, backbone_of, label, mixture_of, variant

from ...baseline.record import ALL, by_user
from ..results import METRICS, Cell, DatasetResults
from ..wording import conditions, oddities, ordered_backbones, ordered_models, row_labels, sentences
from .comparison import Group, Standing, compare
from .grid import Column, Entry, Table, grouped, header, plus_minus, points, settings, tested
from .published import Published, models_of, published

SOURCES = {"paper": "paper", "longctr": "LongCTR"}  # fields of ``Published``, and their headings
PRINTED = ("table1", "table2")  # tables with numbers of others
SPLITS = {"test": "test", "valid": "validation"}
BESIDE = {"Counting baseline": "counting", "Best possible": "best_possible"}  # rows, their notes
Parts = list[tuple[DatasetResults, dict[str, Cell]]]


@dataclass(frozen=True)
class Plan:
    """What a table shows.

    Attributes:
        name: ``table1``, ``table2``, ``knobs`` or ``signals``.
        title: one line.
        groups: who is ranked among and compared with whom; names as in ``labels``.
        labels: the labels of each row, by name.
        headings: the headings of the labels.
        split: ``test`` or ``valid``.
        mean_ranks: show mean ranks over data sets.
    """

    name: str
    title: str
    groups: list[Group]
    labels: Mapping[str, tuple[str, str]]
    headings: tuple[str, str]
    split: str = "test"
    mean_ranks: bool = False


@dataclass(frozen=True)
class Block:
    """The columns of one metric on one data set.

    Attributes:
        data: the results on the data set.
        cells: the data set's cells by their name in the plan.
        metric: name of the metric.
        plan: the table that the columns belong to.
    """

    data: DatasetResults
    cells: dict[str, Cell]
    metric: str
    plan: Plan

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """The standing of each name with a value: not all experiments compute all metrics."""
        metric, split = self.metric, self.plan.split
        values = {name: cell.values(metric, split) for name, cell in self.cells.items()}
        return compare(self.plan.groups, {name: found for name, found in values.items() if found})

    @cached_property
    def seeds(self) -> int:
        """The largest number of seeds of a cell."""
        return max((standing.n for standing in self.standings.values()), default=0)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs of all cells."""
        return [run for cell in self.cells.values() for run in cell.runs.values()]

    @cached_property
    def bayes(self) -> float | None:
        """The best possible test metric; None unless the makers of the data know it."""
        if self.plan.split != "test" or not by_user(self.metric, self.runs):
            return None
        known = (run["bayes"][self.metric] for run in self.runs if self.metric in run["bayes"])
        return next(known, None)

    @cached_property
    def counting(self) -> float | None:
        """The metric of the counting baseline; None unless it is known for the one length of all cells."""
        lengths = {self.max_len(name) for name in self.cells}
        entry = self.data.counting.get(lengths.pop() or 0) if len(lengths) == 1 else None
        if entry is None or not by_user(self.metric, self.runs):
            return None
        return entry["metrics"][ALL][self.plan.split].get(self.metric)

    @property
    def beside(self) -> dict[str, float | None]:
        """The metrics that are of no model, by row."""
        return dict(zip(BESIDE, (self.counting, self.bayes), strict=True))

    @property
    def sources(self) -> list[str]:
        """The fields of ``Published`` that have a number on this data set."""
        found = [self.published(name) for name in self.plan.labels]
        return [s for s in SOURCES if any(getattr(p, s) is not None for p in found)]

    def published(self, name: str) -> Published:
        """What others published on this place of the table."""
        if self.plan.name not in PRINTED:
            return Published()
        place = (self.plan.name, self.data.dataset_id, name, self.metric)
        return published(*place, self.max_len(name))

    def max_len(self, name: str) -> int | None:
        """The longest history in the runs of a cell; None without a run."""
        return self.cells[name].first_run["params"]["max_len"] if name in self.cells else None


def metric_table(plan: Plan, parts: list[tuple[DatasetResults, dict[str, Cell]]]) -> Table | None:
    """The table of a plan; None without a data set.

    Args:
        plan: what is shown.
        parts: the data sets, and the cells on each by their name in the plan.
    """
    pairs = [[Block(data, cells, m, plan) for m in METRICS] for data, cells in parts]
    blocks = [block for pair in pairs for block in pair]
    if not blocks:
        return None
    columns = [column for pair in pairs for column in _columns(pair)]
    if plan.mean_ranks:
        by_metric = zip(METRICS, zip(*pairs, strict=True), strict=True)
        columns += [Column("Mean rank", m, partial(_mean_rank, own)) for m, own in by_metric]
    rows = {**plan.labels}
    notes = ["metric", plan.name, "rules"]
    if any(block.sources for block in blocks):
        notes.append("sources")
    for name, note in BESIDE.items():
        if any(block.beside[name] is not None for block in blocks):
            rows[name] = (name, "")
            notes.append(note)
    below = sentences(*notes, split=SPLITS[plan.split])
    records = [record for block in blocks for record in _records(block)]
    return grouped(plan.title, plan.headings, rows, columns, below, records)


def _columns(pair: list[Block]) -> Iterator[Column]:
    """The columns of a data set: for each metric the own numbers, then the published ones."""
    seeds = max(block.seeds for block in pair)
    facts = [pair[0].data.title, f"{seeds} seed{'s' * (seeds != 1)}"]
    title = ", ".join(facts + conditions(pair[0].cells.values()))
    for block in pair:
        yield Column(title, block.metric, partial(_own, block))
        for source in block.sources:
            yield Column(title, SOURCES[source], partial(_printed, block, source))


def _printed(block: Block, source: str, name: str) -> Entry:
    return block.published(name).entry(source)


def _own(block: Block, name: str) -> Entry:
    if name in BESIDE:
        return Entry(points(block.beside[name]), block.beside[name])
    standing = block.standings.get(name, Standing())
    if standing.mean is None:
        return Entry()
    lines = [f"n = {standing.n}"] if standing.n < block.seeds else []
    if standing.gain is not None:
        test = tested(standing.low, standing.high, standing.p)
        lines.append(f"{points(standing.gain, '+')} {test}".rstrip())
    if standing.rank is not None:
        lines.append(f"rank {standing.rank}")
    cell, reference = block.cells[name], block.cells.get(standing.reference)
    text = plus_minus(standing.mean, standing.std, points)
    return Entry(text, standing.mean, standing.mark, tuple(lines), oddities(cell, name, reference))


def _mean_rank(blocks: Sequence[Block], name: str) -> Entry:
    """The mean over the data sets that rank the model."""
    places = [block.standings[name].rank for block in blocks if name in block.standings]
    found = [rank for rank in places if rank is not None]
    if not found:
        return Entry()
    few = (f"{len(found)} of {len(blocks)} data sets",) if len(found) < len(blocks) else ()
    return Entry(f"{fmean(found):.2f}", fmean(found), secondary=few)


def _records(block: Block) -> Iterator[dict[str, Any]]:
    """One line of the CSV file for each model that has runs or a published number."""
    for name in block.plan.labels:
        standing, found = block.standings.get(name, Standing()), block.published(name)
        if (standing.mean, found.paper, found.longctr) == (None, None, None):
            continue
        cell = block.cells.get(name)
        yield {
            "dataset_id": block.data.dataset_id,
            "split": block.plan.split,
            "model": cell.model if cell else name,
            "varied": json.dumps(cell.varied) if cell and cell.varied else "",
            "max_len": block.max_len(name),
            "metric": block.metric,
            **standing._asdict(),
            "counting": block.counting,
            "bayes": block.bayes,
            **found._asdict(),
        }


# ---------------------------------------------------------------- the tables


def table1(results: list[DatasetResults]) -> Table | None:
    """Each backbone that has runs, without and with each mixture; gains are over the vanilla backbone."""
    parts = _parts(results, "table1")
    models = _models(parts)
    # What the paper has of a backbone has a row, so that it is seen where it was not run.
    wanted = ordered_models([*models, *models_of("table1")])
    of = {b: [m for m in wanted if backbone_of(m) == b] for b in ordered_backbones(models)}
    groups = [Group(tuple(of[b]), (b,)) for b in of]
    labels = {model: row_labels(model) for b in of for model in of[b]}
    title, headings = "Table 1: backbones and mixtures", ("Backbone", "Variant")
    plan = Plan("table1", title, groups, labels, headings, mean_ranks=len(parts) > 1)
    return metric_table(plan, parts)


def table2(results: list[DatasetResults]) -> Table | None:
    """MoS models and published baselines; gains are over the best baseline."""
    parts = _parts(results, "table2")
    models = _models(parts)
    plain = [model for model in [*models, *models_of("table2")] if not mixture_of(model)]
    baselines = tuple(ordered_models(plain))
    backbones = ordered_backbones(model for model in models if mixture_of(model))
    ours = tuple(variant(backbone, OURS) for backbone in backbones)
    groups = [Group((*baselines, *ours), baselines)]
    labels = {m: ("Baseline", m) for m in baselines} | {m: (label(OURS), m) for m in ours}
    title = f"Table 2: {label(OURS)} and models of long histories"
    return metric_table(Plan("table2", title, groups, labels, ("Kind", "Model")), parts)


def knobs(results: list[DatasetResults]) -> Table | None:
    """What single decisions of a mixture change; on validation data, since they are chosen by it."""
    return _changes("knobs", "Knobs: what changed keys are worth", "valid", results)


def signals(results: list[DatasetResults]) -> Table | None:
    """What models gain from each thing that a configuration for own data gives them to read."""
    return _changes("signals", "Signals: what models gain from what they read", "test", results)


def _changes(name: str, title: str, split: str, results: list[DatasetResults]) -> Table | None:
    """What single keys of the configuration change in each model of an experiment."""
    parts = _parts(results, name)
    cells = {name: cell for _, named in parts for name, cell in named.items()}
    models = dict.fromkeys(_models(parts))
    # A reference has a row even if it was not run.
    of = {m: [m, *(n for n, c in cells.items() if c.model == m and c.varied)] for m in models}
    groups = [Group(tuple(names), (model,)) for model, names in of.items()]
    labels = {m: (m, "reference") for m in models}
    labels |= {n: (c.model, settings(c.varied)) for n, c in cells.items() if c.varied}
    labels = {name: labels[name] for group in groups for name in group.names}
    return metric_table(Plan(name, title, groups, labels, ("Model", "Changed"), split), parts)


def _parts(results: list[DatasetResults], experiment: str) -> Parts:
    """The data sets with the experiment, and its cells by name; without varied keys it is the model's."""
    return [
        (data, {f"{c.model} {json.dumps(c.varied)}" if c.varied else c.model: c for c in cells})
        for data in results
        if (cells := data.experiment(experiment))
    ]


def _models(parts: Parts) -> list[str]:
    return [cell.model for _, cells in parts for cell in cells.values()]


def tuning(results: list[DatasetResults]) -> Table | None:
    """Every trial of tuning with its validation metrics; None without a trial."""
    rows, records = [], []
    for home, trial in ((data, t) for data in results for t in data.tuning):
        valid = {metric: trial["valid"].get(metric) for metric in METRICS}
        texts = [home.title, trial["model"], settings(trial["tuned"]), str(trial["seed"])]
        metrics = (Entry(points(value), value) for value in valid.values())
        rows.append((*map(Entry, texts), *metrics, Entry("yes" if trial["chosen"] else "")))
        own = {key: trial[key] for key in ("model", "expid", "seed", "chosen")}
        tuned = json.dumps(trial["tuned"])
        records.append({"dataset_id": home.dataset_id, **own, "tuned": tuned, **valid})
    headings = header("Data set", "Model", "Tuned", "Seed", *METRICS, "Chosen")
    return Table("Tuning", headings, 3, rows, sentences("tuning"), records) if rows else None
