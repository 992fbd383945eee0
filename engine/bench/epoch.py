"""A whole epoch by ``run_expid.py``: ours against LongCTR's own, from start-up to test metrics.

Both are processes of their own, which start Python, read the data, train one epoch, validate, load
the best weights, and evaluate validation and test; nothing of that is left out. LongCTR's is its own
``run_expid.py`` with its loader, FuxiCTR's ``fit``, ``evaluate`` and metrics (``longctr_run``). Both
start from the same weights and see the same samples in the same order without dropout, so that they
compute the same numbers up to rounding. Where rounding decides (the k best items, the side of
a hash), training amplifies it: AUCs of a round then differ by chance, either way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from . import longctr
from .epoch_setup import FIRST_SEED, ROOT, Setup
from .process import Usage, run_python
from .timing import Report

GOAL = "at least 5"
SAME_AUC = 1e-3
METRICS = ("AUC", "gAUC", "logloss")


class Run(NamedTuple):
    """What one whole run took and found; seconds of training and evaluation are parts of the whole."""

    usage: Usage
    training_s: float
    evaluation_s: float
    metrics: dict[str, dict[str, float]]  # valid, test


def measure(
    checkout: str | None, setups: Sequence[Setup], rounds: int, threads: int | None
) -> Report:
    """See the module.

    Args:
        checkout: LongCTR's root folder, or None for ours alone.
        setups: of each model, with as many experiments.
        rounds: LongCTR's run, then ours, so often; each round has a seed of its own.
        threads: of torch in both processes; None leaves it to torch.
    """
    variables = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    report = Report(
        title="One epoch by run_expid.py, from start-up to test metrics",
        settings={"rounds": rounds, "threads": threads or "torch's choice"},
        samples={},
        seconds={},
        notes=[] if checkout else [longctr.MISSING],
    )
    for setup in setups:
        report.notes.append(f"{setup.model}: {_describe(setup)}")
        runs: dict[str, list[Run]] = {}
        for i in range(rounds):
            if checkout:
                runs.setdefault("LongCTR's", []).append(_longctr(checkout, setup, i, variables))
            runs.setdefault("our", []).append(_ours(setup, i, variables))
            took = ", ".join(f"{side} {of[-1].usage.seconds:.1f} s" for side, of in runs.items())
            print(f"{setup.model}, round {i + 1} of {rounds}: {took}", flush=True)
        _add(report, setup, runs)
    return report


def _add(report: Report, setup: Setup, runs: dict[str, list[Run]]) -> None:
    """Put the runs of a model into the report."""
    names = {side: f"{side} {setup.model}" for side in runs}
    for side, of_side in runs.items():
        for part, seconds in (
            ("whole run", [run.usage.seconds for run in of_side]),
            ("training", [run.training_s for run in of_side]),
        ):
            report.seconds[f"{names[side]}, {part}"] = seconds
            report.samples[f"{names[side]}, {part}"] = setup.samples["train"]
        report.notes.append(f"{names[side]}: {_parts(of_side)}")
    if len(runs) == 1:
        return
    theirs, ours = names.values()
    for part, goal in (("whole run", GOAL), ("training", "")):
        cases = f"{theirs}, {part}", f"{ours}, {part}"
        report.ratios[f"{theirs} / {ours}, {part}"] = *cases, goal
    _compare(report, setup, *runs.values())


def _describe(setup: Setup) -> str:
    """What both runs of a model are about."""
    keys = ("batch_size", "max_len", "embedding_dim", "learning_rate")
    samples = ", ".join(f"{n:,} {split}" for split, n in setup.samples.items())
    return ", ".join([f"{samples} samples", *(f"{key} {setup.keys[key]:g}" for key in keys)])


def _longctr(checkout: str, setup: Setup, i: int, variables: dict[str, str]) -> Run:
    """Round ``i`` of LongCTR, which leaves its first weights for ours."""
    expid = setup.expid("longctr", i)
    report = setup.folder / f"{expid}.json"
    files = (str(Path(checkout).resolve()), str(setup.initial(i)), str(report))
    usage = run_python(
        *("-m", "engine.bench.longctr_run", *files),
        *("--config", str(setup.config), "--expid", expid, "--gpu", "-1"),
        cwd=setup.folder,
        log=setup.folder / f"{expid}.txt",
        variables=variables | {"PYTHONPATH": str(ROOT)},
    )
    found = json.loads(report.read_text())
    seconds, (*_, valid, test) = found["seconds"], found["metrics"]
    metrics = {"valid": valid, "test": test}
    return Run(usage, seconds["fit"] - seconds["eval_step"], seconds["evaluate"], metrics)


def _ours(setup: Setup, i: int, variables: dict[str, str]) -> Run:
    """Round ``i`` of ours."""
    expid = setup.expid("ours", i)
    usage = run_python(
        *(str(ROOT / "run_expid.py"), "--config", str(setup.config), "--expid", expid),
        cwd=setup.folder,
        log=setup.folder / f"{expid}.txt",
        variables=variables,
    )
    result = setup.result(i)
    seconds = result["seconds"]
    in_fit = sum(entry["valid_seconds"] for entry in result["stage_log"])
    evaluation_s = in_fit + seconds["test"]
    return Run(usage, seconds["fit"] - in_fit, evaluation_s, result["metrics"])


def _parts(runs: list[Run]) -> str:
    """Where the time of one side goes, and its memory; medians over rounds."""
    training = median(run.training_s for run in runs)
    evaluation = median(run.evaluation_s for run in runs)
    rest = median(run.usage.seconds - run.training_s - run.evaluation_s for run in runs)
    cpu = median(run.usage.cpu_seconds for run in runs)
    peak = max(run.usage.peak_bytes for run in runs) / 2**30
    return (
        f"training {training:.1f} s, evaluation {evaluation:.1f} s, start-up, data and the rest "
        f"{rest:.1f} s; {cpu:.1f} s of processor time; peak memory {peak:.2f} GiB"
    )


def _compare(report: Report, setup: Setup, theirs: list[Run], ours: list[Run]) -> None:
    """Test metrics of both sides: a line for each round, and the difference of the means."""
    differences = []
    for i, (rival, own) in enumerate(zip(theirs, ours, strict=True)):
        values = [(rival.metrics["test"][m], own.metrics["test"][m]) for m in METRICS]
        differences.append([b - a for a, b in values])
        found = ", ".join(
            f"{m} {a:.5f} and {b:.5f} ({b - a:+.5f})"
            for m, (a, b) in zip(METRICS, values, strict=True)
        )
        report.notes.append(
            f"{setup.model}, test, seed {FIRST_SEED + i}: LongCTR's and our {found}"
        )
    for metric, values in zip(METRICS, zip(*differences, strict=True), strict=True):
        report.differences[f"{setup.model}, mean test {metric} of the rounds"] = abs(mean(values))
        if metric == "AUC" and abs(mean(values)) > SAME_AUC:
            report.notes.append(
                f"ATTENTION, {setup.model}: the mean test AUCs differ by {mean(values):+.5f}, more "
                f"than {SAME_AUC:g}"
            )
