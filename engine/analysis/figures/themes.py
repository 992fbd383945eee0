"""What experts stand for: agreement of every router's with known categories, and the nearest items of MoS's codes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_zoo.registry import backbone_of, label, mixture_of

from ..results import DatasetResults
from . import style
from .selection import probes_of, spread, whose

LETTERS = 96  # of a line of nearest items
MEASURES = {"purity": "purity (share of items)", "ami": "adjusted mutual information"}

Known = dict[str, list[dict[str, Any]]]  # the themes of each model's probes that have categories


@style.styled
def draw(results: DatasetResults) -> Figure | None:
    """Bars against shuffled categories, beside a table of codes; None without a probe with a codebook."""
    probes = {name: [p for p in group if p["themes"]] for name, group in probes_of(results).items()}
    coded = [p for group in probes.values() for p in group if p["themes"]["codes"]]
    if not coded:
        return None
    found = coded[0]["themes"]
    figure = Figure(figsize=(10.5, 1.6 + 0.45 * max(4, len(found["codes"]))))
    grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 2.8))
    themes = ((n, [p["themes"] for p in g if "ami" in p["themes"]]) for n, g in probes.items())
    known = {name: group for name, group in themes if group}
    if known:
        for column, (measure, words) in enumerate(MEASURES.items()):
            axes = figure.add_subplot(grid[column])
            _bars(axes, known, measure)
            axes.set(ylabel=words, xlabel="router")
    _table(figure.add_subplot(grid[2:] if known else grid[:]), found)
    facts = {"whose": whose(coded[0]), "items": coded[0]["about"]["items"]}
    names = ["themes"]
    if known:
        names.append("categories")
        facts |= {key: found[key] for key in ("kind", "categories")}
        facts["seeds"] = style.over_seeds(known.values())
    return style.finish(figure, _title(known), *names, **facts)


def _bars(axes: Axes, known: Known, measure: str) -> None:
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


def _title(known: Known) -> str:
    if not known:
        return "Items nearest to the codes of the item experts"
    kind = next(iter(known.values()))[0]["kind"]
    means = [np.mean([found["ami"] for found in group]) for group in known.values()]
    texts = [f"{round(mean, 2) + 0:.2f}" for mean in means]  # + 0: -0 becomes 0
    found = ", ".join(" ".join(pair) for pair in zip(_labels(known), texts, strict=True))
    return f"Adjusted mutual information of expert and {kind}: {found}"
