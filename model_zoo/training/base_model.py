"""The base class of every model, which calls the training loop."""

from typing import Any

from ..batch import Loader
from .hyper_parameters import chosen, keywords
from .loop import Trainer
from .trainable import Trainable


class StagedModel(Trainable):
    """A model that trains itself with ``fit``, by default in a single stage.

    ``SequenceModel`` adds stages and experts.

    Attributes:
        any_keyword: True if the model also reads keys that ``hyper_parameters`` does not name.
        reads_times: True if the model reads ``time_gap``, a feature of events, wherever data have times.
    """

    any_keyword = False
    reads_times = False

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """The name and type of every configuration key that the model or its training reads."""
        return keywords(cls, Trainer)

    def fit(self, data_generator: Loader, validation_data: Loader, **kwargs: Any) -> None:
        """Train in stages, then load the best checkpoint. ``Trainer`` describes the keywords."""
        Trainer(self, data_generator, validation_data, **chosen(kwargs, Trainer)).fit()
