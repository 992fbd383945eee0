"""A damaged file of a probe is refused with the key that is wrong."""

import copy
import json
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from engine.analysis.probes.probe_file import Probe
from engine.analysis.probes.sessions import interval
from engine.analysis.results import DatasetResults
from engine.common.errors import UserError
from engine.common.schema import check

from ...support.command_line import ROOT

SHIPPED = sorted((ROOT / "benchmark_results").glob("*/probes/*.json"))
MISSING = object()
HOPPING, ITEM = ("session_hopping",), ("dispatch", "item")
EXAMPLE, CODE = (*HOPPING, "examples", 0), ("themes", "codes", 0)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """A probe of MoS on data with planted sessions."""
    path = next(path for path in SHIPPED if path.name.startswith("TWIN_MoS_session_hopping"))
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_probes_are_read(path: Path) -> None:
    check(path, json.loads(path.read_text()), Probe, "")


def test_the_mean_of_one_user_has_no_interval(whole: dict[str, Any], tmp_path: Path) -> None:
    whole = copy.deepcopy(whole)
    whole["session_hopping"]["real"]["distant"] |= interval([0.3, float("nan")])
    check(tmp_path, whole, Probe, "")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((), [], "is [], not a mapping"),
        (("about", "seed"), MISSING, "about.seed: is missing"),
        (("about", "users"), "many", "about.users: is 'many', not a whole number"),
        ((*HOPPING, "real", "within", "low"), 0.99, "are not in order"),
        ((*HOPPING, "shuffled", "adjacent", "mean"), None, "or one is missing"),
        ((*HOPPING, "planted_borders", "recall"), 2, "is 2, not a number from 0 to 1"),
        ((*EXAMPLE, "similarity", 2), "100 90", "similarity is no triangle"),
        ((*EXAMPLE, "similarity", 0), "nan", "not cosines in hundredths"),
        ((*EXAMPLE, "experts"), [0], "one expert for each row"),
        ((*EXAMPLE, "experts", 0), -2, "is -2, not an expert from 0"),
        ((*ITEM, "train", "most"), [1.0], "shares are not of all experts"),
        ((*ITEM, "eval", "least_sent"), MISSING, "shares are not of all experts"),
        ((*ITEM, "eval", "consistency"), None, "lacks the rest"),
        ((*ITEM, "experts"), 10**30, "shares are not of all experts"),
        ((*CODE, "nearest"), {}, "nearest: is {}, not a list"),
        ((*CODE, "main_share"), MISSING, "lacks the main_share"),
        (("themes", "ami"), MISSING, "lacks others"),
    ],
)
def test_what_is_damaged_is_named(
    place: tuple[Any, ...], value: Any, said: str, whole: dict[str, Any]
) -> None:
    damaged: Any = {"": copy.deepcopy(whole)}
    *way, last = ("", *place)
    parent = reduce(lambda node, key: node[key], way, damaged)
    if value is MISSING:
        del parent[last]
    else:
        parent[last] = value
    with pytest.raises(UserError) as error:
        check("p.json", damaged[""], Probe, "")
    assert said in str(error.value)


def test_results_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "a.json").write_text("{}")
    results = DatasetResults(tmp_path, "a", "b", [], [], [], {}, {})
    with pytest.raises(UserError, match=r"a.json, about: is missing; delete it"):
        _ = results.probes
