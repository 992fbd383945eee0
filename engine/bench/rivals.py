"""The rival: single modules of a LongCTR checkout, imported by path, on current package versions.

LongCTR's own entry point asserts fuxictr 2.3.2 and imports every model. The modules that are measured
here need neither. None of LongCTR's code is copied or changed.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.places import CONFIG
from ..config.read import model_part
from .longctr_run import provide_keras_preprocessing

LOADER = "longctr_dataloader.py"
SHORTEST = 50  # LongCTR's short window: it crashes on shorter batches, or shifts their mask


def published(model: str) -> dict[str, Any]:
    """Read the shipped hyper-parameters on MicroVideo1.7M_x2; LongCTR's models have its best run's."""
    return model_part(CONFIG, f"{model}_MicroVideo1.7M_x2")


def load_class(checkout: str | Path, file: str, name: str) -> Any:
    """Import a class of one of LongCTR's modules.

    Args:
        checkout: LongCTR's root folder.
        file: the module, relative to it.
        name: the class.

    Raises:
        UserError: the folder is not a checkout, or its module cannot be imported.
    """
    path = find(checkout, file)
    provide_keras_preprocessing()
    try:
        return runpy.run_path(str(path))[name]
    except Exception as error:  # it is foreign code: anything may be raised
        raise UserError(f"{path}: cannot be used here ({type(error).__name__}: {error})") from error


def find(checkout: str | Path, file: str) -> Path:
    """Find a file of the checkout.

    Raises:
        UserError: the folder has no such file, so it is no checkout.
    """
    path = Path(checkout) / file
    if not path.is_file():
        raise UserError(f"--longctr {checkout}: has no {file}; name the root of a LongCTR checkout")
    return path
