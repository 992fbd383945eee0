"""Session hopping measured: are a user's sessions stable, abrupt, and do themes reappear (paper, figures 2 and 8)?

Sessions are found without labels. Let ``x_t`` be the item vectors of a user, minus their mean over all
users, and

    b_t = cos(mean(x_{t-k} ... x_{t-1}), mean(x_t ... x_{t+k-1})).

A session begins at t if b_t is the least among the positions nearer than k, and below a threshold. The
threshold is the mean of ``b`` over shuffled histories of the same users. So at a border the two sides are
less alike than two random groups of k items of one user. A user who stays with one theme has no border.

Cutting where neighbours differ makes adjacent sessions differ even in noise. So each number has a null
beside it: the same users' histories, shuffled, cut and measured in the same way. A shuffled history may
be cut into more sessions, and among many sessions some are alike even in noise. So reappearance is a
share of pairs of sessions.

Shape suffixes: L items of one user, S sessions, P pairs of sessions, D item width, U users.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 4  # k: half of the shortest planted session, so that a mean never spans two borders
MIN_ITEMS = 4 * WINDOW  # a shorter history has no room for two sessions with noise averaged
EXAMPLE_ITEMS = 100  # newest items of an example
QUANTILES = (0.5, 0.75, 0.9)  # of the score, at which the examples are taken
EPS = 1e-9  # vectors shorter than this have no direction; similarities nearer than this are equal
STATISTICS = ("within", "adjacent", "distant", "reappearing", "sessions", "session_items")


def measure(histories: Sequence[NDArray], users: Sequence[int], seed: int) -> dict[str, Any]:
    """All numbers of one data set.

    Args:
        histories: centred item vectors ``(L, D)`` of each user, oldest first.
        users: the number of each user, for the examples.
        seed: seed of the shuffles.

    Returns:
        ``window`` (k), ``threshold``, and ``users``, the number of users that have enough items.

        ``real`` and ``shuffled``: for each statistic of ``user_statistics``, the ``mean`` over the users
        that have it, their number ``users``, and the 95 % interval ``low`` to ``high`` (normal, over users).

        ``examples``: the users at the quantiles of the hopping score. Each has ``quantile``, ``user``,
        ``score``, ``first`` (place of the first item shown), ``borders`` (places among the items shown)
        and ``similarity``. Row i of the similarity is a text: the cosines, in hundredths, of item i with
        items 0 to i.
    """
    kept = [i for i, x_LD in enumerate(histories) if len(x_LD) >= MIN_ITEMS]
    rng = np.random.default_rng(seed)
    real = [histories[i] for i in kept]
    shuffled = [x_LD[rng.permutation(len(x_LD))] for x_LD in real]
    threshold = shuffled_similarity(shuffled)
    found = [user_statistics(x_LD, borders(x_LD, threshold)) for x_LD in real]
    pairs = zip(shuffled, found, strict=True)
    null = [user_statistics(x_LD, borders(x_LD, threshold), own["bar"]) for x_LD, own in pairs]
    score_U = np.array([statistics["score"] for statistics in found])
    return {
        "window": WINDOW,
        "threshold": threshold,
        "users": len(kept),
        "real": {name: interval([s[name] for s in found]) for name in STATISTICS},
        "shuffled": {name: interval([s[name] for s in null]) for name in STATISTICS},
        "examples": [
            {"quantile": q, "user": int(users[kept[i]]), "score": float(score_U[i])}
            | example(real[i], borders(real[i], threshold))
            for q, i in at_quantiles(score_U)
        ],
    }


def shuffled_similarity(shuffled: Sequence[NDArray]) -> float:
    """The mean of b over shuffled histories, which is the threshold; 0 without a history."""
    values = [sides(x_LD) for x_LD in shuffled]
    return float(np.concatenate(values).mean()) if values else 0.0


def borders(x_LD: NDArray, threshold: float) -> list[int]:
    """The places where a new session begins, in order.

    Any two of them are at least k items apart, and so are they from both ends.
    """
    b_T = sides(x_LD)
    found: list[int] = []
    for t in range(len(b_T)):
        around_T = b_T[max(0, t - WINDOW + 1) : t + WINDOW]
        least = b_T[t] <= around_T.min() + EPS
        place = t + WINDOW
        # Where equal minima are near each other, the first is taken.
        if least and b_T[t] < threshold - EPS and place - (found[-1] if found else 0) >= WINDOW:
            found.append(place)
    return found


def sides(x_LD: NDArray) -> NDArray:
    """The b of the places k to L - k, ``(L - 2k + 1,)``."""
    sums_LD = np.concatenate([np.zeros_like(x_LD[:1]), x_LD.cumsum(0, dtype=np.float64)])
    mean_TD = unit(sums_LD[WINDOW:] - sums_LD[:-WINDOW])  # of the k items from each place on
    return (mean_TD[:-WINDOW] * mean_TD[WINDOW:]).sum(1)


def user_statistics(x_LD: NDArray, places: list[int], bar: float | None = None) -> dict[str, float]:
    """One user's numbers; NaN where there are too few sessions.

    The similarity of two sessions is the mean cosine of all pairs of their items. Within a session
    it is the mean over all pairs of two different places.

    Args:
        x_LD: the user's items, centred.
        places: where sessions begin, without the first.
        bar: the similarity from which a pair counts as ``reappearing``. The default is the median
            similarity of these sessions to themselves. A shuffled history is measured with the bar of
            the real one: its own would be low, since its sessions hang together by chance only.

    Returns:
        ``within``, ``adjacent`` and ``distant``: the mean similarity within sessions, of neighbouring
        sessions, and of sessions that are two or more apart.

        ``reappearing``: the share of the distant pairs that are at least as similar as ``bar``.

        ``sessions`` and ``session_items``: the number of sessions and their mean length.

        ``score``: the smaller of ``within`` and the similarity to the most similar earlier session, minus
        ``adjacent``. It is high only where sessions are stable, switches abrupt and themes reappear.
    """
    within_S, between_SS = session_similarities(similarities(x_LD), places)
    S = len(within_S)
    bar = float(np.median(within_S)) if bar is None else bar
    statistics = dict.fromkeys((*STATISTICS, "score"), np.nan) | {"bar": bar}
    statistics |= {"within": within_S.mean(), "sessions": S, "session_items": len(x_LD) / S}
    if S < 2:
        return statistics
    statistics["adjacent"] = adjacent = np.diagonal(between_SS, 1).mean()
    if S < 3:
        return statistics
    distant_P = between_SS[np.triu_indices(S, 2)]
    statistics |= {"distant": distant_P.mean(), "reappearing": (distant_P >= bar).mean()}
    best_S = np.array([between_SS[s, : s - 1].max() for s in range(2, S)])
    statistics["score"] = min(within_S.mean(), best_S.mean()) - adjacent
    return statistics


def similarities(x_LD: NDArray) -> NDArray:
    """Cosines of all pairs, ``(L, L)``."""
    unit_LD = unit(x_LD)
    return unit_LD @ unit_LD.T


def session_similarities(cosine_LL: NDArray, places: list[int]) -> tuple[NDArray, NDArray]:
    """Similarity within each session ``(S,)`` and between all pairs ``(S, S)``.

    Every session must have two items or more.
    """
    starts = [0, *places]
    items_S = np.diff([*starts, len(cosine_LL)])
    sums_SS = np.add.reduceat(np.add.reduceat(cosine_LL, starts, axis=0), starts, axis=1)
    itself_S = np.add.reduceat(np.diagonal(cosine_LL), starts)
    within_S = (np.diagonal(sums_SS) - itself_S) / (items_S * (items_S - 1))
    return within_S, sums_SS / (items_S[:, None] * items_S)


def unit(x: NDArray) -> NDArray:
    """Vectors scaled to length 1; a vector without a direction stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), EPS)


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and 95 % interval over the users that have the number; None where fewer than two do."""
    known = np.array([value for value in values if not np.isnan(value)])
    mean = float(known.mean()) if len(known) else None
    if mean is None or len(known) < 2:
        return {"mean": mean, "low": None, "high": None, "users": len(known)}
    half = 1.96 * known.std(ddof=1) / np.sqrt(len(known))
    return {"mean": mean, "low": mean - half, "high": mean + half, "users": len(known)}


def at_quantiles(score_U: NDArray) -> list[tuple[float, int]]:
    """``(quantile, index)`` of the users whose score is at each quantile of those that have one."""
    order = [int(i) for i in np.argsort(score_U, kind="stable") if not np.isnan(score_U[i])]
    chosen = {order[round(q * (len(order) - 1))]: q for q in QUANTILES if order}
    return [(q, i) for i, q in chosen.items()]


def example(x_LD: NDArray, places: list[int]) -> dict[str, Any]:
    """The newest items of a user, as ``measure`` describes them."""
    first = max(0, len(x_LD) - EXAMPLE_ITEMS)
    cosine_LL = np.rint(100 * similarities(x_LD[first:])).astype(int)
    return {
        "first": first,
        "borders": [place - first for place in places if place > first],
        "similarity": [" ".join(map(str, row[: i + 1])) for i, row in enumerate(cosine_LL)],
    }


def planted_agreement(
    histories: Sequence[NDArray], labels: Sequence[NDArray], threshold: float, tolerance: int = 2
) -> dict[str, float | int]:
    """How well the segmentation finds sessions that are known, in data with planted sessions.

    Args:
        histories: centred item vectors ``(L, D)`` of each user.
        labels: the theme of each item, ``(L,)``.
        threshold: threshold of the segmentation.
        tolerance: items by which a border may be off.

    Returns:
        ``precision`` and ``recall`` over all borders, and ``tolerance``.
    """
    totals = np.zeros(4)
    for x_LD, label_L in zip(histories, labels, strict=True):
        if len(x_LD) >= MIN_ITEMS:
            found = np.array(borders(x_LD, threshold), np.int64)
            planted = np.flatnonzero(np.diff(label_L)) + 1
            near = np.abs(found[:, None] - planted) <= tolerance
            totals += (near.any(1).sum(), near.any(0).sum(), len(found), len(planted))
    precision, recall = totals[:2] / np.maximum(totals[2:], 1)
    return {"precision": float(precision), "recall": float(recall), "tolerance": tolerance}
