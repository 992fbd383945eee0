"""Data sets: make, fetch or convert one into LongCTR's parquet layout, and check it.

``raw`` reads tables, ``forms`` says what their columns mean, ``writing`` makes a folder of the
log, and ``prepared`` is about that folder. ``hub`` fetches a data set and ``synthetic`` makes one.
``command`` is ``data/prepare.py``.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

GENERATED = {
    "session_hopping": "small",
    "session_hopping_tiny": "tiny",
    "session_hopping_micro": "micro",
}
SEED = 2026  # of the data; it is not a run's seed, because all runs see the same data


def ensure_generated(params: dict[str, Any]) -> None:
    """Generate the data set of an experiment if it is a generated one and not there yet."""
    folder = Path(params["data_root"]) / params["dataset_id"]
    if params["dataset_id"] in GENERATED and not folder.exists():
        from .prepared.card import describe
        from .prepared.layout import AlreadyThereError, new_folder, write
        from .synthetic import SIZES, generate

        # Another process may write it while this one waits.
        with suppress(AlreadyThereError), new_folder(folder) as new:
            print(f"generating {params['dataset_id']} into {folder} ...", flush=True)
            size = SIZES[GENERATED[params["dataset_id"]]]
            print(describe(write(generate(size, SEED), new)))
