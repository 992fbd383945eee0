"""Make the page: results in, HTML out.

Tables and figures are made from the results; no file that lies beside them is put in. The template
escapes every text of the results. Figures are images, so that nothing in them can run.
"""

import base64
import hashlib
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model_zoo.registry import backbone_of, mixture_of

from ..analysis.catalogue import FIGURES, OVERVIEWS, TABLES
from ..analysis.figures.style import as_address
from ..analysis.results import DatasetResults, read_results
from ..analysis.tables.cost_table import measured
from ..analysis.tables.grid import html, settings
from ..analysis.tables.metric_tables import tuning
from ..analysis.tables.published import without_runs
from ..baseline import record
from ..study.experiments import calls, widest
from ..tuner.trial import as_text
from .groups import Group, best_first, embedded, groups, metric
from .pieces import PIECES, state

HERE = Path(__file__).parent


def build(folder: Path) -> str:
    """Return the page about all results below a folder.

    Raises:
        UserError: there are none, or a file is broken.
    """
    everything = read_results(folder)
    sections = [_section(results, place) for place, results in enumerate(everything)]
    known = [group for section in sections for group in section["ranked"]]
    made = {name: make(everything) for name, make in TABLES.items()}
    made.pop("tuning", None)  # each data set shows its own trials
    wide = [call for results in everything for call in widest(calls(results))]
    gains = OVERVIEWS["gains"](everything)
    script = (HERE / "page.js").read_text("utf-8")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals |= {"as_html": html, "as_text": as_text, "metric": metric, "state": state}
    environment.globals |= {"settings": settings, "tuning": tuning, "counting_rows": record.rows}
    return environment.get_template("page.html.j2").render(
        home=folder,
        sections=sections,
        gains=gains and as_address(gains),
        commands=list(dict.fromkeys(call.command for call in wide)),
        outputs=list(dict.fromkeys(shlex.quote(call.output) for call in wide)),
        pieces=PIECES,
        unseen=without_runs(everything),
        tables={name: table for name, table in made.items() if table},
        places={group: place for place, group in enumerate(known)},
        runs=embedded(known, folder),
        costs=measured(run for results in everything for run in results.runs),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(HERE / "page.css").read_text("utf-8"),
    )


def _section(results: DatasetResults, place: int) -> dict[str, Any]:
    """Collect what the template shows of one data set.

    ``ranked`` has the configurations that ran, the best first. Those of the paper's comparisons come
    before all others. The others must not be compared with them: of many knobs with single seeds, the
    best is the best by luck. ``short`` has the best of the former and what it is to be seen beside; it is
    empty without one. ``figures`` has an image of each figure that can be drawn, by name. Since
    they are images, the ids of two drawings cannot clash.
    """
    known, figures = groups(results), {}
    for name, draw in FIGURES.items():
        if (figure := draw(results)) is not None:
            figures[name] = as_address(figure)
    ranked = sorted(best_first(known), key=lambda group: not group.in_tables)
    return {
        "results": results,
        "anchor": f"data{place}",  # two folders may hold the same data set
        "trials": Counter(trial["model"] for trial in results.tuning),
        "ranked": ranked,
        "short": _short(results, [group for group in ranked if group.in_tables]),
        "planned": sum(len(group.seeds) for group in known),
        "missing": [group for group in known if group.missing],
        "figures": figures,
    }


def _short(results: DatasetResults, ranked: list[Group]) -> dict[str, Any]:
    """The best configuration of a data set, its backbone alone, and the test AUCs that are of no model."""
    if not ranked:
        return {}
    best, run = ranked[0], ranked[0].runs[0]
    entry = results.counting.get(run["params"]["max_len"])
    alone = (group for group in ranked if group.model == backbone_of(best.model))
    return {
        "best": best,
        "alone": next(alone, None) if mixture_of(best.model) else None,
        "counting": entry["metrics"][record.ALL]["test"]["AUC"] if entry else None,
        "possible": run["bayes"].get("AUC"),
    }
