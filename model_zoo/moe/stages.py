"""The stages of training (paper 4.3)."""

from dataclasses import dataclass
from enum import StrEnum


class StageName(StrEnum):
    """The name of a stage, which says what it trains. Logs and state files hold the plain string.

    Attributes:
        BACKBONE: embedding layer, global block and head; the experts do not run.
        EXPERTS: experts and routers; the rest is frozen.
        JOINT: everything. It is the only stage of a model without experts.
    """

    BACKBONE = "backbone"
    EXPERTS = "experts"
    JOINT = "joint"


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: what the stage trains.
        epochs: the most epochs of the stage; may be a fraction.
    """

    name: StageName
    epochs: float
