"""How long a trained model takes to score the candidates of one user."""

import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from model_zoo.sequence_model import SequenceModel
from model_zoo.serving import ServedModel, serving_inputs

from ..loader.columns import Arrays
from ..loader.loader import SequenceLoader

CANDIDATES = 100
ROUNDS, UNTIMED = 20, 3


@torch.no_grad()
def serving_ms(model: SequenceModel, loader: SequenceLoader) -> float:
    """The median time of scoring 100 candidates of one user, in milliseconds, on the model's device.

    The model has its serving form, uncompiled (see ``model_zoo/serving.py``). The user is one with the
    longest history of the split. The candidates are those of its first samples, over again if there are few.
    """
    user, item_N = _longest(loader)
    asked = {name: np.tile(value, (CANDIDATES, *[1] * value.ndim)) for name, value in user.items()}
    asked["item_index"] = np.resize(item_N, CANDIDATES)
    if loader.matches is not None:
        asked |= loader.matches.column(asked)
    batch = loader.collate(asked)
    sample_N = torch.arange(CANDIDATES, device=loader.device)
    context = model.context_features(batch[0])
    inputs = serving_inputs(batch, sample_N, context, loader.max_len)
    served, seconds = ServedModel(model, loader.max_len), []
    for _ in range(UNTIMED + ROUNDS):
        start = time.perf_counter()
        served(*inputs).cpu()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[UNTIMED:])


def _longest(loader: SequenceLoader) -> tuple[Arrays, NDArray]:
    """A sample with the longest history, and the items of the first samples."""
    found: Arrays = {}
    for columns in loader.samples.batches(loader.batch_size, rng=None):
        row = columns["seq_len"].argmax()
        if not found:
            item_N = columns["item_index"]
        if not found or columns["seq_len"][row] > found["seq_len"]:
            found = {name: column[row] for name, column in columns.items()}
    return found, item_N
