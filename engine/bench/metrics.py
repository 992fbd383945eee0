"""Evaluation metrics: ``model_zoo.metrics`` against ``fuxictr.metrics``, which LongCTR uses.

One evaluation of a data set: AUC and logloss over all predictions, gAUC over the users. Scores are
float32, as models give them, and rounded to three digits, so that ties are many. FuxiCTR runs once:
it takes some 20 seconds for a million predictions. Its values are computed from the same scores in
float64, as its ``BaseModel.evaluate`` does.
"""

from __future__ import annotations

import numpy as np
import torch
from fuxictr.metrics import evaluate_metrics as fuxictr_metrics

from model_zoo.training.metrics import evaluate_metrics

from ..common.errors import UserError
from .floor import Work, measure_machine
from .timing import Report, alternate

PARTS = {"AUC, gAUC, logloss": ["AUC", "gAUC", "logloss"], "gAUC": ["gAUC"]}
TOLERANCE = 1e-9


def measure(rows: int, users: int, repeats: int) -> Report:
    """See the module.

    Args:
        rows: predictions.
        users: groups of gAUC.
        repeats: rounds of ours.
    """
    rng = np.random.default_rng(0)
    group_id = rng.integers(users, size=rows)
    y_pred = rng.random(rows).round(3).astype(np.float32)
    y_true = (rng.random(rows) < y_pred).astype(np.float32)
    ours: dict[str, float] = {}
    rival: dict[str, float] = {}
    wide = y_pred.astype(np.float64)
    cases = {}
    for part, names in PARTS.items():
        cases[f"FuxiCTR, {part}"] = lambda names=names: rival.update(
            fuxictr_metrics(y_true, wide, names, group_id)
        )
        cases[f"ours, {part}"] = lambda names=names: ours.update(
            evaluate_metrics(y_true, y_pred, names, group_id)
        )
    try:
        for part in PARTS:
            cases[f"ours, {part}"]()
    except ValueError as error:
        raise UserError(f"--rows {rows}, --users {users}: {error}; write more rows") from None
    seconds = alternate(cases, repeats, once=[name for name in cases if name.startswith("FuxiCTR")])
    differences = {name: abs(ours[name] - float(rival[name])) for name in ours}
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise AssertionError(f"{name}: ours is {ours[name]!r}, FuxiCTR's {rival[name]!r}")
    goals = {"AUC, gAUC, logloss": "at least 100", "gAUC": ""}
    read = Work(float(y_pred.nbytes + y_true.nbytes + group_id.nbytes))
    return Report(
        title="Metrics: one evaluation, float32 scores with ties",
        settings={"rows": f"{rows:,}", "users": f"{users:,}", "repeats": repeats},
        samples=rows,
        seconds=seconds,
        ratios={
            f"FuxiCTR / ours, {part}": (f"FuxiCTR, {part}", f"ours, {part}", goals[part])
            for part in PARTS
        },
        differences=differences,
        work={f"ours, {part}": read for part in PARTS},
        machine=measure_machine(torch.device("cpu")),
        notes=["values: " + ", ".join(f"{name} {value:.6f}" for name, value in ours.items())],
    )
