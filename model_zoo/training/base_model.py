"""The base of every model: what the training loop knows of it, and the call of that loop."""

from __future__ import annotations

from typing import Any

from ..batch import Loader
from .hyper_parameters import chosen, keywords
from .loop import Trainer
from .trainable import Trainable


class StagedModel(Trainable):
    """A model that trains itself. As it stands it trains in a single stage.

    ``SequenceModel`` adds stages and experts.

    Attributes:
        any_keyword: ``hyper_parameters`` need not name everything that the model reads.
    """

    any_keyword = False

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """Name and type of every configuration key that the model or its training reads."""
        return keywords(cls, Trainer)

    def fit(self, data_generator: Loader, validation_data: Loader, **kwargs: Any) -> None:
        """Train in stages, then load the best checkpoint; see ``Trainer``."""
        Trainer(self, data_generator, validation_data, **chosen(kwargs, Trainer)).fit()
