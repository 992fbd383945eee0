"""LongCTR's data sets from the Hugging Face hub, checked before they appear.

The hub's own client does the transfer. It shows progress, tries several times, resumes partial
files, keeps a cache, and obeys ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE``.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile

from ..common.errors import UserError
from . import paper
from .prepared.card import FILES
from .prepared.check import read_errors
from .prepared.layout import finish

OWNER = "reczoo"


def download(name: str, folder: Path, offline: bool = False) -> dict[str, Any]:
    """Fetch a data set into a folder.

    The repository may hold the five parquet files at its root, in a folder, or in ``<name>.zip``.

    Args:
        name: one of ``paper.NAMES``.
        folder: an empty folder.
        offline: use the hub's cache alone.

    Returns:
        The card of the data set.

    Raises:
        UserError: the hub cannot be reached or refuses; a file is missing, damaged or not what
            the loader needs.
    """
    repository, feature_map = f"{OWNER}/{name}", paper.feature_map(name)
    snapshot = _fetch(name, offline)
    _collect(name, snapshot, folder)
    if errors := read_errors(folder, feature_map):
        raise UserError(
            f"{errors[0].replace(str(folder), repository)}. The hub's revision "
            f"{snapshot.name} is wrong, or its copy here; delete {snapshot.parents[1]} to "
            "fetch it anew"
        )
    page = f"https://huggingface.co/datasets/{repository}"
    source = f"{page}, revision {snapshot.name}"
    about = {"source": source, "licence": f"that of its owners, see {page}"}
    features, label = paper.features(feature_map), feature_map.labels[0]
    return finish(folder, features, label, about)


def _fetch(name: str, offline: bool) -> Path:
    """The folder in the hub's cache that holds the newest revision of a data set."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

    repository, hub = f"{OWNER}/{name}", constants.ENDPOINT
    offline = offline or constants.HF_HUB_OFFLINE
    wanted = [*FILES, *(f"*/{file}" for file in FILES), f"{name}.zip"]
    try:
        folder = snapshot_download(
            repository, repo_type="dataset", allow_patterns=wanted, local_files_only=offline
        )
    except (HTTPError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, RepositoryNotFoundError):  # also where access is gated
            problem = f"{hub}/datasets/{repository} is unknown there, or needs access ({reason})"
            remedy = "set HF_TOKEN to a token that may read it"
        elif offline:
            cache = constants.HF_HUB_CACHE
            problem = f"{repository} is not wholly in the hub's cache, {cache}, in offline mode"
            remedy = "run the command once with a network"
        else:
            problem = f"{hub} could not be reached, or the transfer broke off ({reason})"
            remedy = "run the command again to go on, or set HF_ENDPOINT to a mirror"
        by_hand = f"copy the files ({', '.join(FILES)}) to data/{name} by hand"
        raise UserError(
            f"{problem}; {remedy}; or {by_hand}, which is all that training needs"
        ) from None
    return Path(folder)


def _collect(name: str, snapshot: Path, folder: Path) -> None:
    """Put the five files of a snapshot into a folder."""
    archive, source = snapshot / f"{name}.zip", snapshot
    where = f"{OWNER}/{name}, revision {snapshot.name},"
    with TemporaryDirectory(dir=folder) as unpacked:
        if archive.exists():
            source, where = Path(unpacked), str(archive)
            try:
                shutil.unpack_archive(archive, source)
            except (shutil.ReadError, BadZipFile, EOFError) as error:
                raise UserError(
                    f"{archive} is not a whole zip file ({error}); delete it to fetch it anew"
                ) from None
        for file in FILES:
            found = sorted(source.rglob(file))
            if not found:
                raise UserError(
                    f"{where} holds no {file}; delete {snapshot.parents[1]} to try anew"
                )
            shutil.copyfile(found[0], folder / file)
