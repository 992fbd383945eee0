"""Builders that several test files use.

Shape suffixes as in the code: B samples, L history length, D item width.
"""

import builtins
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

import model_zoo
from engine.config import read as config
from engine.config.feature_map import build_feature_map
from engine.config.validate import check
from engine.loader.loader import SequenceLoader
from engine.loader.random_batch import random_batch as random_batch
from model_zoo.history import item_dict, rows
from model_zoo.history.history import History
from model_zoo.history.item_dict import ItemDict
from model_zoo.layers import block
from model_zoo.moe.codebook import Codebook
from model_zoo.registry import (
    BACKBONES,
    BASELINES,
    CONTROLS,
    MIXTURES,
    mixture_of,
    model_names,
    variant,
)
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.loop import Trainer

CONFIG = Path(__file__).parents[2] / "config"
# Every block and every mixture once, for tests that take many seconds for a model.
EACH_PART_ONCE = [*BACKBONES, *BASELINES, *(variant("TWIN", m) for m in (*MIXTURES, *CONTROLS))]
# All models but the other ones with a control, for tests that take less.
NEARLY_ALL = [n for n in model_names() if n in EACH_PART_ONCE or mixture_of(n) not in CONTROLS]


def all_models(
    typical: Sequence[str] = EACH_PART_ONCE, names: Sequence[str] = tuple(model_names())
) -> list[Any]:
    """Models as parameters of a test, of which the default run takes the typical ones."""
    slow = pytest.mark.slow
    return [name if name in typical else pytest.param(name, marks=slow) for name in names]


def ragged_history(
    lengths: list[int], L: int, D: int, num_rows: int = 50, dtype: torch.dtype = torch.float64
) -> History:
    """A random history with rows that repeat, and noise in the padding."""
    rows_UD = torch.randn(num_rows, D, dtype=dtype, requires_grad=True)
    index_BL = torch.randint(num_rows, (len(lengths), L))
    mask_BL = torch.arange(L) >= L - torch.tensor(lengths)[:, None]
    return History(rows_UD, index_BL, mask_BL)


def tiny_params(data: Path, model: str = "TWIN_MoS", **changes: Any) -> dict[str, Any]:
    """Checked parameters of a model on the tiny data, with some changed."""
    params = config.load_experiment(CONFIG, f"{model}_session_hopping_tiny") | changes
    params["data_root"] = str(data.parent)
    for key in ("train_data", "valid_data", "test_data", "user_info", "item_info"):
        params[key] = str(data / Path(params[key]).name)
    return check(params, model_zoo.get_model(model))


def build_model(params: dict[str, Any], seed: int = 0) -> SequenceModel:
    """A model with the initialisation of ``seed``."""
    torch.manual_seed(seed)
    return model_zoo.get_model(params["model"])(build_feature_map(params), **params)


def loader(params: dict[str, Any], split: str = "train", **changes: Any) -> SequenceLoader:
    """A loader of one split."""
    options = {"batch_size": params["batch_size"], "max_len": params["max_len"]} | changes
    return SequenceLoader(
        build_feature_map(params),
        params[f"{split}_data"],
        params["user_info"],
        params["item_info"],
        **options,
    )


def improving(model: SequenceModel) -> SequenceModel:
    """The model, of which every evaluation seems better than the one before: the last weights win."""
    scores = count()
    model.evaluate = lambda _: dict.fromkeys(model.validation_metrics, float(next(scores)))
    model.monitored = lambda metrics: metrics[model.validation_metrics[0]]
    return model


def codebooks(model: SequenceModel) -> list[Codebook]:
    """The codebooks of a model's routers."""
    return [module for module in model.modules() if isinstance(module, Codebook)]


def rows_of(batch: tuple, keep: list[int], cut: int = 0) -> tuple:
    """Some samples of a batch, without the first ``cut`` columns."""
    batch_dict, items, mask = batch
    return (
        {name: column[keep] for name, column in batch_dict.items()},
        ItemDict(
            items.tables,
            items.index[keep][:, cut:],
            None if items.matches is None else items.matches[keep],
            {name: bucket_BL[keep][:, cut:] for name, bucket_BL in items.events.items()},
        ),
        mask[keep][:, cut:],
    )


def gather_always(patch: pytest.MonkeyPatch) -> None:
    """From now on histories are read as on a GPU: gathered, and without a look at their contents."""
    for module in (item_dict, rows, block):
        patch.setattr(module, "on_eager_cpu", lambda x: False)


class _Killed(Exception):
    pass


@contextmanager
def killed_after(saves: int) -> Iterator[None]:
    """Training inside must save its state ``saves`` times; it dies right after the last."""
    real, done = Trainer._save_state, 0

    def save_then_die(trainer: Trainer) -> None:
        nonlocal done
        real(trainer)
        done += 1
        if done == saves:
            raise _Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(Trainer, "_save_state", save_then_die)
        yield


def without_package(monkeypatch: pytest.MonkeyPatch, package: str, *importers: str) -> None:
    """Make a package look as if it were not installed, to modules that are then imported anew."""
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in importers:
        monkeypatch.delitem(sys.modules, name, raising=False)
