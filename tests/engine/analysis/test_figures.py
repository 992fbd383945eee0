"""Figures: each drawn from fake results, the same bytes each time, labelled axes, and nothing without input."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.analysis import catalogue
from engine.analysis.catalogue import FIGURES, OVERVIEWS, write_artefacts
from engine.analysis.figures import style
from engine.analysis.results import DatasetResults, read_results
from engine.analysis.wording import fullest_backbone
from engine.baseline import record
from engine.common.errors import UserError

from ...support.fake_results import write_probe, write_study

PROBED = {"session_hopping", "dispatch", "themes"}
MODELS = ("TWIN", "TWIN_GShard", "TWIN_MoS", "SDIM_MoS")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> DatasetResults:
    home = write_study(tmp_path_factory.mktemp("results"), seeds=(1, 2))
    for model in MODELS:
        write_probe(home, model)
    return read_results(home.parent)[0]


@pytest.fixture(scope="module")
def figures(results: DatasetResults) -> dict[str, Figure]:
    return {name: draw(results) for name, draw in FIGURES.items()}


def labelled(axes: Axes, axis: str) -> bool:
    """Whether an axis has a label, its own or that of the axes which it shares."""
    shared = {"x": axes.get_shared_x_axes, "y": axes.get_shared_y_axes}[axis]()
    return any(getattr(a, f"get_{axis}label")() for a in shared.get_siblings(axes))


def texts(figure: Figure) -> str:
    return figure.get_suptitle() + " " + figure.get_supxlabel()


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_a_label(figures: dict[str, Figure], name: str) -> None:
    shown = [axes for axes in figures[name].axes if axes.axison]
    assert shown
    for axes in shown:
        assert labelled(axes, "y"), axes
        assert labelled(axes, "x") or axes.get_label() == "<colorbar>", axes


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_was_measured_on(figures: dict[str, Figure], name: str) -> None:
    assert figures[name].get_suptitle()
    facts = figures[name].get_supxlabel().replace("\n", " ")
    assert "toy" in facts and "seed" in facts
    assert "test split" in facts or name == "routing_history"


@pytest.mark.slow
def test_no_text_runs_over_the_edge_or_into_another(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        figure.draw_without_rendering()
        whole = figure.bbox.padded(2)
        title, facts = figure._suptitle, figure._supxlabel
        words = [title, facts, *(text for axes in figure.axes for text in axes.texts)]
        words += [
            part
            for axes in figure.axes
            for part in (axes.title, axes.xaxis.label, axes.yaxis.label)
        ]
        words += [text for legend in figure.legends for text in legend.get_texts()]
        boxes = [(text.get_text(), text.get_window_extent()) for text in words if text.get_text()]
        for place, (text, box) in enumerate(boxes):
            assert whole.x0 < box.x0 and box.x1 < whole.x1, (name, text)
            assert whole.y0 < box.y0 and box.y1 < whole.y1, (name, text)
            for other_text, other in boxes[:place]:
                apart = box.padded(-1).overlaps(other.padded(-1))
                assert not apart, (name, text, other_text)


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(results: DatasetResults, tmp_path: Path) -> None:
    names, folders = list(FIGURES), [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = [p for n in names for p in style.save(folders[0], n, FIGURES[n](results))]
    second = [p for n in names for p in style.save(folders[1], n, FIGURES[n](results))]
    assert [path.name for path in first] == [
        f"{n}.{kind}" for n in names for kind in ("svg", "png")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    for path in first:
        assert path.stat().st_size < 600_000, path.name


def test_without_its_input_a_figure_is_left_out(results: DatasetResults, tmp_path: Path) -> None:
    empty = replace(results, cells=[], folder=tmp_path)
    assert {name for name, draw in FIGURES.items() if draw(empty) is not None} == set()
    no_probes = replace(results, folder=tmp_path)
    assert {name for name, draw in FIGURES.items() if draw(no_probes) is None} == PROBED
    probes_only = replace(results, cells=[])
    assert {name for name, draw in FIGURES.items() if draw(probes_only) is not None} == PROBED


def test_artefacts_of_results_that_are_gone_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {  # real ones take seconds
        "scaling": lambda data: Figure(figsize=(1, 1)) if data.experiment("length") else None,
        "utility_flops": lambda data: Figure(figsize=(1, 1)),
    }
    monkeypatch.setattr(catalogue, "FIGURES", some)
    home = write_study(tmp_path, seeds=(1, 2))
    write_artefacts(tmp_path)
    figures, tables = home / "figures", tmp_path / "tables"
    assert (figures / "scaling.svg").exists() and (tables / "knobs.csv").exists()
    study = json.loads((home / "study.json").read_text())
    study["cells"] = [cell for cell in study["cells"] if cell["experiment"] == "table1"]
    (home / "study.json").write_text(json.dumps(study))
    write_artefacts(tmp_path)
    left = {path.stem for folder in (figures, tables) for path in folder.iterdir()}
    assert left == {
        "table1", "mos", "routing", "cost", "tuning", "published", "utility_flops",
    }  # fmt: skip
    with pytest.raises(UserError, match="lack what it shows"):
        write_artefacts(tmp_path, ["scaling"])


@pytest.mark.slow
def test_without_grouped_auc_one_panel_is_left(results: DatasetResults) -> None:
    cells = []
    for cell in results.cells:
        runs = json.loads(json.dumps({s: run | {"file": ""} for s, run in cell.runs.items()}))
        for run in runs.values():
            del run["metrics"]["test"]["gAUC"]
        cells.append(replace(cell, runs={int(s): run for s, run in runs.items()}))
    without = replace(results, cells=cells)
    for name in ("utility_flops", "scaling", "alphas", "start"):
        labels = " ".join(a.get_ylabel() + a.get_title() for a in FIGURES[name](without).axes)
        assert "AUC" in labels and "gAUC" not in labels, name


def test_a_part_of_an_experiment_is_drawn(results: DatasetResults) -> None:
    """One seed, one backbone, one of the two scaling experiments."""
    cells = [
        replace(cell, runs={1: cell.runs[1]})
        for cell in results.cells
        if cell.model.startswith("TWIN") and cell.experiment in ("table1", "experts")
    ]
    some = replace(results, cells=cells)
    assert "one seed" in texts(FIGURES["utility_flops"](some))
    assert "deviation" not in texts(FIGURES["scaling"](some))
    assert len(FIGURES["scaling"](some).axes) == 2
    assert FIGURES["alphas"](some) is FIGURES["start"](some) is None


def test_titles_follow_the_numbers(results: DatasetResults) -> None:
    """The weights and the number of experts that they name are those with the highest mean."""
    means = {
        (c.varied["alpha_item"], c.varied["alpha_window"]): 100 * fmean(c.values("AUC").values())
        for c in results.experiment("alphas")
    }
    best = max(means, key=means.get)
    fused = max(m for (i, w), m in means.items() if i > 0 and w > 0 and i + w < 1)
    shown = " ".join(texts(FIGURES["alphas"](results)).split())
    assert f"AUC {means[best]:.2f} at alpha_item {best[0]:g}, alpha_window {best[1]:g}" in shown
    assert f"all three parts at most {fused:.2f}" in shown
    twin = [cell for cell in results.experiment("experts") if cell.model == "TWIN_MoS"]
    best = max(twin, key=lambda cell: fmean(cell.values("AUC").values()))
    assert f"{best.varied['num_experts']} on TWIN" in texts(FIGURES["scaling"](results))
    twin = [cell for cell in results.experiment("start") if cell.model == "TWIN_MoS"]
    best = max(twin, key=lambda cell: fmean(cell.values("AUC").values()))
    std = 0.25 if "0.25" in best.varied["embedding_initializer"] else 1e-4
    figure = FIGURES["start"](results)
    assert f"TWIN_MoS at {std:g}" in texts(figure)
    assert [list(line.get_xdata()) for line in figure.axes[0].lines][:1] == [[1e-4, 0.25]]


def test_figure_6_has_the_point_of_table_1_if_nothing_else_differs(results: DatasetResults) -> None:
    """The 5 experts of Table 1, over the seeds that the others have; not where it was tuned otherwise."""

    def shown(results: DatasetResults) -> list[float]:
        lines = FIGURES["scaling"](results).axes[0].lines
        return [y for line in lines for y in line.get_ydata()]

    cells = [c for c in results.cells if c.experiment in ("experts", "table1")]
    own = next(c for c in cells if (c.experiment, c.model) == ("table1", "TWIN_MoS"))
    more = replace(
        own, runs=own.runs | {99: own.runs[1] | {"metrics": {"test": {"AUC": 9.0, "gAUC": 9.0}}}}
    )
    point = 100 * fmean(own.values("AUC").values())
    with_more = replace(results, cells=[more if c is own else c for c in cells])
    assert any(abs(y - point) < 1e-9 for y in shown(with_more))
    tuned = {s: r | {"params": r["params"] | {"learning_rate": 0.5}} for s, r in own.runs.items()}
    other = replace(results, cells=[replace(own, runs=tuned) if c is own else c for c in cells])
    assert not any(abs(y - point) < 1e-9 for y in shown(other))


def test_points_are_those_of_the_tables(results: DatasetResults) -> None:
    """Means of each cell, in points, on the first axes of figures 4 and 6."""
    for name, experiment in (("utility_flops", "table1"), ("scaling", "length")):
        axes = FIGURES[name](results).axes[0]
        shown = [y for line in axes.lines for y in line.get_ydata()]
        for cell in results.experiment(experiment):
            mean = 100 * fmean(cell.values("AUC").values())
            assert any(abs(y - mean) < 1e-9 for y in shown), (name, cell.model)


def test_the_triangle_has_every_number_at_its_place(results: DatasetResults) -> None:
    axes = FIGURES["alphas"](results).axes[0]
    ticks = [float(text.get_text()) for text in axes.get_xticklabels()]
    shown = {tuple(round(i) for i in text.get_position()): text.get_text() for text in axes.texts}
    assert len(shown) == 21
    for cell in results.experiment("alphas"):
        place = ticks.index(cell.varied["alpha_item"]), ticks.index(cell.varied["alpha_window"])
        values = cell.values("AUC").values()
        assert shown[place] == f"{100 * sum(values) / len(values):.2f}"


def test_the_backbone_with_most_mixtures_is_shown() -> None:
    models = ["SDIM", "SDIM_MoS", "TWIN_MoS", "SDIM_GShard"]
    assert fullest_backbone(models) == ["SDIM_GShard", "SDIM_MoS"]
    assert fullest_backbone(["SDIM_MoS", "TWIN_MoS"]) == ["TWIN_MoS"]
    assert fullest_backbone(["TWIN", "MIRRN"]) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=(1,), only=("table1",))
    (tmp_path / "tables").write_text("")
    with pytest.raises(UserError, match="tables: cannot be written"):
        write_artefacts(tmp_path, ["table1"])


def test_the_front_is_of_the_models_that_no_other_one_beats(tmp_path: Path) -> None:
    home = write_study(tmp_path, seeds=(1, 2), only=("table1",))
    cost = {"TWIN": 4.0, "TWIN_MoS": 2.0, "SDIM": 1.0, "SDIM_MoS": 0.5}  # all others cost 9
    auc = {"TWIN": 0.9, "TWIN_MoS": 0.8, "SDIM": 0.85, "SDIM_MoS": float("nan")}  # one diverged
    for path in (home / "runs").glob("*.json"):
        run = json.loads(path.read_text())
        model = run["model"]
        run["serving_ms"] = cost.get(model, 9.0)
        run["metrics"]["test"]["AUC"] = auc.get(model, 0.5)
        path.write_text(json.dumps(run))
    figure = FIGURES["pareto"](read_results(tmp_path)[0])
    serving = next(axes for axes in figure.axes if "candidates" in axes.get_xlabel())
    front = [line for line in serving.lines if line.get_drawstyle() == "steps-post"]
    assert [tuple(map(round, xy)) for xy in front[0].get_xydata()] == [(1, 85), (4, 90)]


@pytest.fixture
def hopping(tmp_path: Path) -> Path:
    """Results on three data sets, of which two know what their themes are worth."""
    for name, worth in (("one", 0.01), ("two", 0.05), ("three", None)):
        home = write_study(tmp_path, name, seeds=(1, 2, 3), only=("table1",))
        if worth is not None:
            found = {"valid": {"AUC": 0.7}, "test": {"AUC": 0.7}}
            metrics = {record.ALL: found, record.THEME: found | {"test": {"AUC": 0.7 + worth}}}
            theme = {"name": "category", "kappa": 8 * worth, "returns": 0.5}
            record.add(home, f"hash of {name}", 200, {"metrics": metrics, "theme": theme})
    return tmp_path


def test_gains_stand_over_what_the_data_tell(hopping: Path) -> None:
    results = read_results(hopping)
    figure = OVERVIEWS["gains"](results)
    over_kappa, over_worth = figure.axes  # nothing was run with Ensemble
    assert "over Vanilla" in over_kappa.get_ylabel()
    assert [text.get_text() for text in over_kappa.texts] == ["one", "two"]
    wanted = []
    for data, worth in ((results[0], 1.0), (results[2], 5.0)):
        cells = {cell.model: cell.values("AUC") for cell in data.experiment("table1")}
        for model, theirs in cells.items():
            if ours := cells.get(f"{model}_MoS"):
                gain = fmean(ours[seed] - theirs[seed] for seed in (1, 2, 3))
                wanted.append((worth, 100 * gain))
    for axes, scale in ((over_kappa, 0.08), (over_worth, 1)):
        points = [bars.lines[0].get_xydata()[0] for bars in axes.containers]
        assert points == [pytest.approx((scale * worth, gain)) for worth, gain in wanted]
    files = {path.name for path in write_artefacts(hopping)}
    assert "gains.svg" in files
    assert OVERVIEWS["gains"](results[:2]) is None
