"""The README's table of results, every interval in it and in docs/results.md, and its p-values are of runs that ship."""

import re
from functools import cache
from itertools import combinations
from math import sqrt
from statistics import mean, stdev

import pytest
from scipy.stats import t as student

from engine.analysis.results import DatasetResults, read_results
from model_zoo.registry import label, variant

from .support.command_line import ROOT

NAMES = {"planted themes": "session_hopping", "MovieLens 100K": "movielens_100k", "MovieLens 1M": "movielens_1m"}  # fmt: skip
MIXTURES = ("", "DSelectK", "GShard", "ExpertChoice", "MoS")
NUMBER = r"[+-]?\d+\.\d+"


@cache
def shipped() -> dict[str, DatasetResults]:
    return {results.dataset_id: results for results in read_results(ROOT / "benchmark_results")}


@cache
def points(dataset: str, metric: str) -> dict[str, dict[int, float]]:
    """The test metric in points of each model of Tables 1 and 2, by seed."""
    cells = [c for table in ("table1", "table2") for c in shipped()[dataset].experiment(table)]
    return {c.model: {s: 100 * v for s, v in c.values(metric).items()} for c in cells}


def paired(ours: dict[int, float], others: dict[int, float]) -> tuple[float, float, float]:
    """The mean difference, and its 95 % interval."""
    differences = [value - others[seed] for seed, value in ours.items() if seed in others]
    middle, n = mean(differences), len(differences)
    half = student.ppf(0.975, n - 1) * stdev(differences) / sqrt(n)
    return middle, middle - half, middle + half


def test_the_table_of_the_readme() -> None:
    results = (ROOT / "README.md").read_text().split("## Results")[1]
    lines = results.split("\n\n| ")[1].split("\n\n")[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)
    assert header[1:-1] == ["vanilla", *map(label, MIXTURES[1:])] and len(rows) == 10
    for name, *shown, gain in rows:
        dataset, backbone = name.split(", ")
        of = points(NAMES[dataset], "AUC")
        values = [of[variant(backbone, mixture)] for mixture in MIXTURES]
        assert shown == [f"{mean(v.values()):.2f} ± {stdev(v.values()):.2f}" for v in values], name
        middle, low, high = paired(values[-1], values[0])
        assert gain == f"{middle:+.2f} [{low:.2f}, {high:.2f}]", name


@pytest.mark.parametrize("document", ["README.md", "docs/results.md"])
def test_every_interval_is_of_two_models_of_one_data_set(document: str) -> None:
    """Each ``a [b, c]`` is a difference of two shipped models, whichever of the two comes first."""
    known = set()
    for dataset in NAMES.values():
        for metric in ("AUC", "gAUC"):
            for ours, others in combinations(points(dataset, metric).values(), 2):
                for found in (paired(ours, others), paired(others, ours)):
                    known.add(tuple(f"{value:+.2f}" for value in found))
    text = (ROOT / document).read_text()
    found = re.findall(rf"({NUMBER})\s\[({NUMBER}),\s({NUMBER})\]", text)
    assert len(found) >= 10
    told = {tuple(f"{float(value):+.2f}" for value in interval) for interval in found}
    assert told <= known, told - known


def test_every_p_value_stands_in_a_table_that_ships() -> None:
    tables = (ROOT / "benchmark_results" / "tables").glob("*.md")
    known = {p for table in tables for p in re.findall(r"\bp (\d\.\d+)", table.read_text())}
    told = re.findall(r"\bp (\d\.\d+)", (ROOT / "docs" / "results.md").read_text())
    assert len(told) >= 5
    assert set(told) <= known, set(told) - known
