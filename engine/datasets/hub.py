"""LongCTR's data sets from the Hugging Face hub, checked before they appear.

The hub's own client does the transfer: progress, several tries, resumption of partial files, its
cache, and its environment variables (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``,
``HF_HUB_OFFLINE``).
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..loader.columnar import Histories, ItemTable
from ..loader.loader import SequenceLoader
from . import paper
from .layout import FILES, SPLITS, finish, new_folder

if TYPE_CHECKING:
    from fuxictr.features import FeatureMap

OWNER = "reczoo"


def download(
    name: str, output: str | Path, *, offline: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Fetch a data set into a folder, which appears whole or not at all.

    The repository may hold the five parquet files at its root, in a folder, or in ``<name>.zip``.

    Args:
        name: one of ``paper.NAMES``.
        output: the folder to write.
        offline: use the hub's cache alone.
        overwrite: replace the folder.

    Returns:
        The card of the data set.

    Raises:
        UserError: the hub cannot be reached or refuses; a file is missing or damaged, or lacks
            what the loader needs; the folder exists already.
    """
    output = Path(output)
    feature_map = paper.feature_map(name)
    with new_folder(output, overwrite) as folder:
        snapshot = _fetch(name, output, offline)
        _collect(name, snapshot, folder)
        try:
            _check(folder, feature_map)
        except UserError as error:
            raise UserError(
                f"{str(error).replace(str(folder), f'{OWNER}/{name}')}; the hub's revision "
                f"{snapshot.name} is so, or its copy here: delete {snapshot.parents[1]} to fetch "
                "it anew"
            ) from None
        page = f"https://huggingface.co/datasets/{OWNER}/{name}"
        return finish(
            folder,
            output.name,
            paper.features(feature_map),
            feature_map.labels[0],
            source=f"{page}, revision {snapshot.name}",
            licence=f"that of its owners, see {page}",
        )


def _fetch(name: str, output: Path, offline: bool) -> Path:
    """The folder in the hub's cache that holds the newest revision."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repository, where = f"{OWNER}/{name}", constants.ENDPOINT
    by_hand = (
        f"copy the files ({', '.join(FILES)}) to {output} by hand; nothing more is needed to train"
    )
    offline = offline or constants.HF_HUB_OFFLINE
    wanted = [*FILES, *(f"*/{file}" for file in FILES), f"{name}.zip"]
    try:
        folder = snapshot_download(
            repository, repo_type="dataset", allow_patterns=wanted, local_files_only=offline
        )
    except RepositoryNotFoundError as error:  # also where access is gated
        raise UserError(
            f"{where}/datasets/{repository}: is unknown there, or needs access "
            f"({_first_line(error)}); set HF_TOKEN to a token that may read it, or {by_hand}"
        ) from None
    except LocalEntryNotFoundError as error:
        if offline:
            raise UserError(
                f"{repository}: is not wholly in the hub's cache, {constants.HF_HUB_CACHE}, and "
                f"offline mode allows nothing else; run once with a network, or {by_hand}"
            ) from None
        raise UserError(_unreachable(where, error, by_hand)) from None
    except (HTTPError, OSError) as error:
        raise UserError(_unreachable(where, error, by_hand)) from None
    return Path(folder)


def _unreachable(where: str, error: Exception, by_hand: str) -> str:
    return (
        f"{where}: could not be reached, or the transfer broke off ({_first_line(error)}); "
        "what has come is kept: run the command again to go on, with a network or with "
        f"HF_ENDPOINT set to a mirror; or {by_hand}"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _collect(name: str, snapshot: Path, folder: Path) -> None:
    """Put the five files of a snapshot into a folder."""
    archive = snapshot / f"{name}.zip"
    places = [snapshot, *sorted(path for path in snapshot.glob("*") if path.is_dir())]
    whole = [place for place in places if all((place / file).exists() for file in FILES)]
    if whole:
        for file in FILES:
            shutil.copyfile(whole[0] / file, folder / file)
    elif archive.exists():
        _extract(archive, folder)
    else:
        seen = sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*.*"))
        lacking = next(file for file in FILES if file not in seen)
        raise UserError(
            f"{OWNER}/{name}: revision {snapshot.name} holds no {lacking} and no {name}.zip; "
            f"it holds {', '.join(seen) or 'no such files at all'}"
        )


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            members = {Path(member).name: member for member in content.namelist()}
            for file in FILES:
                if file not in members:
                    raise UserError(
                        f"{archive}: holds no {file}; it holds {', '.join(content.namelist())}"
                    )
                with content.open(members[file]) as source, open(folder / file, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{archive}: not a whole zip file ({error}); delete it to fetch it anew"
        ) from None


def _check(folder: Path, feature_map: FeatureMap) -> None:
    """Read everything once as training does: what the loader takes is right."""
    histories = Histories(folder / "user_info.parquet")
    items = ItemTable(folder / "item_info.parquet", feature_map)
    for split in SPLITS:
        SequenceLoader(feature_map, folder / f"{split}.parquet", histories, items)
