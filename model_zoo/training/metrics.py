"""Metrics by their names: AUC, logloss and calibration, and those of ``ranking``, all vectorised."""

import logging
import re
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .ranking import Runs, auc_by_group, avg_auc, gauc, hit_rate, mrr, ndcg, runs_of

BINS = 20  # of ECE


class Undefined(ValueError):
    """The labels leave a metric undefined; the message says which and why."""


def evaluate_metrics(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    metrics: list[str],
    group_id: ArrayLike | None = None,
    negative_rate: float = 1.0,
    skip_undefined: bool = False,
) -> dict[str, float]:
    """Compute metrics of predictions.

    Those that FuxiCTR has equal its ``evaluate_metrics`` to 1e-12; for MRR and NDCG of ties see ``ranking``.

    Args:
        y_true: labels, 0 or 1, ``(N,)``.
        y_pred: scores, ``(N,)``; for logloss and calibration they must be probabilities.
        metrics: names of metrics: ``AUC``, ``logloss`` (or ``binary_crossentropy``), ``calibration``,
            ``ECE``; and of groups ``gAUC``, ``avgAUC``, ``MRR``, ``NDCG(k=5)``, ``HR(k=1)``.
        group_id: the user or impression of each sample as an integer, ``(N,)``.
        negative_rate: the share of the possible negatives that the samples have, 1 for real
            exposures. ``calibration`` and ``ECE`` are of all possible samples (``corrected``).
        skip_undefined: leave out a metric that is undefined, with a warning, instead of an error.

    Raises:
        Undefined: a metric is undefined for these labels.
        ValueError: a score is not finite, a label is not 0 or 1, or a metric is unknown.
    """
    y_true, y_pred = np.asarray(y_true).ravel(), np.asarray(y_pred).ravel()
    if bad := np.count_nonzero(~np.isfinite(y_pred)):
        raise ValueError(f"{bad} of {len(y_pred)} predictions are NaN or infinite")
    if (odd := y_true[(y_true != 0) & (y_true != 1)]).size:
        raise ValueError(f"labels must be 0 or 1, but one of them is {odd[0]}")
    results: dict[str, float] = {}
    runs = None
    for metric in metrics:
        try:
            if metric in OWN:
                results[metric] = OWN[metric](y_true, y_pred)
            elif metric in OF_ALL:
                results[metric] = OF_ALL[metric](y_true, *corrected(y_true, y_pred, negative_rate))
            elif not (form := GROUPED.fullmatch(metric)):
                raise ValueError(f"{metric!r} is not a metric")
            elif group_id is None:
                raise ValueError(f"{metric} needs `group_id: user_index` in the configuration")
            else:
                runs = runs or runs_of(y_true, y_pred, np.asarray(group_id).ravel())
                if not runs.mixed_G().any():
                    raise Undefined(f"{metric} is undefined: no group has both labels")
                name, top, k = form.groups()
                results[metric] = OF_TOP[top](runs, int(k)) if top else OF_GROUPS[name](runs)
        except Undefined as error:
            if not skip_undefined:
                raise
            logging.warning(f"{error}; it is left out")
    return results


def auc(y_true: NDArray, y_pred: NDArray) -> float:
    """The area under the ROC curve; ties count half.

    Raises:
        Undefined: all labels are the same.
    """
    value, _ = auc_by_group(runs_of(y_true, y_pred, np.zeros(len(y_true), dtype=np.int64)))
    if np.isnan(value).any() or not len(value):
        raise Undefined("AUC is undefined: all labels are the same")
    return float(value[0])


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
        Undefined: no label is 1.
    """
    if not y_true.any():
        raise Undefined("calibration is undefined: no label is 1")
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
OF_GROUPS: dict[str, Callable[[Runs], float]] = {"gAUC": gauc, "avgAUC": avg_auc, "MRR": mrr}
OF_TOP: dict[str, Callable[[Runs, int], float]] = {"NDCG": ndcg, "HR": hit_rate}
GROUPED = re.compile(rf"({'|'.join(OF_GROUPS)})|({'|'.join(OF_TOP)})\(k=([1-9]\d*)\)")
METRICS = re.compile("|".join([*OWN, *OF_ALL, GROUPED.pattern]))
