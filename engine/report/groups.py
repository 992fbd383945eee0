"""The runs on the page: the rows of the leaderboard, and all runs as JSON.

A row is a configuration with the runs of all its seeds. The script of the page reads the JSON and shows
a run that is opened. A text that many runs share, such as a configuration, is stored once. Numbers have
six digits. What the page does not show of the routing is left out. So hundreds of runs take a few
megabytes.
"""

import json
import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ..analysis.figures.style import EXPERT_COLOURS
from ..analysis.results import DatasetResults, Run
from ..analysis.tables.comparison import mean_std
from ..analysis.tables.cost_table import Quantity
from ..analysis.tables.grid import Entry, plus_minus, points
from ..analysis.wording import machine, share_on, usual_device

TABLES = {"table1", "table2"}  # the paper's comparisons, all tuned alike
PLAIN = ("logloss", "binary_crossentropy", "calibration", "ECE")  # all others are in points
KEPT = (
    "metrics", "num_parameters", "flops_per_sample", "train_samples_per_s", "test_samples_per_s",
    "serving_ms", "peak_memory_bytes", "seconds",
)  # fmt: skip


@dataclass(eq=False)
class Group:
    """One configuration of a data set. Two groups are equal only if they are the same object.

    Attributes:
        expid: experiment id.
        model: name of the model.
        experiments: names of the study's experiments that include it; empty without a study.
        varied: the keys that these experiments, or ``--set`` of the runs, set.
        seeds: the planned seeds.
        runs: in the order of seeds.
    """

    expid: str
    model: str
    experiments: list[str] = field(default_factory=list)
    varied: dict[str, Any] = field(default_factory=dict)
    seeds: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)

    @property
    def missing(self) -> list[int]:
        """The planned seeds that have no run."""
        return sorted(self.seeds - {run["seed"] for run in self.runs})

    @property
    def in_tables(self) -> bool:
        """Whether the paper's tables compare it; without a study they compare all."""
        return not self.experiments or not TABLES.isdisjoint(self.experiments)

    def metric(self, split: str, name: str) -> Entry:
        """The mean of a metric over the runs, and its spread."""
        return metric(name, [run["metrics"][split].get(name) for run in self.runs])

    @property
    def device(self) -> str:
        """The device whose costs are shown. If other runs were elsewhere, their number shows."""
        device = usual_device(self.runs)
        few = share_on(self.runs, device)
        return f"{device} ({few})" if few else device

    def cost(self, quantity: Quantity) -> Entry:
        """The median of a cost over the runs that measured it, as in the cost table."""
        known = quantity.values(self.runs, usual_device(self.runs))
        return Entry(quantity.show(median(known)), median(known)) if known else Entry()


def groups(results: DatasetResults) -> list[Group]:
    """Collect all configurations in the study's order, then those that are outside the study.

    Runs of seeds that the study does not plan form a group of their own. So the means are those of the
    tables.
    """
    planned: dict[str, Group] = {}
    for cell in results.cells:
        group = planned.setdefault(cell.expid, Group(cell.expid, cell.model))
        group.experiments.append(cell.experiment)
        group.varied |= cell.varied
        group.seeds.update(cell.seeds)
    outside: dict[str, Group] = {}
    for run in sorted(results.runs, key=lambda run: run["seed"]):
        where = "outside the study" if results.study else "other settings"
        alone = Group(run["expid"], run["model"], [where])
        group = planned.get(alone.expid, alone)
        if group is alone or (results.study and run["seed"] not in group.seeds):
            group = outside.setdefault(alone.expid, alone)
        group.varied |= run["changes"]
        group.runs.append(run)
    return [*planned.values(), *outside.values()]


def best_first(known: list[Group]) -> list[Group]:
    """Sort the groups that ran by mean test AUC; those without a mean come last."""
    ran = (group for group in known if group.runs)
    return sorted(ran, key=lambda group: -(group.metric("test", "AUC").number or -math.inf))


def metric(name: str, values: Iterable[float | None]) -> Entry:
    """Show the mean over seeds, with the standard deviation if there are several.

    If one value is missing there is no mean, since a mean of fewer seeds would look like one of all. A
    metric of ``PLAIN`` is shown as it is, and any other in points.
    """
    found = list(values)
    known = [value for value in found if value is not None and math.isfinite(value)]
    if not known or len(known) < len(found):
        return Entry()
    mean, std = mean_std(known)
    show = "{:.4f}".format if name in PLAIN else points
    return Entry(plus_minus(mean, std, show), mean)


def embedded(known: list[Group], folder: Path) -> str:
    """Return all runs as JSON that is safe inside a ``<script>``, grouped as they are given.

    Args:
        known: configurations with their runs.
        folder: the folder that the page is about; files are named relative to it.
    """
    texts: dict[str, int] = {}
    own = [{"expid": g.expid, "runs": [_run(r, folder, texts) for r in g.runs]} for g in known]
    content = {"groups": own, "texts": list(texts), "colours": EXPERT_COLOURS, "plain": PLAIN}
    rounded = json.loads(
        json.dumps(content),
        parse_float=lambda text: float(f"{float(text):.6g}"),
        parse_constant=lambda _: None,  # JSON has no NaN
    )
    text = json.dumps(rounded, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # or a value could close the script with its own tag


def _run(run: Run, folder: Path, texts: dict[str, int]) -> dict[str, Any]:
    """Pick what the page shows of a run; ``texts`` has the place of each shared text."""
    metrics = list(run["metrics"]["valid"])
    seedless = {key: value for key, value in run["params"].items() if key != "seed"}
    return {
        "file": run["file"].relative_to(folder).as_posix(),
        "seed": run["seed"],
        "device": machine(run),
        "command": shlex.join(run["command"]),
        "config": texts.setdefault(_lines(seedless), len(texts)),
        "versions": texts.setdefault(_lines(run["versions"]), len(texts)),
        "routing": run["routing"],
        "logged": metrics,
        "log": [_stage(entry, metrics) for entry in _evaluations(run)],
        **{key: run.get(key) for key in KEPT},
    }


def _lines(content: dict[str, Any]) -> str:
    """Write a mapping with one line of YAML for each key."""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in content.items()}
    return "".join(f"{key}: {text}\n" for key, text in texts.items())


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """List all evaluations of a run.

    Each stage begins with the evaluation of its first weights, if there was one.
    """
    starts = {entry["stage"]: [{"epoch": 0.0} | entry] for entry in run.get("stage_start", ())}
    return [e for entry in run["stage_log"] for e in (*starts.pop(entry["stage"], ()), entry)]


def _stage(entry: dict[str, Any], metrics: list[str]) -> list[Any]:
    """Make an evaluation a list for ``page.js``: names would take more room than the numbers."""
    parts = ("item_share", "item_entropy", "switch_rate")
    routing = {n: [branch[p] for p in parts] for n, branch in entry.get("routing", {}).items()}
    loss, rate, speed = map(entry.get, ("train_loss", "learning_rate", "samples_per_s"))
    found = [entry.get(name) for name in metrics]
    return [entry["stage"], entry["epoch"], loss, found, entry["best"], rate, speed, routing]
