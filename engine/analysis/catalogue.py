"""Every table and figure by name, and where it is written below the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..common.errors import UserError
from .figures import FIGURES
from .figures.style import save
from .results import DatasetResults, read_results
from .tables import study_tables as tables
from .tables.formats import write_table
from .tables.grid import NothingToShow, Table
from .tables.mos_table import mos_table
from .tables.published_table import published_table
from .tables.routing_table import routing_table

TABLES: dict[str, Callable[[list[DatasetResults]], Table]] = {
    "table1": tables.table1,
    "table2": tables.table2,
    "mos": mos_table,
    "routing": routing_table,
    "knobs": tables.knobs,
    "cost": tables.cost,
    "tuning": tables.tuning,
    "published": published_table,
}


def write_artefacts(folder: Path, names: list[str] | None = None) -> list[Path]:
    """Write tables to ``tables/`` and figures to ``<dataset_id>/figures/`` in a folder of results.

    Args:
        folder: see ``results.py``.
        names: of tables and figures; None writes all that the results have the numbers for.

    Returns:
        The files.

    Raises:
        UserError: the folder has no results, or one that was named cannot be made from them.
    """
    results = read_results(folder)
    written = []
    for name in names or TABLES:
        if name not in TABLES:
            continue
        try:
            table = TABLES[name](results)
        except NothingToShow:
            if names:
                raise
            _remove(folder / "tables", name)
            continue
        _make(folder / "tables")
        written += write_table(folder / "tables", name, table)
    for name in names or FIGURES:
        if name not in FIGURES:
            continue
        drawn = []
        for data in results:
            figure = FIGURES[name](data)
            if figure is not None:
                drawn += save(figure, data.folder / "figures", name)
            else:
                _remove(data.folder / "figures", name)
        if names and not drawn:
            raise UserError(
                f"{name}: the results below {folder} lack what it shows; README.md, Studies, says which study makes it"
            )
        written += drawn
    return written


def _remove(folder: Path, name: str) -> None:
    """What was written from results that are gone is gone too."""
    for path in folder.glob(f"{name}.*"):
        path.unlink()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
