"""One run of a study: a configuration and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..tuner.space import Space
from ..tuner.trial import Trial, digest


@dataclass
class SeededTrial(Trial):
    """A trial whose experiment id leaves out the seed: runs of one configuration share it.

    Attributes:
        label: ``<model>_<dataset_id>_<digest>``, of all parameters but the seed, so that a configuration
            that was edited is another one; without the changes after running out of memory.
    """

    label: str = ""

    @property
    def expid(self) -> str:
        return self.label + super().expid.removeprefix(self.name)


def seeded_trial(
    plain: Space, tuned: dict[str, Any], model: dict[str, Any], seed: int
) -> SeededTrial:
    """The run of one configuration.

    Args:
        plain: the experiment as the configuration directory has it.
        tuned: what the run is known by in displays.
        model: all keys of the model.
    """
    params = {**model, **plain.dataset, **tuned, "seed": seed}
    label = f"{plain.expid}_{configuration_digest(params)}"
    return SeededTrial(f"{label}_seed{seed}", params, tuned | {"seed": seed}, label=label)


def configuration_digest(params: dict[str, Any]) -> str:
    """The digest of all parameters but the seed."""
    return digest({key: value for key, value in params.items() if key != "seed"})
