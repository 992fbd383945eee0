"""Every table and figure by name, and where it is written below the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..common.errors import UserError
from .figures import FIGURES
from .figures.style import save
from .results import DatasetResults, read_results
from .tables.cost_table import cost
from .tables.formats import write_table
from .tables.grid import NothingToShow, Table
from .tables.mos_table import mos_table
from .tables.published_table import published_table
from .tables.quality_tables import knobs, table1, table2
from .tables.routing_table import routing_table
from .tables.tuning_table import tuning

TABLES: dict[str, Callable[[list[DatasetResults]], Table]] = {
    "table1": table1,
    "table2": table2,
    "mos": mos_table,
    "routing": routing_table,
    "knobs": knobs,
    "cost": cost,
    "tuning": tuning,
    "published": published_table,
}


def write_artefacts(folder: Path, names: list[str] | None = None) -> list[Path]:
    """Write tables to ``tables/`` and figures to ``<dataset_id>/figures/`` in a folder of results.

    Args:
        folder: see ``results.py``.
        names: names of tables and figures; None writes all that the results have the numbers for.

    Returns:
        The files.

    Raises:
        UserError: the folder has no results, or a named table or figure cannot be made from them.
    """
    results = read_results(folder)
    written: list[Path] = []
    for name in [name for name in TABLES if name in (names or TABLES)]:
        try:
            written += write_table(folder / "tables", name, TABLES[name](results))
        except NothingToShow:
            if names:
                raise
            _remove(folder / "tables", name)
    for name in [name for name in FIGURES if name in (names or FIGURES)]:
        drawn: list[Path] = []
        for data in results:
            figure = FIGURES[name](data)
            if figure is None:
                _remove(data.folder / "figures", name)
            else:
                drawn += save(figure, data.folder / "figures", name)
        if names and not drawn:
            raise UserError(
                f"{name}: the results below {folder} lack what it shows; the documentation of "
                "studies says which study makes it"
            )
        written += drawn
    return written


def _remove(folder: Path, name: str) -> None:
    """Delete what was written from results that are gone."""
    for path in folder.glob(f"{name}.*"):
        path.unlink()
