"""A configuration is flat: a model's keys are the keyword-only parameters of its parts."""

from typing import Any

import pytest

from model_zoo.moe.dselect_k import DSelectK
from model_zoo.moe.expert_choice import ExpertChoice
from model_zoo.moe.gshard import GShard
from model_zoo.moe.mixtures import Mixture
from model_zoo.moe.mos import MoS
from model_zoo.training.hyper_parameters import chosen, keywords

SHARED = {"num_experts": int, "backbone_warmup_epochs": float, "expert_warmup_epochs": float}
ONE_BRANCH = SHARED | {"alpha_moe": float, "router_topk": int}
KEYS: dict[type[Mixture], dict[str, Any]] = {
    Mixture: {},
    GShard: ONE_BRANCH
    | dict.fromkeys(("capacity_factor", "eval_capacity_factor"), float)
    | dict.fromkeys(("second_threshold", "balance_coef"), float),
    DSelectK: ONE_BRANCH | {"smooth_step_width": float, "entropy_coef": float, "dselect_mode": str},
    ExpertChoice: ONE_BRANCH,
    MoS: SHARED
    | dict.fromkeys(("router_topk", "codebook_dim", "codebook_restarts", "revive_after"), int)
    | dict.fromkeys(("codebook_decay", "router_temperature"), float)
    | dict.fromkeys(("codebook_init", "router_weight", "window_anchor"), str)
    | {"window_size": int, "window_stride": int, "alpha_item": float, "alpha_window": float},
}


@pytest.mark.parametrize("mixture", KEYS, ids=lambda mixture: mixture.__name__)
def test_a_mixture_has_the_keys_of_its_router(mixture: type[Mixture]) -> None:
    assert keywords(*mixture.readers()) == KEYS[mixture]


def test_a_base_is_read_where_keywords_are_passed_on() -> None:
    class Base:
        def __init__(self, *, width: int = 1, depth: int = 1) -> None:
            pass

    class Passing(Base):
        def __init__(self, name: str, *, width: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    class Closed(Base):
        def __init__(self, *, rate: float = 0.1) -> None:
            super().__init__()

    class Other:
        def __init__(self, x: int, *, seed: int) -> None:
            pass

    assert keywords(Passing) == {"width": float, "depth": int}  # the class comes before its base
    assert keywords(Closed, Other) == {"rate": float, "seed": int}
    config = {"seed": 3, "rate": 0.5, "other": 1}
    assert chosen(config, Closed, Other) == {"rate": 0.5, "seed": 3}
