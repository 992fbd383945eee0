"""Load the model of a run that is finished."""

from pathlib import Path

from fuxictr.features import FeatureMap

from model_zoo.training.base_model import StagedModel
from model_zoo.training.progress import TrainingError, digest_of, load_saved

from ..common.errors import UserError
from ..common.files import read_if_whole
from ..config.models import build, find_model
from ..config.read import Params
from .result import Result


def load_trained(
    params: Params, feature_map: FeatureMap, checkpoint: Path, gpu: int = -1, digest: str = ""
) -> StagedModel:
    """A model with the weights of a checkpoint.

    Args:
        params: checked parameters of the experiment, see ``engine.config.load.load``.
        feature_map: of its data set.
        checkpoint: ``<expid>_seed<seed>.model``.
        gpu: the CUDA device, or -1 for the CPU.
        digest: of the checkpoint, where the result of its run has one.

    Raises:
        UserError: there is no such file, or it has weights of another run or model.
    """
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such checkpoint; train the experiment first")
    zoo = params.get("model_zoo")
    model_class = find_model(params["model"], Path(zoo) if zoo else None)
    model = build(model_class, feature_map, params | {"gpu": gpu}, params["model_id"])
    try:
        model.load_state_dict(load_saved(checkpoint, digest))
    except TrainingError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # torch raises anything for a damaged file
        reason = " ".join(str(error).split())[:300]
        what = f"not weights of {params['model']} as {params['model_id']} describes it ({reason})"
        raise UserError(f"{checkpoint}: {what}") from None
    return model


def require_weights_of_result(checkpoint: Path) -> None:
    """Raise a UserError if the result beside a checkpoint, where there is one, is of other weights."""
    known = read_if_whole(checkpoint.with_suffix(".json"), Result).get("weights")
    try:
        if known and digest_of(checkpoint) != known:
            what = "has weights of another run than the result beside it"
            raise UserError(f"init_from: {checkpoint} {what}; restore it, or train again")
    except TrainingError as error:
        raise UserError(f"init_from: {error}") from None
