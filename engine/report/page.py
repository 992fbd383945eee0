"""The page: results in, HTML out. Tables and figures are made from the results, and no file is put in.

The template escapes every text of the results. Figures are images, so that nothing in them can run.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ..analysis.catalogue import TABLES
from ..analysis.figures import FIGURES
from ..analysis.figures.style import svg
from ..analysis.results import DatasetResults, read_results
from ..analysis.tables.formats import html
from ..analysis.tables.grid import Table
from ..analysis.tables.published_table import without_runs
from ..analysis.tables.tuning_table import tuning
from ..study.call import calls, widest
from .coverage import State, state
from .embedded import embedded
from .facts import facts, missing, splits
from .groups import COLUMNS, Group, best_first, groups, metric
from .pieces import PIECES, Piece

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """One data set, as the template shows it.

    ``board`` is the leaderboard of the paper's comparisons; ``others`` has what must not be compared
    with it, such as single seeds of many knobs, where the best is the best by luck.

    Attributes:
        results: the results.
        anchor: id of the section; two folders may hold the same data set.
        folder: the data set's folder, relative to the folder of all results.
        first: place of its first group in the embedded data.
        board: configurations of the paper's tables, the best first.
        others: all other configurations.
        planned: number of runs that were planned.
        missing: configurations that lack runs.
        figures: URI of each figure that can be drawn, by name. URIs keep ids of two SVGs apart.
    """

    results: DatasetResults
    anchor: str
    folder: str
    first: int
    board: list[Group]
    others: list[Group]
    planned: int
    missing: Table | None
    figures: dict[str, str]

    @property
    def best_possible(self) -> dict[str, str]:
        """The test metrics that no model can beat, where the data set's maker knows them."""
        known: dict[str, float] = next((r["bayes"] for r in self.results.runs if r["bayes"]), {})
        return {name: metric(name, [value]).text for name, value in known.items()}

    @property
    def trials(self) -> dict[str, int]:
        """How many tuning trials each model had."""
        return dict(Counter(trial["model"] for trial in self.results.tuning))


def build(folder: Path) -> str:
    """The page about all results below a folder.

    Raises:
        UserError: there are none, or a file is broken.
    """
    sections: list[Section] = []
    known: list[Group] = []
    for results in read_results(folder):
        sections.append(_section(results, folder, len(sections), len(known)))
        known += sections[-1].board + sections[-1].others
    everything = [section.results for section in sections]
    made = {name: make(everything) for name, make in TABLES.items()}
    made.pop("tuning", None)  # each data set shows its own trials
    tables = {name: table for name, table in made.items() if table}
    commands = [call.command for results in everything for call in widest(calls(results))]
    script, style = _source("page.js"), _source("page.css")
    return _template().render(
        sections=sections,
        columns=COLUMNS,
        commands=list(dict.fromkeys(commands)),
        pieces=[(piece, _states(piece, sections, tables)) for piece in PIECES],
        by_name={piece.name: piece for piece in PIECES},
        unseen=without_runs(everything),
        tables=tables,
        num_runs=sum(len(results.runs) for results in everything),
        num_groups=len(known),
        runs=Markup(embedded(known, folder)),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        as_html=lambda table: Markup(html(table)),
        trials_of=lambda results: tuning([results]),
        facts_of=facts,
        splits_of=splits,
    )


def _section(results: DatasetResults, folder: Path, place: int, first: int) -> Section:
    known = groups(results)
    ranked = best_first(known)
    drawn = {piece.name: FIGURES[piece.name](results) for piece in PIECES if piece.alt}
    return Section(
        results=results,
        anchor=f"data{place}",
        folder=results.folder.relative_to(folder).as_posix(),
        first=first,
        board=[group for group in ranked if group.in_tables],
        others=[group for group in ranked if not group.in_tables],
        planned=len({(cell.expid, seed) for cell in results.cells for seed in cell.seeds}),
        missing=missing(known),
        figures={
            name: "data:image/svg+xml;base64," + base64.b64encode(svg(figure)).decode()
            for name, figure in drawn.items()
            if figure is not None
        },
    )


def _states(
    piece: Piece, sections: list[Section], tables: dict[str, Table]
) -> list[tuple[State, str]]:
    """How much of a piece there is on each data set, and the place on the page; empty if it is not there."""
    states = []
    for section in sections:
        found = state(piece.coverage(section.results), section.results)
        own = piece.name in section.figures or piece.name == "tuning"
        there = (own or piece.name in tables) and found.word != "absent"
        states.append(
            (found, f"{section.anchor if own else 'table'}-{piece.name}" if there else "")
        )
    return states


def _source(name: str) -> Markup:
    return Markup((HERE / name).read_text("utf-8"))


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2")
