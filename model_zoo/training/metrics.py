"""AUC, gAUC and logloss in one vectorised pass; equal to FuxiCTR's, ties included."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def evaluate_metrics(
    y_true: ArrayLike, y_pred: ArrayLike, metrics: list[str], group_id: ArrayLike | None = None
) -> dict[str, float]:
    """The metrics of some predictions, equal to ``fuxictr.metrics.evaluate_metrics`` to 1e-12.

    Args:
        y_true: labels, 0 or 1, ``(N,)``.
        y_pred: scores, ``(N,)``; for logloss they are probabilities.
        metrics: names of metrics. FuxiCTR computes all but ``AUC``, ``gAUC`` and ``logloss``.
        group_id: the user of each sample, integers, for gAUC.

    Raises:
        ValueError: a score is not finite, a label is not 0 or 1, or a metric is undefined.
    """
    y_true, y_pred = np.asarray(y_true).ravel(), np.asarray(y_pred).ravel()
    if bad := np.count_nonzero(~np.isfinite(y_pred)):
        raise ValueError(f"{bad} of {len(y_pred)} predictions are NaN or infinite")
    if not ((y_true == 0) | (y_true == 1)).all():
        raise ValueError("labels must be 0 or 1")
    results: dict[str, float] = {}
    for metric in metrics:
        if metric in OWN:
            results[metric] = OWN[metric](y_true, y_pred)
        elif metric == "gAUC":
            if group_id is None:
                raise ValueError("gAUC needs `group_id: user_index` in the configuration")
            results[metric] = grouped_auc(y_true, y_pred, np.asarray(group_id).ravel())
        else:
            from fuxictr.metrics import evaluate_metrics as fuxictr_metrics

            others = fuxictr_metrics(y_true, y_pred.astype(np.float64), [metric], group_id)
            results[metric] = float(others[metric])
    return results


def auc(y_true: NDArray, y_pred: NDArray) -> float:
    """Area under the ROC curve; ties count half.

    Raises:
        ValueError: all labels are the same.
    """
    value, _ = _auc_by_group(y_true, y_pred, np.zeros(len(y_true), dtype=np.int64))
    if np.isnan(value).any() or not len(value):
        raise ValueError("AUC is undefined: all labels are the same")
    return float(value[0])


def grouped_auc(y_true: NDArray, y_pred: NDArray, group_id: NDArray) -> float:
    """Mean of each group's AUC, weighted by its samples (DIN). Groups of one class are left out.

    Raises:
        ValueError: no group has both labels.
    """
    value, size = _auc_by_group(y_true, y_pred, group_id)
    defined = ~np.isnan(value)
    if not defined.any():
        raise ValueError("gAUC is undefined: no group has both labels")
    return float((value * size)[defined].sum() / size[defined].sum())


def logloss(y_true: NDArray, y_pred: NDArray) -> float:
    """Mean cross-entropy; probabilities are clipped at float64 epsilon, as scikit-learn does."""
    eps = np.finfo(np.float64).eps
    p = np.clip(y_pred.astype(np.float64), eps, 1 - eps)
    return float(-np.log(np.where(y_true == 1, p, 1 - p)).mean())


OWN = {"AUC": auc, "logloss": logloss, "binary_crossentropy": logloss}


def _auc_by_group(
    y_true: NDArray, y_pred: NDArray, group_id: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """AUC (NaN where a group has one class) and size of each group, by one integer sort.

    The Mann-Whitney count needs samples in the order of group and score, with ties together. So
    group, score and label are packed into one 64-bit key.
    """
    code = _order_preserving_code(y_pred)
    group = group_id.astype(np.int64)
    if len(group) and (group.min() < 0 or group.max() >= 2**31):
        group = np.unique(group_id, return_inverse=True)[1]
    key = (group.astype(np.uint64) << np.uint64(33)) | (code.astype(np.uint64) << np.uint64(1))
    key |= y_true.astype(np.uint64)
    key.sort()
    label = (key & np.uint64(1)).astype(np.int64)
    run_start = _starts(key >> np.uint64(1))  # a run of ties: equal group and score
    group_start = _starts(key >> np.uint64(33))
    size = np.diff(np.r_[group_start, len(key)])
    positive = np.add.reduceat(label, group_start)
    negative = size - positive

    # The Mann-Whitney count from ranks: those of a run are its middle. Integers keep it exact.
    twice_middle = 2 * run_start + np.diff(np.r_[run_start, len(key)])
    first_run = np.searchsorted(run_start, group_start)
    ranks = np.add.reduceat(np.add.reduceat(label, run_start) * twice_middle, first_run)
    wins = (ranks - positive * (2 * group_start + positive)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where((positive > 0) & (negative > 0), wins / (positive * negative), np.nan)
    return value, size


def _starts(values: NDArray) -> NDArray[np.int64]:
    """Where a run of equal values starts."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])


def _order_preserving_code(y_pred: NDArray) -> NDArray[np.uint32]:
    """32-bit integers in the order of the scores, equal where they are equal."""
    if y_pred.dtype != np.float32:
        return np.unique(y_pred, return_inverse=True)[1].astype(np.uint32)
    bits = (y_pred + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(2**31))
