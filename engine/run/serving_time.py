"""How long a trained model takes to score the candidates of one user."""

import logging
import statistics
import time

import torch

from model_zoo.batch import Batch
from model_zoo.sequence_model import SequenceModel
from model_zoo.serving import ServedModel, serving_inputs
from model_zoo.training.base_model import StagedModel

CANDIDATES = 100
ROUNDS, UNTIMED = 20, 3


def serving_ms(model: StagedModel, batch: Batch, max_len: int) -> float | None:
    """The median time of scoring 100 candidates of one user, in milliseconds, on the model's device.

    The model has its serving form, uncompiled (see ``model_zoo/serving.py``). The user is the one of the
    batch with the longest history, and the candidates are those of its samples, over again if there are few.
    None where it cannot be measured, as for a foreign model.
    """
    if not isinstance(model, SequenceModel):
        return None
    try:
        return _measured(model, batch, max_len)
    except Exception as error:  # an own block may do anything; a trained model must not be lost
        logging.warning(f"the serving time was not measured ({type(error).__name__}: {error})")
        return None


@torch.no_grad()
def _measured(model: SequenceModel, batch: Batch, max_len: int) -> float:
    mask_BL = batch[2]
    sample_N = torch.arange(CANDIDATES, device=mask_BL.device) % len(mask_BL)
    sample_N[0] = mask_BL.sum(1).argmax()  # whose history is read for all
    inputs = serving_inputs(batch, sample_N, model.context_features(batch[0]), max_len)
    served, seconds = ServedModel(model, max_len), []
    for _ in range(UNTIMED + ROUNDS):
        start = time.perf_counter()
        served(*inputs).cpu()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[UNTIMED:])
