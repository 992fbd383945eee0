"""Loads the rival: single modules of a LongCTR checkout, by path, on current package versions.

LongCTR's own entry point asserts fuxictr 2.3.2 and imports every model. The modules measured
here need neither, only ``keras_preprocessing``, a package that is no longer maintained and of which
LongCTR uses one function. Unless it is installed, a stand-in with that function is put into
``sys.modules`` before the import. None of LongCTR's code is copied or changed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..config.read import model_part
from .process import ROOT

LOADER = "longctr_dataloader.py"
MODELS = ("TWIN", "SDIM", "TransAct", "MIRRN")  # that we have too
SHORT_WINDOW = 50  # the most recent items, which its TWIN and SDIM read beside all
MISSING = "no rival: name a checkout of LongCTR with --longctr DIR to measure it in the same run"


def published(model: str) -> dict[str, Any]:
    """The shipped hyper-parameters on MicroVideo1.7M_x2: for LongCTR's models those of its best run."""
    return model_part(ROOT / "config", f"{model}_MicroVideo1.7M_x2")


def load_model(checkout: str | Path, name: str) -> Any:
    """The class of one of LongCTR's models."""
    return load_class(checkout, f"{name}/{name}.py", name)


def load_class(checkout: str | Path, file: str, name: str) -> Any:
    """A class of one of LongCTR's modules.

    Args:
        checkout: LongCTR's root folder.
        file: the module, relative to it.
        name: the class.

    Raises:
        UserError: the folder is not a checkout, or its module cannot be imported.
    """
    path = find(checkout, file)
    provide_keras_preprocessing()
    spec = importlib.util.spec_from_file_location(f"longctr_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, name)
    except Exception as error:  # it is foreign code: anything may be raised
        raise UserError(f"{path}: cannot be used here ({type(error).__name__}: {error})") from error


def find(checkout: str | Path, file: str) -> Path:
    """A file of the checkout.

    Raises:
        UserError: it has none, so it is no checkout.
    """
    path = Path(checkout) / file
    if not path.is_file():
        raise UserError(f"--longctr {checkout}: has no {file}; name the root of a LongCTR checkout")
    return path


def require_length(length: int) -> None:
    """See to it that histories are long enough for LongCTR's models.

    Raises:
        UserError: they are not.
    """
    if length < SHORT_WINDOW:
        raise UserError(
            f"--length {length}: LongCTR's models crash on batches shorter than their short window; "
            f"write {SHORT_WINDOW} or more, or leave --longctr out"
        )


def pad_sequences(
    sequences: Sequence[NDArray],
    maxlen: int,
    dtype: str = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0,
) -> NDArray:
    """Stands in for ``keras_preprocessing.sequence.pad_sequences``; ``(len(sequences), maxlen)``.

    Like the original it fills one row per sequence in a Python loop. Only what LongCTR's loader
    asks for by default is here: padding and truncation on the left.
    """
    if padding != "pre" or truncating != "pre":
        raise NotImplementedError("the stand-in pads and truncates on the left (pre) only")
    rows = np.full((len(sequences), maxlen), value, dtype=dtype)
    for row, sequence in zip(rows, sequences, strict=True):
        kept = sequence[-maxlen:]
        if len(kept):
            row[-len(kept) :] = kept
    return rows


def provide_keras_preprocessing() -> None:
    """Put the stand-in where the import looks for the package, unless it is installed."""
    if "keras_preprocessing" in sys.modules or importlib.util.find_spec("keras_preprocessing"):
        return
    package = ModuleType("keras_preprocessing")
    package.sequence = sequence = ModuleType("keras_preprocessing.sequence")
    sequence.pad_sequences = pad_sequences
    sys.modules |= {package.__name__: package, sequence.__name__: sequence}
