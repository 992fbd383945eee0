"""The registry: every model is found by its name, and names tell what a model is made of."""

import pickle
import subprocess
import sys

import pytest
from fuxictr.pytorch.models import BaseModel

import model_zoo
from model_zoo import registry

from ..support.command_line import ROOT


def test_every_model_is_a_fuxictr_model_found_by_its_name() -> None:
    variants = ("", "_DSelectK", "_GShard", "_ExpertChoice", "_MoS", "_Ensemble")
    backbones = ("Mamba4Rec", "TransAct", "TWIN", "SDIM", "HSTU", "DIN", "SIM", "ETA")
    names = [b + v for b in backbones for v in variants]
    assert list(model_zoo.MODELS) == [*names, "MIRRN", "MiasRec", "AttenMixer"]
    for name, model in model_zoo.MODELS.items():
        assert getattr(model_zoo, name) is model and issubclass(model, BaseModel)
        assert model.__name__ == name and name in model_zoo.__all__ and name in dir(model_zoo)
        assert pickle.loads(pickle.dumps(model)) is model


def test_a_variant_is_its_backbone_with_a_mixture() -> None:
    from model_zoo import TWIN, TWIN_MoS
    from model_zoo.moe.mos import MoS

    assert issubclass(TWIN_MoS, TWIN) and TWIN_MoS.mixture is MoS and TWIN_MoS.block is TWIN.block


def test_names_cost_no_import_of_torch() -> None:
    code = "import sys, model_zoo.registry as r; print(r.model_names()); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{registry.model_names()}\n"


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean TWIN_MoS"):
        model_zoo.get_model("TWIN_Mos")
    with pytest.raises(AttributeError, match="TWIN_Mos"):
        model_zoo.TWIN_Mos  # noqa: B018


@pytest.mark.parametrize(
    ("model", "backbone", "mixture"),
    [
        ("TWIN_MoS", "TWIN", "MoS"),
        ("Mine_Ensemble", "Mine", "Ensemble"),
        ("TWIN", "TWIN", ""),
        ("MIRRN", "MIRRN", ""),
        ("Mean_Pool_MoS", "Mean_Pool", "MoS"),
        ("Mean_Pool", "Mean_Pool", ""),
        ("TWIN_Soft_Slots", "TWIN", "Soft_Slots"),
    ],
)
def test_a_name_tells_backbone_and_mixture(model: str, backbone: str, mixture: str) -> None:
    assert registry.backbone_of(model) == backbone and registry.mixture_of(model) == mixture
    assert registry.variant(backbone, mixture) == model


def test_labels_and_papers() -> None:
    assert [registry.label(name) for name in ("", "DSelectK", "TWIN", "Mine")] == [
        "Vanilla", "DSelect-k", "TWIN", "Mine",
    ]  # fmt: skip
    for model in registry.model_names():
        entry = registry.publication(model)
        assert entry is not None and str(entry.year)[2:] == entry.venue[-2:], model
    found = [registry.publication(name) for name in ("SDIM_MoS", "MIRRN", "Mine")]
    assert [entry and entry.venue for entry in found] == ["WWW'26", "KDD'25", None]


def test_unknown_names_come_after_the_registered_ones() -> None:
    names = ["Mine", "SDIM", "TWIN", "Another", "TWIN"]
    assert registry.in_order(names, registry.BACKBONES) == ["TWIN", "SDIM", "Another", "Mine"]
