"""The model zoo. Models are found by name: ``getattr(model_zoo, "TWIN_MoS")`` or ``get_model``."""

from __future__ import annotations

from difflib import get_close_matches

from .backbones.mamba4rec import (
    Mamba4Rec,
    Mamba4Rec_DSelectK,
    Mamba4Rec_ExpertChoice,
    Mamba4Rec_GShard,
    Mamba4Rec_MoS,
)
from .backbones.sdim import (
    SDIM,
    SDIM_DSelectK,
    SDIM_ExpertChoice,
    SDIM_GShard,
    SDIM_MoS,
)
from .backbones.transact import (
    TransAct,
    TransAct_DSelectK,
    TransAct_ExpertChoice,
    TransAct_GShard,
    TransAct_MoS,
)
from .backbones.twin import (
    TWIN,
    TWIN_DSelectK,
    TWIN_ExpertChoice,
    TWIN_GShard,
    TWIN_MoS,
)
from .baselines.attenmixer import AttenMixer
from .baselines.miasrec import MiasRec
from .baselines.mirrn import MIRRN
from .sequence_model import SequenceModel

MODELS: dict[str, type[SequenceModel]] = {
    model.__name__: model
    for model in (
        Mamba4Rec,
        Mamba4Rec_GShard,
        Mamba4Rec_DSelectK,
        Mamba4Rec_ExpertChoice,
        Mamba4Rec_MoS,
        TransAct,
        TransAct_GShard,
        TransAct_DSelectK,
        TransAct_ExpertChoice,
        TransAct_MoS,
        TWIN,
        TWIN_GShard,
        TWIN_DSelectK,
        TWIN_ExpertChoice,
        TWIN_MoS,
        SDIM,
        SDIM_GShard,
        SDIM_DSelectK,
        SDIM_ExpertChoice,
        SDIM_MoS,
        MIRRN,
        AttenMixer,
        MiasRec,
    )
}

__all__ = [*MODELS, "MODELS", "get_model"]


def get_model(name: str) -> type[SequenceModel]:
    """The model class of that name.

    Raises:
        ValueError: there is none; the message names the nearest one and all there are.
    """
    if name in MODELS:
        return MODELS[name]
    near = get_close_matches(name, MODELS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"model: {name!r} is not a model; {hint}There are: {', '.join(MODELS)}")
