"""Run LongCTR's own ``run_expid.py``, unchanged, on the package versions that are installed.

    python -m engine.bench.longctr_run CHECKOUT INITIAL METRICS ARGUMENTS_OF_RUN_EXPID ...

Some things that it needs of fuxictr 2.3.2 are gone since then. They get stand-ins in this process
alone: the version that it asserts, ``keras_preprocessing``, and ``RankDataLoader(...).make_iterator()``.
None of its code is copied or changed, and nothing is written into its checkout: it stays in the folder
that it is started in. The weights that training starts from go to the file INITIAL, so that another
model can start there too, and the metrics of all evaluations go to METRICS.
"""

from __future__ import annotations

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
