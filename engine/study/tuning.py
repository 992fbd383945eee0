"""The experiment of each model of a study, and the combinations of its grid that are tried."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

from ..common.errors import UserError
from ..config.convert import WRONG, convert
from ..config.options import RunOptions
from ..tuner.checks import check_space
from ..tuner.space import Space, grid_file, read_experiment, read_tuner_file, with_choices


def model_space(expid: str, options: RunOptions, budget: int) -> Space:
    """The checked configuration of an experiment, with the study's changes.

    With a budget above 1, it has the choices of the experiment's grid (see ``grid_file``), except for
    keys that ``options.changes`` sets. With a budget of 1, it has no choices.

    Raises:
        UserError: a run would be rejected, or the grid is smaller than the budget.
    """
    space = read_experiment(options.config, expid)
    for key in options.changes.keys() & space.dataset.keys():
        raise UserError(f"--set {key}: is a key of the data set; write it in dataset_config.yaml")
    space = replace(space, model={**space.model, **options.changes})
    if budget > 1:
        space = replace(space, file=grid_file(options.config, space))
        grid = read_tuner_file(space.file)["tuner_space"]
        space = with_choices(space, {k: v for k, v in grid.items() if k not in options.changes})
        if space.size < budget:
            few = f"{space.file} has {space.size} combinations"
            raise UserError(f"--budget {budget}: {few}; add values there, or write {space.size}")
    return check_space(space, options)


def balanced(
    choices: dict[str, list[Any]], own: dict[str, Any], count: int
) -> list[dict[str, Any]]:
    """Choose ``count`` combinations that use the values of each key as evenly as possible.

    Args:
        choices: the values of each key.
        own: the configuration's own values. The first combination is the nearest to them.
        count: how many combinations to choose. If there are fewer, all are chosen.
    """
    ordered = {key: _from(values, own.get(key)) for key, values in choices.items()}
    left = list(product(*(range(len(values)) for values in ordered.values())))
    uses: Counter[tuple[int, int]] = Counter()  # by the indices of key and value
    drawn = []
    for _ in range(min(count, len(left))):
        # The least used values win. Among equals, those nearest to the configuration's own win.
        best = min(left, key=lambda c: (sum(uses[place] for place in enumerate(c)), c))
        left.remove(best)
        uses.update(enumerate(best))
        drawn.append({k: ordered[k][i] for k, i in zip(ordered, best, strict=True)})
    return drawn


def _from(values: list[Any], own: Any) -> list[Any]:
    """Sort the values of a key by their distance in the list from the configuration's own value."""
    with suppress(*WRONG):  # YAML reads 1e-3 as a text, but the values have been checked
        own = convert(own, type(values[0]))
    start = values.index(own) if own in values else 0
    return sorted(values, key=lambda value: abs(values.index(value) - start))
