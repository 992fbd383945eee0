"""Evaluation metrics: ours against those of ``fuxictr.metrics``, which LongCTR uses.

A case is one evaluation of a data set: AUC and logloss over all predictions, gAUC over the users.
Scores are float32, as models give them, and rounded to three digits, so that ties are many. FuxiCTR
runs once, for it takes some 20 seconds for a million predictions. Its values are computed from the same
scores in float64, as its ``BaseModel.evaluate`` does.
"""

from __future__ import annotations

import argparse
from functools import cache, partial

import numpy as np
import torch
from fuxictr.metrics import evaluate_metrics as fuxictr_metrics

from model_zoo.training.metrics import evaluate_metrics

from ..common.errors import UserError
from .harness import Case, Report

NAMES = ["AUC", "gAUC", "logloss"]
TOLERANCE = 1e-9
DEFAULTS = {"rows": 1_000_000, "users": 11_000, "repeats": 5}


def measure(args: argparse.Namespace) -> Report:
    """Time both on random predictions; ``--users`` are the groups of gAUC."""
    rng = np.random.default_rng(0)
    group_id = rng.integers(args.users, size=args.rows)
    y_pred = rng.random(args.rows).round(3).astype(np.float32)
    y_true = (rng.random(args.rows) < y_pred).astype(np.float32)
    wide = y_pred.astype(np.float64)
    moved = float(y_pred.nbytes + y_true.nbytes + group_id.nbytes)
    # It runs only once, and keeps what it found for the comparison.
    rival = cache(lambda: fuxictr_metrics(y_true, wide, NAMES, group_id))
    ours = partial(evaluate_metrics, y_true, y_pred, NAMES, group_id)
    report = Report("Metrics: AUC, gAUC and logloss of float32 scores with ties", args)
    cases = [
        Case("FuxiCTR", rival, {"ours": "at least 100"}, once=True),
        Case("ours", ours, moved=moved),
    ]
    try:
        report.time(cases, args.rows, args.repeats)
    except ValueError as error:
        where = f"--rows {args.rows}, --users {args.users}"
        raise UserError(f"{where}: {error}; write more rows") from None
    own, theirs = ours(), rival()
    for name in NAMES:
        a, b = ([torch.tensor(found[name], dtype=torch.float64)] for found in (own, theirs))
        report.agree(name, a, b, TOLERANCE)
        report.notes.append(f"{name} {own[name]:.6f}")
    return report
