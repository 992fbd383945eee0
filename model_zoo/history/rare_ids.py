"""Hide rare ids from training at random, so that the model learns what to do without them.

An id of its own is of no use where nearly every value is new. In training, though, each candidate has
one that its own sample gave it, and a model learns these by heart. It then knows nothing about the id
that all unknown values share in the test. So training shows that id in place of an id that ``n``
training samples have with probability ``rate / (rate + n)``, as Kiperwasser and Goldberg (TACL 2016)
do with words.

Shape suffixes: U rows (distinct items), V ids of a feature.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .. import ranks


class RareIds:
    """Counts how often candidates have each id, and hides ids of a batch.

    Args:
        features: the id of unknown values of each feature; features without one (0) are left alone.
        rate: an id that so many samples have is hidden half of the time. With 0, none is ever hidden.
    """

    def __init__(self, features: Mapping[str, int], rate: float) -> None:
        self.unknown = {name: unknown for name, unknown in features.items() if unknown and rate}
        self.rate = rate
        self._hidden: dict[str, Tensor] = {}

    def count(self, candidates: Iterable[Mapping[str, Tensor]], sizes: Mapping[str, int]) -> None:
        """Count the ids of the candidates of all training samples.

        Args:
            candidates: the features of the candidates, batch by batch.
            sizes: V of each feature.
        """
        counts = {name: torch.zeros(sizes[name], dtype=torch.long) for name in self.unknown}
        for columns in candidates:
            for name, count_V in counts.items():
                count_V += columns[name].long().flatten().cpu().bincount(minlength=len(count_V))
        for name, count_V in counts.items():
            chance_V = self.rate / (self.rate + ranks.total(count_V).double())
            chance_V[[0, self.unknown[name]]] = 0
            self._hidden[name] = chance_V.float().to(columns[name].device)

    def hide(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features of rows ``(U, ...)``, with some ids replaced by that of unknown values."""
        shown = dict(columns)
        for name, chance_V in self._hidden.items():
            ids = columns[name].long()
            hidden = torch.rand(ids.shape, device=ids.device) < chance_V[ids]
            shown[name] = ids.masked_fill(hidden, self.unknown[name])
        return shown
