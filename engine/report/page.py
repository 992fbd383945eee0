"""The page: results in, HTML out; everything from results is escaped by the template."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ..analysis.results import DatasetResults, read_results
from ..analysis.tables.published_table import without_runs
from ..study.call import calls, widest
from . import summaries
from .embedded import embedded
from .groups import Group, best_first, groups
from .inlined import Figure, Fragment, figures, tables
from .pieces import PIECES, Piece
from .state import State, state
from .table import Shown, Table, metric

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """A row of a leaderboard; ``index`` is its group's place in the embedded data."""

    index: int
    group: Group
    cells: list[Shown]
    seeds: str


@dataclass(frozen=True)
class PieceRow:
    """A row of the paper's pieces: where the page has it first, and its state by data set."""

    piece: Piece
    anchor: str
    states: list[State]


@dataclass(frozen=True)
class Section:
    """One data set, as the template shows it.

    ``entries`` is the leaderboard of the paper's comparisons; ``others`` has what must not be compared
    with it, such as single seeds of many knobs, where the best is the best by luck.
    """

    results: DatasetResults
    anchor: str
    folder: str
    card: summaries.Card | None
    best_possible: dict[str, str]
    entries: list[Entry]
    others: list[Entry]
    planned: int
    missing: Table
    tuning: Table
    budgets: dict[str, int]
    figures: list[Figure]


def build(folder: Path) -> str:
    """The page about all results below a folder.

    Raises:
        UserError: there are none, or a file is broken.
    """
    sections: list[Section] = []
    known: list[Group] = []
    for results in read_results(folder):
        sections.append(_section(results, folder, len(sections), len(known)))
        known += [entry.group for entry in sections[-1].entries + sections[-1].others]
    fragments = tables(folder)
    commands = [call.command for section in sections for call in widest(calls(section.results))]
    script, style = _source("page.js"), _source("page.css")
    return _template().render(
        sections=sections,
        columns=summaries.LEADERBOARD,
        commands=list(dict.fromkeys(commands)),
        pieces=_pieces(sections, fragments),
        unseen=without_runs([section.results for section in sections]),
        tables=fragments,
        num_runs=sum(len(s.results.runs) for s in sections),
        num_groups=len(known),
        runs=Markup(embedded(known, folder)),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
    )


def _section(results: DatasetResults, folder: Path, place: int, first: int) -> Section:
    """One data set.

    Args:
        place: of the data set among all.
        first: place of its first group in the embedded data.
    """
    known = groups(results)
    ranked = sorted(best_first(known), key=lambda group: not group.in_tables)
    entries = [
        Entry(index, group, summaries.leaderboard_row(group), _seeds(group))
        for index, group in enumerate(ranked, first)
    ]
    return Section(
        results=results,
        anchor=f"data{place}",  # two folders may hold the same data set
        folder=results.folder.relative_to(folder).as_posix(),
        card=summaries.data_card(results),
        best_possible=summaries.best_possible(results),
        entries=[entry for entry in entries if entry.group.in_tables],
        others=[entry for entry in entries if not entry.group.in_tables],
        planned=len({(cell.expid, seed) for cell in results.cells for seed in cell.seeds}),
        missing=summaries.missing(known),
        tuning=summaries.tuning(results),
        budgets=summaries.budgets(results),
        figures=figures(results.folder),
    )


def _pieces(sections: list[Section], fragments: list[Fragment]) -> list[PieceRow]:
    """All pieces of the paper and ours."""
    inlined = {f"table-{fragment.name}" for fragment in fragments}
    rows = []
    for piece in PIECES:
        states = []
        for section in sections:
            drawn = {f"{section.anchor}-{figure.piece.name}" for figure in section.figures}
            drawn.add(f"{section.anchor}-tuning")
            anchors = (f"{section.anchor}-{piece.name}", f"table-{piece.name}")
            anchor = next((name for name in anchors if name in drawn | inlined), "")
            states.append(state(piece, section.results, anchor))
        rows.append(PieceRow(piece, next((s.anchor for s in states if s.anchor), ""), states))
    return rows


def _seeds(group: Group) -> str:
    """Every seed's test AUC in a line, for readers without scripts."""
    values = [metric("AUC", [run["metrics"]["test"].get("AUC")]).text for run in group.runs]
    seeds = [f"seed {run['seed']}: {text}" for run, text in zip(group.runs, values, strict=True)]
    return "test AUC of " + ", ".join(seeds)


def _source(name: str) -> Markup:
    return Markup((HERE / name).read_text("utf-8"))


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2")
