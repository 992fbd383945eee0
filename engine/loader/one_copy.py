"""One copy of the data's arrays for all processes of a machine that train one model together."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from model_zoo import ranks

from .columns import Arrays


def one_copy(make: Callable[[], Arrays]) -> Arrays:
    """Arrays that the first process of a machine makes, and that all of them map into memory.

    They are files in the folder for temporary files, which are deleted once all processes have mapped
    them. What a process writes into them, it alone sees. A process by itself keeps what it makes.

    Raises:
        SystemExit: in the other processes, if making fails in a first one, which says why.
    """
    if ranks.size() == 1:
        return make()
    local = int(os.environ["LOCAL_RANK"])
    with TemporaryDirectory() as folder:
        made: tuple[str, list[str]] | None = None if local == 0 else ("", [])
        try:
            if local == 0:
                arrays = make()
                for number, array in enumerate(arrays.values()):
                    np.save(Path(folder, f"{number}.npy"), array)
                made = folder, [*arrays]
        finally:
            found = ranks.all_of(made)
        if None in found:
            raise SystemExit(2)
        where, names = found[ranks.rank() - local]
        files = [Path(where, f"{number}.npy") for number in range(len(names))]
        mapped = [np.asarray(np.load(file, mmap_mode="c")) for file in files]
        ranks.all_of(None)  # all have mapped them
        return dict(zip(names, mapped, strict=True))
