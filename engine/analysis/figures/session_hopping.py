"""Session hopping (paper, figures 2 and 8): similarity of a user's items, and the phenomenon in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from ..results import DatasetResults
from . import style
from .selection import typical_probe, whose

SIMILARITIES = {
    "within": "within\na session",
    "adjacent": "adjacent\nsessions",
    "distant": "sessions two\nor more apart",
}
RATES = {"reappearing": "as near as items\nwithin a session"}
SIDES: dict[str, dict[str, Any]] = {
    "real": {"marker": "o", "color": style.MEASURED, "markerfacecolor": style.MEASURED},
    "shuffled": {"marker": "s", "color": style.NULL, "markerfacecolor": "white"},
}


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """Three example users above, the measured phenomenon below; None without a probe."""
    probe = typical_probe(results)
    if probe is None or not probe["session_hopping"]["users"]:
        return None
    hopping = probe["session_hopping"]
    figure = Figure(figsize=(9.6, 7.2))
    above, below = figure.subfigures(2, 1, height_ratios=(1.5, 1), squeeze=False)[:, 0]
    # All experts, whether or not they get an item of the examples.
    num_experts = max((branch["experts"] for branch in probe["dispatch"].values()), default=0)
    _examples(above, hopping["examples"], num_experts)
    similarity, rates = below.subplots(1, 2, width_ratios=(3, 1))
    _intervals(similarity, hopping, SIMILARITIES)
    similarity.set(ylabel="mean cosine similarity", xlabel="pairs of items of one user")
    similarity.set(title="Stability and switches")
    _intervals(rates, hopping, RATES)
    rates.set(ylabel="share of pairs", xlabel="sessions two or more apart", title="Reappearance")
    rates.set_ylim(bottom=0)
    similarity.legend(loc="best")
    facts = {"whose": whose(probe), "users": hopping["users"]}
    planted = [name for name in ("planted_borders",) if name in hopping]
    facts |= hopping.get("planted_borders", {})
    return style.finish(figure, _title(hopping), "session_hopping", *planted, **facts)


def _examples(figure: SubFigure, examples: list[dict[str, Any]], num_experts: int) -> None:
    """A heatmap for each user, and below it the expert of each item if there are experts."""
    if not examples:
        return
    ratios = (4, 1) if num_experts else (4,)
    shape = len(ratios), len(examples)
    panels = figure.subplots(*shape, squeeze=False, sharex="col", height_ratios=ratios)
    for (heat, *below), example in zip(panels.T, examples, strict=True):
        colours = {"cmap": "cividis", "vmin": -0.5, "vmax": 1}
        image = heat.imshow(_matrix(example), aspect="auto", interpolation="nearest", **colours)
        heat.grid(False)
        for border in example["borders"]:
            heat.axhline(border - 0.5, color="white", linewidth=0.9)
            heat.axvline(border - 0.5, color="white", linewidth=0.9)
        heat.set_title(f"quantile {example['quantile']:g} (score {example['score']:.2f})")
        heat.set_ylabel("item, oldest first")
        for axes in below:
            _experts(axes, example, num_experts)
        (below or [heat])[-1].set_xlabel("item, oldest first")
        heat.tick_params(labelbottom=not below)
    figure.colorbar(image, ax=panels[0].tolist(), label="cosine similarity", extend="min", pad=0.01)


def _matrix(example: dict[str, Any]) -> NDArray:
    """The cosines ``(L, L)`` from the texts of the lower triangle."""
    size = len(example["similarity"])
    lower = np.zeros((size, size))
    lower[np.tril_indices(size)] = np.array(" ".join(example["similarity"]).split(), float) / 100
    return lower + np.tril(lower, -1).T


def _experts(axes: Axes, example: dict[str, Any], num_experts: int) -> None:
    """A dot for each item that an expert takes, at the height of the expert."""
    expert_L = np.array(example["experts"])
    place = np.flatnonzero(expert_L >= 0)
    colours = [style.expert_colour(expert) for expert in expert_L[place]]
    axes.scatter(place, expert_L[place] + 1, s=9, c=colours, edgecolors="0.3", linewidths=0.3)
    for border in example["borders"]:
        axes.axvline(border - 0.5, color="0.5", linewidth=0.7, linestyle="--")
    axes.set(ylabel="expert", ylim=(num_experts + 0.6, 0.4))
    style.only_ticks(axes, "y", range(1, num_experts + 1))
    axes.tick_params(axis="y", labelsize=6.5)
    axes.grid(False)


def _intervals(axes: Axes, hopping: dict[str, Any], names: dict[str, str]) -> None:
    """Means with intervals, of real and shuffled histories side by side; unknown ones are left out."""
    for (side, look), shift in zip(SIDES.items(), (-0.1, 0.1), strict=True):
        found = [[hopping[side][name][key] for key in ("mean", "low", "high")] for name in names]
        mean, low, high = np.array(found, float).T
        axes.errorbar(
            np.arange(len(names)) + shift, mean, (mean - low, high - mean),
            markersize=7, linestyle="", capsize=4, label=f"{side} histories", **look,
        )  # fmt: skip
    style.only_ticks(axes, "x", range(len(names)), names.values())
    axes.set_xlim(-0.5, len(names) - 0.5)


def _title(hopping: dict[str, Any]) -> str:
    parts = []
    places = {"within": "within a session", "adjacent": "between adjacent sessions"}
    for key, where in places.items():
        mean, shuffled = hopping["real"][key]["mean"], hopping["shuffled"][key]["mean"]
        if None not in (mean, shuffled):
            parts.append(f"{mean:.2f} {where} (shuffled {shuffled:.2f})")
    return f"Items of a user have a cosine of {' and '.join(parts)}"
