"""KuaiRand (1K, Pure or 27K), from its raw CSV files: will the user click this video?

KuaiRand's files are tables like any other, so ``generic`` reads them with the mapping that is given
here. The statistical feature files are left out, because they count until the end of the collection.
"""

from __future__ import annotations

from pathlib import Path

from .generic import load as load_table
from .interactions import Log
from .mapping import Mapping

LICENCE = "CC BY-SA 4.0 (https://kuairand.com/)"
ITEM_FEATURES = [
    "author_id",
    "video_type",
    "upload_type",
    "music_id",
    {"name": "tag", "kind": "sequence", "separator": ","},
]


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
    mapping = Mapping(
        input=str(folder / "log_standard_*.csv"),
        user="user_id",
        item="video_id",
        time="time_ms",
        label=label,
        items=str(folder / "video_features_basic_*.csv"),
        item_features=ITEM_FEATURES,
        sample_features=["user_id", "tab", "hourmin:categorical"],
        min_count=min_count,
    )
    about = {"source": "KuaiRand, standard log", "licence": LICENCE}
    return load_table(mapping, about)
