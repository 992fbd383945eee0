"""AUC, gAUC and logloss, vectorised, which equal FuxiCTR's, ties included; and calibration."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 20  # of ECE


def evaluate_metrics(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    metrics: list[str],
    group_id: ArrayLike | None = None,
    negative_rate: float = 1.0,
) -> dict[str, float]:
    """Compute metrics of predictions. FuxiCTR's equal ``fuxictr.metrics.evaluate_metrics`` to 1e-12.

    Args:
        y_true: labels, 0 or 1, ``(N,)``.
        y_pred: scores, ``(N,)``; for logloss and calibration they must be probabilities.
        metrics: names of metrics. ``AUC``, ``gAUC``, ``logloss`` (or ``binary_crossentropy``),
            ``calibration`` and ``ECE`` are computed here, all others by FuxiCTR.
        group_id: the user of each sample as an integer, ``(N,)``; needed for gAUC.
        negative_rate: the share of the possible negatives that the samples have, 1 for real
            exposures. ``calibration`` and ``ECE`` are of all possible samples (``corrected``).

    Raises:
        ValueError: a score is not finite, a label is not 0 or 1, or a metric is undefined.
    """
    y_true, y_pred = np.asarray(y_true).ravel(), np.asarray(y_pred).ravel()
    if bad := np.count_nonzero(~np.isfinite(y_pred)):
        raise ValueError(f"{bad} of {len(y_pred)} predictions are NaN or infinite")
    if (odd := y_true[(y_true != 0) & (y_true != 1)]).size:
        raise ValueError(f"labels must be 0 or 1, but one of them is {odd[0]}")
    results: dict[str, float] = {}
    for metric in metrics:
        if metric in OWN:
            results[metric] = OWN[metric](y_true, y_pred)
        elif metric in OF_ALL:
            results[metric] = OF_ALL[metric](y_true, *corrected(y_true, y_pred, negative_rate))
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
    """The area under the ROC curve; ties count half.

    Raises:
        ValueError: all labels are the same.
    """
    value, _ = _auc_by_group(y_true, y_pred, np.zeros(len(y_true), dtype=np.int64))
    if np.isnan(value).any() or not len(value):
        raise ValueError("AUC is undefined: all labels are the same")
    return float(value[0])


def grouped_auc(y_true: NDArray, y_pred: NDArray, group_id: NDArray) -> float:
    """The mean AUC of the groups, weighted by their numbers of samples (gAUC, as in DIN).

    Groups whose labels are all the same are left out.

    Raises:
        ValueError: no group has both labels.
    """
    value, size = _auc_by_group(y_true, y_pred, group_id)
    defined = ~np.isnan(value)
    if not defined.any():
        raise ValueError("gAUC is undefined: no group has both labels")
    return float((value * size)[defined].sum() / size[defined].sum())


def logloss(y_true: NDArray, y_pred: NDArray) -> float:
    """The mean cross-entropy; probabilities are clipped at float64 epsilon, as in scikit-learn."""
    eps = np.finfo(np.float64).eps
    p = np.clip(y_pred.astype(np.float64), eps, 1 - eps)
    return float(-np.log(np.where(y_true == 1, p, 1 - p)).mean())


def corrected(
    y_true: NDArray, y_pred: NDArray, rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The probabilities among all possible samples, and how many of them each sample stands for.

    A sampled negative stands for ``1 / rate`` negatives. So odds among all are ``rate`` times the
    odds among the samples.
    """
    p = y_pred.astype(np.float64)
    return p * rate / (p * rate + (1 - p)), np.where(y_true == 1, 1.0, 1 / rate)


def calibration(y_true: NDArray, p: NDArray, weight: NDArray) -> float:
    """The mean prediction over the mean label, both weighted; 1 is best, more is too confident.

    Raises:
        ValueError: no label is 1.
    """
    if not y_true.any():
        raise ValueError("calibration is undefined: no label is 1")
    return float((p * weight).sum() / (y_true * weight).sum())


def expected_calibration_error(y_true: NDArray, p: NDArray, weight: NDArray) -> float:
    """The mean distance between the mean prediction and the mean label of ``BINS`` bins (ECE).

    The bins have equal numbers of samples, from low to high predictions. Equal ones share a bin.
    """
    place = np.searchsorted(np.sort(p), p)
    gap = np.bincount(place * BINS // len(p), weights=(p - y_true) * weight)
    return float(np.abs(gap).sum() / weight.sum())


def correction(metrics: Iterable[str], negative_rate: float) -> str:
    """The remark that some metrics are corrected for sampled negatives; empty if none is."""
    names = ", ".join(metric for metric in metrics if metric in OF_ALL)
    if not names or negative_rate == 1:
        return ""
    return f"{names}: scores are corrected for negatives sampled at the rate {negative_rate:.3g}"


OWN = {"AUC": auc, "logloss": logloss, "binary_crossentropy": logloss}
OF_ALL = {"calibration": calibration, "ECE": expected_calibration_error}


def _auc_by_group(
    y_true: NDArray, y_pred: NDArray, group_id: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The AUC and the size of each group; AUC is NaN where all labels of a group are the same.

    The Mann-Whitney count needs the samples sorted by group and then by score. So group, score and
    label are packed into one 64-bit integer key, and one sort is enough.
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

    # The Mann-Whitney count from ranks: samples of a run all have its middle rank. Twice the middle
    # is an integer, so the sums are exact.
    twice_middle = 2 * run_start + np.diff(np.r_[run_start, len(key)])
    first_run = np.searchsorted(run_start, group_start)
    ranks = np.add.reduceat(np.add.reduceat(label, run_start) * twice_middle, first_run)
    wins = (ranks - positive * (2 * group_start + positive)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where((positive > 0) & (negative > 0), wins / (positive * negative), np.nan)
    return value, size


def _starts(values: NDArray) -> NDArray[np.int64]:
    """The indices at which runs of equal values start."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])


def _order_preserving_code(y_pred: NDArray) -> NDArray[np.uint32]:
    """Map scores to 32-bit integers of the same order; equal scores give equal integers."""
    if y_pred.dtype != np.float32:
        return np.unique(y_pred, return_inverse=True)[1].astype(np.uint32)
    bits = (y_pred + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(2**31))
