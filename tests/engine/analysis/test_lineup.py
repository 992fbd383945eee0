"""Models that this checkout does not know are in every table and figure, after the known ones."""

import pytest

from engine.analysis.catalogue import FIGURES, TABLES
from engine.analysis.figures import style
from engine.analysis.results import DatasetResults, read_results
from engine.analysis.tables.grid import long_csv
from engine.analysis.wording import ordered_models, row_labels

from ...support.fake_results import write_probe, write_run

OWN = ("MeanPool", "MeanPool_MoS", "TWIN_SoftSlots")
KNOWN = ("TWIN", "TWIN_GShard", "TWIN_MoS", "MIRRN")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[DatasetResults]:
    """Plain runs and probes, two of them of made-up models."""
    home = tmp_path_factory.mktemp("results") / "toy"
    for model in (*OWN, *KNOWN):
        for seed in (1, 2, 3):
            write_run(home, "toy", f"{model}_toy", model, seed)
    for model in ("MeanPool_MoS", "TWIN_SoftSlots"):
        write_probe(home, model)
    return read_results(home.parent)


def test_known_models_come_first_each_backbone_with_its_variants() -> None:
    models = [
        "MeanPool_MoS",
        "TWIN_SoftSlots",
        "MIRRN",
        "TWIN_MoS",
        "TWIN",
        "Mamba4Rec",
        "MeanPool",
    ]
    assert ordered_models(models) == [
        "Mamba4Rec", "TWIN", "TWIN_MoS", "TWIN_SoftSlots", "MIRRN", "MeanPool", "MeanPool_MoS",
    ]  # fmt: skip
    assert row_labels("TWIN_SoftSlots") == ("TWIN", "SoftSlots")
    assert row_labels("MeanPool") == ("MeanPool", "Vanilla") and row_labels("MIRRN") == (
        "MIRRN",
        "",
    )


def test_tables_have_rows_for_them(results: list[DatasetResults]) -> None:
    rows = {
        name: [tuple(entry.text for entry in row[:2]) for row in TABLES[name](results).rows]
        for name in ("table1", "table2", "mos", "cost")
    }
    twin = [
        ("TWIN", v) for v in ("Vanilla", "DSelect-k", "GShard", "Expert Choice", "MoS", "SoftSlots")
    ]
    pool = [("MeanPool", "Vanilla"), ("MeanPool", "MoS")]
    assert rows["table1"] == twin + pool
    assert rows["table2"][-2:] == [("MoS", "TWIN_MoS"), ("MoS", "MeanPool_MoS")]
    assert rows["mos"] == [("TWIN", "GShard"), ("TWIN", "SoftSlots")]
    assert rows["cost"][3:] == [("TWIN", "SoftSlots"), ("MIRRN", ""), *pool]
    assert "MeanPool_MoS" in long_csv(TABLES["routing"](results))


def test_an_own_mixture_is_ranked_where_it_was_run(results: list[DatasetResults]) -> None:
    """The paper's mixtures were not all run on TWIN, so that there are no ranks; MeanPool has two."""
    ranks = {
        r["model"]: r["rank"] for r in TABLES["table1"](results).records if r["metric"] == "AUC"
    }
    assert {ranks["MeanPool"], ranks["MeanPool_MoS"]} == {1, 2} and ranks["TWIN"] is None


@pytest.mark.parametrize("name", ["utility_flops", "dispatch", "routing_history", "themes"])
def test_figures_draw_them(results: list[DatasetResults], name: str) -> None:
    figure = FIGURES[name](results[0])
    assert figure is not None
    words = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    words += [text.get_text() for axes in figure.axes for text in axes.get_xticklabels()]
    words += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    shown = " ".join([*words, figure.get_suptitle(), figure.get_supxlabel()])
    assert "MeanPool" in shown or "SoftSlots" in shown


def test_looks_repeat_but_known_ones_stay() -> None:
    many = [f"Model{i:02}_Own{i:02}" for i in range(30)]
    looks = style.backbone_looks([*many, "TWIN"])
    assert looks["TWIN"] == style.backbone_looks(["TWIN"])["TWIN"] and len(looks) == 31
    assert len({(look.colour, look.line) for look in looks.values()}) > 25
    markers = style.mixture_looks(["TWIN_MoS", *(f"TWIN_Own{i}" for i in range(20))])
    assert markers["MoS"] == style.mixture_looks(["SDIM_MoS"])["MoS"] and len(markers) == 21
