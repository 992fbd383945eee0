"""How much of each table and figure the results have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ..analysis.figures.backbone_choice import fullest_backbone
from ..analysis.results import BACKBONES, MIXTURES, DatasetResults, split_name, variant
from ..datasets.card import longest_history
from ..study.experiments import distinct, plan
from ..tuner.trial import as_text

Configuration = tuple[str, str]  # a model, and what is varied
ANY: Configuration = ("any model", "")


@dataclass(frozen=True)
class Coverage:
    """What a piece is made from.

    Attributes:
        planned: all that belongs to it, by the study that runs it.
        found: what the results have, and perhaps more.
        some_seeds: what they have with some of its planned seeds only.
    """

    planned: dict[str, list[Configuration]]
    found: set[Configuration]
    some_seeds: set[Configuration] = field(default_factory=set)

    @property
    def wanted(self) -> list[Configuration]:
        return list(dict.fromkeys(c for planned in self.planned.values() for c in planned))

    @property
    def lacking(self) -> list[Configuration]:
        """What has to be run, be it for some seeds."""
        return [c for c in self.wanted if c not in self.found]


def runs(*studies: str) -> Callable[[DatasetResults], Coverage]:
    """Every configuration of some experiments."""

    def coverage(results: DatasetResults) -> Coverage:
        cells = [cell for study in studies for cell in results.experiment(study)]
        parts = [cell for cell in cells if not cell.runs.keys() >= set(cell.seeds)]
        found, some_seeds = (
            {(cell.model, as_text(cell.varied)) for cell in some} for some in (cells, parts)
        )
        return Coverage(_planned(studies, results), found - some_seeds, some_seeds)

    return coverage


def mixtures(results: DatasetResults) -> Coverage:
    """Every mixture of Table 1."""
    table = runs("table1")(results)
    planned = {"table1": [c for c in table.wanted if split_name(c[0])[1]]}
    return replace(table, planned=planned)


def _planned(studies: Iterable[str], results: DatasetResults) -> dict[str, list[Configuration]]:
    longest = longest_history(results.card)
    return {
        study: [(p.model, as_text(p.varied)) for p in distinct(plan(study), longest)]
        for study in studies
    }


def tuned(results: DatasetResults) -> Coverage:
    """The tuning trials of every model of Tables 1 and 2."""
    found = {(trial["model"], "") for trial in results.tuning}
    return Coverage(_planned(("table1", "table2"), results), found)


def _routers_of_one(study: str, models: Iterable[str]) -> Coverage:
    """The mixtures of the one backbone that a figure has room for."""
    known = set(models)
    backbone = fullest_backbone(known) or BACKBONES[0]
    planned = {study: [(variant(backbone, mixture), "") for mixture in MIXTURES]}
    return Coverage(planned, {(model, "") for model in known})


def routing_history(results: DatasetResults) -> Coverage:
    """The runs of one backbone's mixtures."""
    return _routers_of_one("table1", (cell.model for cell in results.experiment("table1")))


def dispatch(results: DatasetResults) -> Coverage:
    """The probes of one backbone's mixtures."""
    probes = results.probes.values()
    return _routers_of_one("routers", (p["about"]["model"] for p in probes if p["dispatch"]))


def session_hopping(results: DatasetResults) -> Coverage:
    """A probe of any model."""
    found = any(probe["session_hopping"]["users"] for probe in results.probes.values())
    return Coverage({"routers": [ANY]}, {ANY} if found else set())


def themes(results: DatasetResults) -> Coverage:
    """A probe of any model with codes."""
    found = any(p["themes"] and p["themes"]["codes"] for p in results.probes.values())
    return Coverage({"routers": [ANY]}, {ANY} if found else set())
