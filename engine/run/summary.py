"""What a command says of its finished runs: a table on the console, and FuxiCTR's line for BARS."""

from __future__ import annotations

import statistics
from datetime import datetime
from pathlib import Path
from typing import Any

from model_zoo.registry import backbone_of

from ..common.errors import UserError
from ..common.text_table import text_table

Result = dict[str, Any]


def append_bars_line(result: Result, config_dir: Path) -> None:
    """Append the line that FuxiCTR writes and BARS parses to ``./<config name>.csv``.

    Raises:
        UserError: the file cannot be written.
    """

    def listed(metrics: dict[str, float]) -> str:
        return " - ".join(f"{name}: {value:.6f}" for name, value in metrics.items())

    line = (
        f" {datetime.now():%Y%m%d-%H%M%S},[command] {' '.join(result['command'])},"
        f"[exp_id] {result['expid']},[dataset_id] {result['dataset_id']},[train] N.A.,"
        f"[val] {listed(result['metrics']['valid'])},[test] {listed(result['metrics']['test'])}\n"
    )
    path = Path(f"{config_dir.resolve().name.removesuffix('.yaml')}.csv").absolute()
    try:
        with open(path, "a") as file:
            file.write(line)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); the result itself is saved, "
            "--resume shows it"
        ) from None


def summary(runs: list[Result]) -> str:
    """A table of finished runs for each data set, since results on different data do not compare."""
    by_data: dict[str, list[Result]] = {}
    for run in runs:
        by_data.setdefault(run["dataset_hash"], []).append(run)
    return "\n\n".join(map(_summary_on_one_data_set, by_data.values()))


def _summary_on_one_data_set(runs: list[Result]) -> str:
    """The runs, their means over seeds, paired differences, and the routing."""
    tested = [run["metrics"]["test"] for run in runs]
    metrics = [metric for metric in tested[0] if all(metric in test for test in tested)]
    header = [
        "expid",
        "seed",
        *(f"test {m}" for m in metrics),
        "valid AUC",
        "parameters",
        "samples/s",
        "time",
    ]
    rows = []
    for run in runs:
        rows.append(
            [run["expid"], str(run["seed"])]
            + [f"{run['metrics']['test'][m]:.4f}" for m in metrics]
            + [
                f"{run['metrics']['valid'].get('AUC', float('nan')):.4f}",
                f"{run['num_parameters']:,}",
                f"{run['train_samples_per_s']:,.0f}",
                f"{run['seconds']['total']:.0f} s",
            ]
        )
    groups: dict[str, dict[int, Result]] = {}
    for run in runs:
        groups.setdefault(run["expid"], {})[run["seed"]] = run
    if max(map(len, groups.values())) > 1:
        rows += [_mean_row(expid, seeds, metrics) for expid, seeds in groups.items()]
    for expid, seeds in list(groups.items())[1:]:
        against = _reference(expid, groups)
        reference = groups[against]
        paired = [
            [seeds[s]["metrics"]["test"][m] - reference[s]["metrics"]["test"][m] for m in metrics]
            for s in seeds
            if s in reference
        ]
        if paired:
            differences = [_spread(list(values), sign="+") for values in zip(*paired, strict=True)]
            rows.append([f"{expid} - {against}", "paired", *differences])
    for metric, value in runs[0]["bayes"].items():
        if metric not in metrics:
            continue
        cells = [f"{value:.4f}" if m == metric else "" for m in metrics]
        rows.append([f"best possible {metric}", "", *cells])
    return "\n".join([text_table(header, rows), *(line for run in runs for line in _routing(run))])


def _reference(expid: str, groups: dict[str, dict[int, Result]]) -> str:
    """The experiment to compare with: the model's own backbone if it ran, else the first one."""
    models = {name: next(iter(seeds.values()))["model"] for name, seeds in groups.items()}
    vanilla = backbone_of(models[expid])
    own = [name for name, model in models.items() if model == vanilla and name != expid]
    return (own or list(groups))[0]


def _mean_row(expid: str, seeds: dict[int, Result], metrics: list[str]) -> list[str]:
    """The row of an experiment's means over its seeds."""
    values = [[run["metrics"]["test"][m] for run in seeds.values()] for m in metrics]
    return [expid, f"mean of {len(seeds)}", *map(_spread, values)]


def _spread(values: list[float], sign: str = "") -> str:
    """The mean, and the standard deviation of several values; ``+`` as sign shows it always."""
    text = f"{statistics.mean(values):{sign}.4f}"
    return text + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def _routing(run: Result) -> list[str]:
    """A line for each branch of a mixture: which share of the test samples each expert served."""
    return [
        f"{run['expid']}, seed {run['seed']}, {name} experts served "
        + " ".join(f"{share:.0%}" for share in routing["sample_share"])
        + f" of the test samples (entropy {routing['sample_entropy']:.2f} of 1)"
        for name, routing in run["routing"].items()
    ]
