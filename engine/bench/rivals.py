"""The rival: modules of a LongCTR checkout, imported by path, and its own ``run_expid.py``.

None of LongCTR's code is copied or changed. Its entry point asserts fuxictr 2.3.2 and imports every model;
the single modules that are measured need neither. This file runs that entry point, unchanged, on the
package versions that are installed:

    python -m engine.bench.rivals CHECKOUT INITIAL METRICS ARGUMENTS_OF_RUN_EXPID ...

Some things that it needs of fuxictr 2.3.2 are gone since then. They get stand-ins in this process
alone: the version that it asserts, ``keras_preprocessing``, and ``RankDataLoader(...).make_iterator()``.
Nothing is written into its checkout: it stays in the folder that it is started in. The weights that
training starts from go to the file INITIAL, so that another model can start there too, and the metrics
of all evaluations go to METRICS.
"""

import importlib.util
import json
import os
import runpy
import sys
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from ..common.errors import UserError
from ..common.places import CONFIG
from ..config.read import model_part

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


def main() -> None:
    checkout, initial, metrics, *arguments = sys.argv[1:]
    script = Path(checkout).resolve() / "run_expid.py"
    provide_keras_preprocessing()
    _adapt_fuxictr(initial, metrics)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    # LongCTR would change to its checkout, and append its results to a file there.
    vars(os)["chdir"] = lambda folder: None
    runpy.run_path(str(script), run_name="__main__")


def _adapt_fuxictr(initial: str, metrics: str) -> None:
    """Put the stand-ins into FuxiCTR, and have its models write the two files."""
    import fuxictr
    import torch
    from fuxictr.pytorch import dataloaders
    from fuxictr.pytorch.models import BaseModel

    fuxictr.__version__ = "2.3.2"
    loaders = dataloaders.RankDataLoader
    if isfunction(loaders):  # it was a class, and now is a function that gives the loaders at once
        dataloaders.RankDataLoader = lambda *args, **kwargs: SimpleNamespace(
            make_iterator=lambda: loaders(*args, **kwargs)
        )
    fit, evaluate = BaseModel.fit, BaseModel.evaluate
    found: list[dict[str, float]] = []

    def save_and_fit(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        torch.save(model.state_dict(), initial)
        return fit(model, *args, **kwargs)

    def evaluate_and_save(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        found.append(evaluate(model, *args, **kwargs))
        Path(metrics).write_text(json.dumps(found))
        return found[-1]

    BaseModel.fit, BaseModel.evaluate = save_and_fit, evaluate_and_save


def provide_keras_preprocessing() -> None:
    """Put FuxiCTR's functions where imports look for ``keras_preprocessing``, unless it is installed.

    The package is no longer maintained. LongCTR uses its ``pad_sequences``, of which FuxiCTR has a copy.
    """
    name = "keras_preprocessing"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        sys.modules[name] = ModuleType(name)
        sys.modules[f"{name}.sequence"] = import_module("fuxictr.preprocess.tokenizer")


if __name__ == "__main__":
    main()
