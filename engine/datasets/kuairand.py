"""KuaiRand (1K, Pure or 27K), from its raw CSV files: will the user click this video?

KuaiRand's files are tables like any other, so ``generic`` reads them with the mapping that lies in
``kuairand.yaml``.
"""

from __future__ import annotations

from pathlib import Path

from .generic import load as load_table
from .interactions import Log
from .mapping import read_mapping

MAPPING = Path(__file__).with_suffix(".yaml")
ABOUT = {"source": "KuaiRand, standard log", "licence": "CC BY-SA 4.0 (https://kuairand.com/)"}


def load(folder: str | Path, label: str = "is_click", min_count: int = 1) -> Log:
    """The log of a KuaiRand folder, split by time.

    Args:
        folder: holds ``log_standard_*.csv`` and ``video_features_basic_*.csv``, or has them in
            ``data``.
        label: another column of the log, such as ``long_view``.
        min_count: see ``mapping.Mapping``.

    Raises:
        UserError: a file or column is missing.
    """
    folder = Path(folder)
    folder = folder / "data" if (folder / "data").is_dir() else folder
    files = {"input": "log_standard_*.csv", "items": "video_features_basic_*.csv"}
    paths = {key: str(folder / pattern) for key, pattern in files.items()}
    mapping = read_mapping(str(MAPPING), paths | {"label": label, "min_count": min_count})
    return load_table(mapping, ABOUT)
