"""The registry of models: one line for each backbone, mixture and baseline.

Every list of models in the project is read from here. A backbone alone is a model (``TWIN``). With
a mixture it is a variant (``TWIN_MoS``). A line names the file of a class and does not import it.
So names, labels and papers can be read without importing torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sequence_model import SequenceModel


@dataclass(frozen=True)
class Registered:
    """A line of the registry: a class, the file it is in, and the paper it comes from.

    Attributes:
        name: name of the class.
        module: dotted name of its file, relative to this package.
        label: its name in tables and figures.
        year, venue: when and where the paper was published, as in BARS' leaderboards.
        paper: URL of the paper.
    """

    name: str
    module: str
    label: str
    year: int
    venue: str
    paper: str

    def load(self) -> Any:
        """Import the class and return it."""
        return getattr(import_module(f".{self.module}", __package__), self.name)


def _by_name(*entries: Registered) -> dict[str, Registered]:
    return {entry.name: entry for entry in entries}


# Each list is in the order in which the paper's tables show it.
BACKBONES = _by_name(
    Registered("Mamba4Rec", "backbones.mamba4rec", "Mamba4Rec", 2024, "RelKD'24", "https://arxiv.org/abs/2403.03900"),
    Registered("TransAct", "backbones.transact", "TransAct", 2023, "KDD'23", "https://arxiv.org/abs/2306.00248"),
    Registered("TWIN", "backbones.twin", "TWIN", 2023, "KDD'23", "https://arxiv.org/abs/2302.02352"),
    Registered("SDIM", "backbones.sdim", "SDIM", 2022, "CIKM'22", "https://arxiv.org/abs/2205.10249"),
    Registered("HSTU", "backbones.hstu", "HSTU", 2024, "ICML'24", "https://arxiv.org/abs/2402.17152"),
    Registered("DIN", "backbones.din", "DIN", 2018, "KDD'18", "https://arxiv.org/abs/1706.06978"),
    Registered("SIM", "backbones.sim", "SIM", 2020, "CIKM'20", "https://arxiv.org/abs/2006.05639"),
    Registered("ETA", "backbones.eta", "ETA", 2022, "DLP-KDD'22", "https://arxiv.org/abs/2209.12212"),
)  # fmt: skip
MIXTURES = _by_name(
    Registered("DSelectK", "moe.dselect_k", "DSelect-k", 2021, "NeurIPS'21", "https://arxiv.org/abs/2106.03760"),
    Registered("GShard", "moe.gshard", "GShard", 2021, "ICLR'21", "https://arxiv.org/abs/2006.16668"),
    Registered("ExpertChoice", "moe.expert_choice", "Expert Choice", 2022, "NeurIPS'22", "https://arxiv.org/abs/2202.09368"),
    Registered("MoS", "moe.mos", "MoS", 2026, "WWW'26", "https://doi.org/10.1145/3774904.3792483"),
)  # fmt: skip
CONTROLS = _by_name(  # mixtures that the paper does not have, which run only where they are named
    Registered("Ensemble", "moe.ensemble", "Ensemble", 2017, "NeurIPS'17", "https://arxiv.org/abs/1612.01474"),
)  # fmt: skip
BASELINES = _by_name(
    Registered("MIRRN", "baselines.mirrn", "MIRRN", 2025, "KDD'25", "https://arxiv.org/abs/2411.15005"),
    Registered("MiasRec", "baselines.miasrec", "MiasRec", 2024, "SIGIR'24", "https://arxiv.org/abs/2405.00986"),
    Registered("AttenMixer", "baselines.attenmixer", "AttenMixer", 2023, "WSDM'23", "https://doi.org/10.1145/3539597.3570445"),
)  # fmt: skip

_ENTRIES = BACKBONES | MIXTURES | CONTROLS | BASELINES  # all lines by name

VANILLA = ""  # the mixture of a backbone by itself
OURS = "MoS"  # the mixture that the paper proposes


# ---------------------------------------------------------------- names


def model_names() -> list[str]:
    """The names of all models: each backbone and its variants, then the baselines."""
    mixtures = (VANILLA, *MIXTURES, *CONTROLS)
    return [variant(b, m) for b in BACKBONES for m in mixtures] + list(BASELINES)


def variant(backbone: str, mixture: str) -> str:
    """The name of a backbone with a mixture: ``TWIN_MoS``, or ``TWIN`` for ``VANILLA``."""
    return f"{backbone}_{mixture}" if mixture else backbone


def backbone_of(model: str) -> str:
    """The name of a model's backbone: ``TWIN`` for ``TWIN_MoS``, and for ``TWIN`` itself.

    The model need not be registered. It counts as a variant if its name ends with a registered
    mixture (``Mine_MoS``) or starts with a registered backbone (``TWIN_Mine``). Any other model is
    its own backbone.
    """
    return _split(model)[0]


def mixture_of(model: str) -> str:
    """The name of a model's mixture: ``MoS`` for ``TWIN_MoS``, ``VANILLA`` where it has none."""
    return _split(model)[1]


def _split(model: str) -> tuple[str, str]:
    backbone, _, mixture = model.rpartition("_")
    if backbone and mixture in MIXTURES | CONTROLS:
        return backbone, mixture
    for backbone in BACKBONES:
        if model.startswith(f"{backbone}_"):
            return backbone, model.removeprefix(f"{backbone}_")
    return model, VANILLA


def label(name: str) -> str:
    """The label of a backbone, mixture or baseline in tables; an unknown name is its own label."""
    if name == VANILLA:
        return "Vanilla"
    entry = _ENTRIES.get(name)
    return entry.label if entry else name


def publication(model: str) -> Registered | None:
    """The registry line with a model's paper: its mixture's if it has one, otherwise its own.

    It is None for a model that is not registered.
    """
    return _ENTRIES.get(mixture_of(model) or model)


def in_order(names: Iterable[str], first: Iterable[str]) -> list[str]:
    """The distinct names, sorted: names in ``first`` come in its order, then all others A to Z."""
    found = set(names)
    known = [name for name in first if name in found]
    return known + sorted(found.difference(known))


# ---------------------------------------------------------------- classes


@cache
def get_model(name: str) -> "type[SequenceModel]":
    """The model class with this name.

    Raises:
        ValueError: no model has this name. The message suggests the nearest one and lists all.
    """
    if name in model_names():
        backbone, mixture = _split(name)
        model = _ENTRIES[backbone].load()
        return make_variant(model, mixture, __package__) if mixture else model
    near = get_close_matches(name, model_names(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"model: {name!r} is not a model; {hint}There are: {', '.join(model_names())}")


@cache
def make_variant(model: "type[SequenceModel]", mixture: str, module: str) -> "type[SequenceModel]":
    """Make the class of a backbone with a registered mixture.

    Args:
        model: class of the vanilla backbone.
        mixture: name of the mixture.
        module: name of the module in which pickle looks up the new class.
    """
    entry = _ENTRIES[mixture]
    text = f"{model.__name__} with the mixture {entry.label}."
    parts = {"mixture": entry.load(), "__doc__": text, "__module__": module}
    return type(variant(model.__name__, mixture), (model,), parts)
