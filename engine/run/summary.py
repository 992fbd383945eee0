"""The summary of finished runs: a table on the console, and FuxiCTR's line for BARS."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from fuxictr.utils import print_to_list
from numpy.typing import NDArray

from model_zoo.registry import backbone_of
from model_zoo.training.metrics import correction

from ..baseline import record
from ..common.text_table import text_table
from ..datasets.prepared.card import sampling
from .against_counts import baselines_of, verdicts

Result = dict[str, Any]
MEASURED = ("valid AUC", "parameters", "samples/s", "time")  # columns after the test metrics


def append_bars_line(result: Result, config_dir: Path) -> None:
    """Append a line to ``./<config name>.csv``, as FuxiCTR writes it and BARS parses it.

    A line that is there already is not written again. If the file cannot be written, that is a
    warning: ``--resume`` of the finished run writes the line.
    """
    line = (
        f"[command] {' '.join(result['command'])},"
        f"[exp_id] {result['expid']},[dataset_id] {result['dataset_id']},[train] N.A.,"
        f"[val] {print_to_list(result['metrics']['valid'])},[test] {print_to_list(result['metrics']['test'])}\n"
    )
    path = Path(f"{config_dir.resolve().name.removesuffix('.yaml')}.csv").absolute()
    try:
        with open(path, "a+") as file:
            file.seek(0)
            if line not in file.read():
                file.write(f" {datetime.now():%Y%m%d-%H%M%S},{line}")
    except OSError as error:
        kept = "the result itself is saved, and --resume writes the line"
        print(f"warning: {path}: cannot be written ({error.strerror}); {kept}", file=sys.stderr)


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
    rows: list[list[str]] = []
    tests: dict[str, dict[int, NDArray]] = {}  # by experiment and seed
    for run, test in zip(runs, tested, strict=True):
        values = np.array([test[metric] for metric in metrics])
        tests.setdefault(run["expid"], {})[run["seed"]] = values
        valid, seconds = run["metrics"]["valid"].get("AUC", float("nan")), run["seconds"]["total"]
        cells = [f"{valid:.4f}", f"{run['num_parameters']:,}", f"{run['train_samples_per_s']:,.0f}"]
        cells = [*map(_shown, metrics, values), *cells, f"{seconds:.0f} s"]
        rows.append([run["expid"], str(run["seed"]), *cells])
    if max(map(len, tests.values())) > 1:
        for expid, seeds in tests.items():
            rows.append([expid, f"mean of {len(seeds)}", *_spread(metrics, [*seeds.values()])])
    others = {metric for metric in metrics if record.by_user(metric, runs)}
    models = {run["expid"]: run["model"] for run in runs}
    for expid, seeds in list(tests.items())[1:]:
        reference = _reference(expid, models)
        beside = tests[reference]
        if paired := [seeds[seed] - beside[seed] for seed in seeds if seed in beside]:
            rows.append([f"{expid} - {reference}", "paired", *_spread(metrics, paired, sign="+")])
    for metric, value in runs[0]["bayes"].items():
        if metric in others:
            cells = [f"{value:.4f}" if m == metric else "" for m in metrics]
            rows.append([f"best possible {metric}", "", *cells])
    baselines = baselines_of(runs)
    for max_len, entry in baselines.items():
        length = f", max_len {max_len}" if len(baselines) > 1 else ""
        for label, found in (record.rows(entry) if entry else {}).items():
            known = others & found["test"].keys()
            cells = [_shown(m, found["test"][m]) if m in known else "" for m in metrics]
            rows.append([label + length, "", *cells, f"{found['valid']['AUC']:.4f}"])
    header = ["expid", "seed", *(f"test {metric}" for metric in metrics), *MEASURED]
    rate = runs[0]["params"].get("negative_sampling_rate", 1.0)
    sampled = sampling(runs[0])
    title = f"on {sampled}, so that no AUC of exposures compares with these" if sampled else ""
    lines = [title, text_table(header, rows), correction(metrics, rate)]
    lines += [line for run in runs for line in (*_routing(run), *_unimproved(run))]
    lines += verdicts(runs, baselines)
    return "\n".join(filter(None, lines))


def _reference(expid: str, models: dict[str, str]) -> str:
    """The experiment to compare with: the model's own backbone if it ran, else the first one."""
    vanilla = backbone_of(models[expid])
    own = [name for name, model in models.items() if model == vanilla and name != expid]
    return (own or list(models))[0]


def _shown(metric: str, value: float, sign: str = "") -> str:
    """A metric with four decimals; ECE with three digits, for it is small if positives are rare."""
    return f"{value:{sign}{'.3g' if metric == 'ECE' else '.4f'}}"


def _spread(metrics: list[str], runs: list[NDArray], sign: str = "") -> list[str]:
    """The mean of each metric, and its standard deviation over several runs.

    With ``+`` as ``sign`` the mean always shows its sign.
    """
    means = [_shown(m, mean, sign) for m, mean in zip(metrics, np.mean(runs, axis=0), strict=True)]
    if len(runs) == 1:
        return means
    spreads = map(_shown, metrics, np.std(runs, axis=0, ddof=1))
    return [f"{mean} ± {spread}" for mean, spread in zip(means, spreads, strict=True)]


def _routing(run: Result) -> list[str]:
    """A line for each branch of a mixture, with the share of test samples that each expert serves."""
    return [
        f"{run['expid']}, seed {run['seed']}, {name} experts served "
        + " ".join(f"{share:.0%}" for share in routing["sample_share"])
        + f" of the test samples (entropy {routing['sample_entropy']:.2f} of 1)"
        for name, routing in run["routing"].items()
    ]


def _unimproved(run: Result) -> list[str]:
    """A line if the weights that the last stage started from were its best."""
    last = run["stage_log"][-1]["stage"]
    if any(entry["best"] for entry in run["stage_log"] if entry["stage"] == last):
        return []
    return [
        f"{run['expid']}, seed {run['seed']}: no evaluation was better than that of the weights which the "
        f"{last} stage started from, so these were kept; try another learning_rate or monitor"
    ]
