"""LongCTR's own ``run_expid.py``, unchanged, on the package versions that are installed.

    python -m engine.bench.longctr_run CHECKOUT INITIAL REPORT ARGUMENTS_OF_RUN_EXPID ...

What it needs of fuxictr 2.3.2 and is gone since then gets a stand-in in this process alone: the
version that it asserts, ``keras_preprocessing``, and ``RankDataLoader(...).make_iterator()``. Of its
code nothing is copied or changed, and nothing is written into its checkout: it stays in the folder
that it is started in. The state that training starts from goes to the file INITIAL, so that another
model can start there too, and what the run measures to REPORT.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from functools import wraps
from inspect import isfunction
from pathlib import Path
from typing import Any

from .longctr import provide_keras_preprocessing


def main() -> None:
    checkout, initial, report, *arguments = sys.argv[1:]
    script = Path(checkout).resolve() / "run_expid.py"
    provide_keras_preprocessing()
    found = _watch(initial)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    os.chdir = lambda folder: None  # it would go to its checkout, and append its results there
    runpy.run_path(str(script), run_name="__main__")
    Path(report).write_text(json.dumps(found))


def _watch(initial: str) -> dict[str, Any]:
    """Put the stand-ins into FuxiCTR, and watch its models.

    Returns:
        ``metrics``, of each evaluation in turn; ``seconds`` spent in ``fit``, in its ``eval_step``
        and in all ``evaluate``; filled while they run.
    """
    import fuxictr
    import torch
    from fuxictr.pytorch import dataloaders
    from fuxictr.pytorch.models import BaseModel

    fuxictr.__version__ = "2.3.2"
    if isfunction(dataloaders.RankDataLoader):
        dataloaders.RankDataLoader = _with_make_iterator(dataloaders.RankDataLoader)
    found: dict[str, Any] = {"metrics": [], "seconds": {}}

    def timed(name: str, before: Callable = lambda model: None) -> None:
        method = getattr(BaseModel, name)

        @wraps(method)
        def call(model: BaseModel, /, *args: Any, **kwargs: Any) -> Any:
            before(model)
            start = time.perf_counter()
            result = method(model, *args, **kwargs)
            seconds = found["seconds"]
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
            if name == "evaluate":
                found["metrics"].append(result)
            return result

        setattr(BaseModel, name, call)

    timed("fit", before=lambda model: torch.save(model.state_dict(), initial))
    timed("eval_step")
    timed("evaluate")
    return found


def _with_make_iterator(loaders: Callable[..., Any]) -> type:
    """``RankDataLoader`` as the class it was: since then a function gives the loaders at once."""

    class RankDataLoader:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.loaders = loaders(*args, **kwargs)

        def make_iterator(self) -> Any:
            return self.loaders

    return RankDataLoader


if __name__ == "__main__":
    main()
