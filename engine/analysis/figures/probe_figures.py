"""The figures of probes: session hopping (paper, figures 2 and 8), and what the experts stand for."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from model_zoo.registry import backbone_of, label, mixture_of

from ..results import DatasetResults
from . import style
from .selection import probes_of, spread, typical_probe, whose

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
LETTERS = 96  # of a line of nearest items
MEASURES = {"purity": "purity (share of items)", "ami": "adjusted mutual information"}
Known = dict[str, list[dict[str, Any]]]  # the themes of each model's probes that have categories


@style.styled
def session_hopping(results: DatasetResults) -> Figure | None:
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
    return style.finish(figure, _hopping_title(hopping), "session_hopping", *planted, **facts)


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


def _hopping_title(hopping: dict[str, Any]) -> str:
    parts = []
    places = {"within": "within a session", "adjacent": "between adjacent sessions"}
    for key, where in places.items():
        mean, shuffled = hopping["real"][key]["mean"], hopping["shuffled"][key]["mean"]
        if None not in (mean, shuffled):
            parts.append(f"{mean:.2f} {where} (shuffled {shuffled:.2f})")
    return f"Items of a user have a cosine of {' and '.join(parts)}"


@style.styled
def themes(results: DatasetResults) -> Figure | None:
    """Bars against shuffled categories, beside a table of codes; None without a probe with a codebook."""
    probes = {name: [p for p in group if p["themes"]] for name, group in probes_of(results).items()}
    coded = [p for group in probes.values() for p in group if p["themes"]["codes"]]
    if not coded:
        return None
    found = coded[0]["themes"]
    figure = Figure(figsize=(10.5, 1.6 + 0.45 * max(4, len(found["codes"]))))
    grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 2.8))
    own = ((n, [p["themes"] for p in g if "ami" in p["themes"]]) for n, g in probes.items())
    known = {name: group for name, group in own if group}
    if known:
        for column, (measure, words) in enumerate(MEASURES.items()):
            axes = figure.add_subplot(grid[column])
            _agreement(axes, known, measure)
            axes.set(ylabel=words, xlabel="router")
    _table(figure.add_subplot(grid[2:] if known else grid[:]), found)
    facts = {"whose": whose(coded[0]), "items": coded[0]["about"]["items"]}
    names = ["themes"]
    if known:
        names.append("categories")
        facts |= {key: found[key] for key in ("kind", "categories")}
        facts["seeds"] = style.over_seeds(known.values())
    return style.finish(figure, _themes_title(known), *names, **facts)


def _agreement(axes: Axes, known: Known, measure: str) -> None:
    for i, group in enumerate(known.values()):
        for side, key, colour, hatch, name in (
            (-0.2, measure, style.MEASURED, "", "experts"),
            (0.2, f"{measure}_null", style.NULL, "///", "shuffled"),
        ):
            mean, std = spread(found[key] for found in group)
            axes.bar(
                i + side, mean, 0.38, yerr=std or None, color=colour, hatch=hatch, edgecolor="white",
                capsize=2, error_kw={"elinewidth": 0.8}, label=None if i else name,
            )  # fmt: skip
    style.only_ticks(axes, "x", range(len(known)), _labels(known))
    if len(known) > 2:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    middle, half = (len(known) - 1) / 2, max(1, len(known) / 2 + 0.2)
    axes.set_xlim(middle - half, middle + half)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1)  # not nearer: a small share should look small
    if measure == "purity":
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=1)


def _labels(models: Iterable[str]) -> list[str]:
    """The mixtures, with their backbones where there are several."""
    parts = [(backbone_of(model), label(mixture_of(model))) for model in models]
    several = len({backbone for backbone, _ in parts}) > 1
    return [f"{backbone} {mixture}" if several else mixture for backbone, mixture in parts]


def _table(axes: Axes, found: dict[str, Any]) -> None:
    """Two lines for each code: what it owns, and the items nearest to it."""
    axes.set(xlim=(0, 1), ylim=(len(found["codes"]) - 0.4, -0.6))
    axes.set_title("items nearest to each code, with their category")
    axes.axis("off")
    for row, code in enumerate(found["codes"]):
        axes.barh(row, 0.012, 0.75, color=style.expert_colour(row), edgecolor="0.3", linewidth=0.5)
        head = f"expert {row + 1}: {code['items']:,} items"
        if code.get("main_category") is not None:
            main = code["main_name"] or f"{found['kind']} {code['main_category']}"
            head += f", {code['main_share']:.0%} of them {main}"
        # Titles may have dollar signs.
        plain: dict[str, Any] = {"va": "center", "parse_math": False}
        axes.text(0.03, row - 0.2, head, weight="bold", fontsize=8, **plain)
        axes.text(0.03, row + 0.2, _nearest(code), fontsize=7.5, color="0.25", **plain)


def _nearest(code: dict[str, Any]) -> str:
    """As many of the nearest items, the nearest first, as there is room for."""
    names = []
    for near in code["nearest"]:
        category = near["category_name"] or near["category"]
        after = "" if category is None else f" ({category})"
        names.append((near["name"] or f"item {near['item']}") + after)
    lines = accumulate(names, "{} · {}".format)
    fitting = [line for line in lines if len(line) <= LETTERS] or names[:1]
    return fitting[-1] if fitting else ""


def _themes_title(known: Known) -> str:
    if not known:
        return "Items nearest to the codes of the item experts"
    kind = next(iter(known.values()))[0]["kind"]
    means = [np.mean([found["ami"] for found in group]) for group in known.values()]
    texts = [f"{round(mean, 2) + 0:.2f}" for mean in means]  # + 0: -0 becomes 0
    found = ", ".join(" ".join(pair) for pair in zip(_labels(known), texts, strict=True))
    return f"Adjusted mutual information of expert and {kind}: {found}"
