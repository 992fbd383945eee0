"""The configuration of each model of a study, and which of its tuning grid is tried."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..config.read import dataset_part, model_part, redirect, resolve_paths
from ..tuner.space import Space, check_values, read_space


def model_space(
    config: Path,
    root: Path,
    model: str,
    dataset_id: str,
    budget: int,
    changes: dict[str, Any],
    data_root: Path | None = None,
) -> tuple[Space, Space]:
    """The checked configuration of ``<model>_<dataset_id>``, as it is and with ``changes``.

    With a budget above 1 the second one's choices are those of ``tuner/<model>_<dataset_id>.yaml`` in
    the configuration directory, without the keys that ``changes`` sets; else it has none.

    Raises:
        UserError: what a run would refuse, or a grid that is smaller than the budget.
    """
    expid = f"{model}_{dataset_id}"
    dataset = dataset_part(config, dataset_id, expid)
    for key in changes:
        if key in dataset:
            raise UserError(
                f"--set {key}: is a key of the data set; write it in dataset_config.yaml"
            )
    if data_root is not None:
        dataset = redirect(resolve_paths(dataset, root), data_root, None)
    plain = Space(config, expid, model_part(config, expid), dataset, {})
    tuned = replace(plain, model=plain.model | changes)
    if budget > 1:
        file = config / "tuner" / f"{expid}.yaml"
        grid = read_space(file, root, data_root).choices
        tuned = replace(tuned, choices={k: v for k, v in grid.items() if k not in changes})
        if tuned.size < budget:
            raise UserError(
                f"--budget {budget}: {file} has {tuned.size} combinations, and every model gets the same "
                "number of trials; add values to it, or write a smaller budget"
            )
    return check_values(plain, root), check_values(tuned, root)


def balanced(
    choices: dict[str, list[Any]], own: dict[str, Any], count: int
) -> list[dict[str, Any]]:
    """``count`` combinations of some choices, in which the values of each key occur as evenly as can
    be. The first is the one nearest to the configuration's own values."""
    ordered = {key: _from(values, own.get(key)) for key, values in choices.items()}
    uses = {key: [0] * len(values) for key, values in ordered.items()}
    left = list(product(*(range(len(values)) for values in ordered.values())))
    drawn = []
    for _ in range(min(count, len(left))):
        # The least used values; then those nearest to the configuration's own.
        best = min(left, key=lambda c: (sum(uses[k][i] for k, i in zip(uses, c, strict=True)), c))
        left.remove(best)
        for key, i in zip(uses, best, strict=True):
            uses[key][i] += 1
        drawn.append({k: ordered[k][i] for k, i in zip(ordered, best, strict=True)})
    return drawn


def _from(values: list[Any], own: Any) -> list[Any]:
    """The values, nearest in the list to the configuration's own first."""
    start = values.index(own) if own in values else 0
    return sorted(values, key=lambda value: abs(values.index(value) - start))
