"""Memory of the loader in a process of its own:
``python -m engine.bench.loader_memory FEW FOLDER LENGTH BATCH`` prints the bytes of its resident tables,
and the peaks of loading them and of an epoch.

Counted is what comes on top of loading the data set FEW, of a few users: code and pools of the
libraries are not the tables'.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ..loader.loader import SequenceLoader
from ..run.cpu import keep_freed_memory
from . import microvideo
from .process import ROOT, forget_peak, memory

FEW = 40  # users


def loader_bytes(folder: Path, length: int, batch_size: int) -> tuple[int, int, int]:
    """Of the tables, at the peak of loading, and at the peak of an epoch; of a data set's ``train``."""
    with tempfile.TemporaryDirectory() as few:
        microvideo.ensure_dataset(Path(few), FEW)
        arguments = [few, str(folder.resolve()), str(length), str(batch_size)]
        command = [sys.executable, "-m", "engine.bench.loader_memory", *arguments]
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    resident, loading, epoch = map(int, found.stdout.split())
    return resident, loading, epoch


def main() -> None:
    few, folder = map(Path, sys.argv[1:3])
    options = {"batch_size": int(sys.argv[4]), "max_len": int(sys.argv[3])}
    _pass(_load(few, options))
    keep_freed_memory()  # as run_expid.py does
    before = memory("VmRSS")
    forget_peak()
    loader = _load(folder, options)
    loading = memory("VmHWM") - before
    forget_peak()
    _pass(loader)
    resident = loader.histories.nbytes + loader.items.nbytes + loader.samples.nbytes
    print(resident, loading, memory("VmHWM") - before)


def _pass(loader: SequenceLoader) -> None:
    for _ in loader:
        pass


def _load(folder: Path, options: dict[str, int]) -> SequenceLoader:
    files = (folder / f"{name}.parquet" for name in ("train", "user_info", "item_info"))
    return SequenceLoader(microvideo.feature_map(), *files, **options)


if __name__ == "__main__":
    main()
