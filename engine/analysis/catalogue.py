"""Every table and figure by name, and where it is written below the results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import writing
from .figures import cost_figures, metric_figures, probe_figures, router_figures
from .figures.gain_figure import gains
from .figures.style import Figure, save
from .results import DatasetResults, read_results
from .tables.cost_table import cost
from .tables.grid import Table, write_table
from .tables.metric_tables import knobs, signals, table1, table2, tuning
from .tables.published import published_table
from .tables.router_tables import mos_table, routing_table

TABLES: dict[str, Callable[[list[DatasetResults]], Table | None]] = {
    "table1": table1,
    "table2": table2,
    "mos": mos_table,
    "routing": routing_table,
    "knobs": knobs,
    "signals": signals,
    "cost": cost,
    "tuning": tuning,
    "published": published_table,
}
# Each draws what is in the results, and nothing where that is missing. The first are of all data sets.
OVERVIEWS: dict[str, Callable[[list[DatasetResults]], Figure | None]] = {"gains": gains}
FIGURES: dict[str, Callable[[DatasetResults], Figure | None]] = {
    "session_hopping": probe_figures.session_hopping,
    "utility_flops": cost_figures.utility_flops,
    "pareto": cost_figures.pareto,
    "dispatch": router_figures.dispatch,
    "scaling": metric_figures.scaling,
    "alphas": metric_figures.alphas,
    "start": metric_figures.start,
    "routing_history": router_figures.routing_history,
    "themes": probe_figures.themes,
}


def write_artefacts(folder: Path, names: list[str] | None = None) -> list[Path]:
    """Write tables to ``tables/`` and figures to ``<dataset_id>/figures/`` in a folder of results.

    Figures of all data sets go to ``figures/``.

    Args:
        folder: see ``results.py``.
        names: names of tables and figures; None writes all that the results have the numbers for.

    Returns:
        The files.

    Raises:
        UserError: the folder has no results, a named table or figure cannot be made from them, or a
            file cannot be written.
    """
    results = read_results(folder)
    written: list[Path] = []
    for name in names or [*TABLES, *OVERVIEWS, *FIGURES]:
        if name in TABLES:
            paths = _write(write_table, folder / "tables", name, TABLES[name](results))
        elif name in OVERVIEWS:
            paths = _write(save, folder / "figures", name, OVERVIEWS[name](results))
        else:
            drawn = ((data.folder / "figures", FIGURES[name](data)) for data in results)
            paths = [path for home, figure in drawn for path in _write(save, home, name, figure)]
        if names and not paths:
            advice = "docs/studies.md says which study makes it"
            raise UserError(f"{name}: the results below {folder} lack what it shows; {advice}")
        written += paths
    return written


def _write(write: Callable[..., list[Path]], folder: Path, name: str, content: Any) -> list[Path]:
    """Write a table or figure in all its forms, or delete what was written from results that are gone."""
    if content is None:
        for path in folder.glob(f"{name}.*"):
            path.unlink()
        return []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return write(folder, name, content)
