"""Scores of new rows: they are those that the same rows have in a prepared data set."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fuxictr.features import FeatureMap
from sklearn.metrics import roc_auc_score

from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.models import build
from engine.config.options import RunOptions
from engine.datasets.command import main
from engine.predict import scorers
from engine.predict.exporting import export
from engine.predict.extended import Extended
from engine.predict.scorers import ABOUT, PROGRAM, Trained
from engine.predict.scores import evaluate, predict
from engine.predict.service import Service
from model_zoo import get_model
from model_zoo.serving import ServedModel
from model_zoo.training.progress import save_atomically

from ...support.command_line import prepare_and_train, run_here, run_module, run_script

KEYS = ("--user", "who", "--item", "what", "--time", "when")
FLAGS = (*KEYS, "--label", "liked", "--split", "user", "--min-count", "2")
FLAGS += (
    "--item-features",
    "price",
    "tags:sequence",
    "--sample-features",
    "device",
    "place:numeric",
)
FLAGS += ("--event-features", "action:categorical")
ROWS = ["who", "what", "when", "price", "tags", "device", "place"]  # what a row to score has
BEFORE = 200  # the moment when the first log ends


def random_log(rows: int = 900) -> pl.DataFrame:
    """Repeats, rows of one moment, and users and items that come late."""
    rng = np.random.default_rng(0)
    when = np.sort(rng.integers(300, size=rows))
    item = rng.integers(30 + when // 20)
    return pl.DataFrame(
        {
            "who": [f"u{x}" for x in rng.integers(10 + when // 40)],
            "what": [f"i{x}" for x in item],
            "when": when,
            "liked": rng.integers(2, size=rows),
            "price": item / 7,
            "tags": ["|".join("abcdefghijk"[x // 7 : x // 7 + x % 4]) for x in item],
            "device": rng.choice(["web", "phone", "tv"], size=rows),
            "place": rng.normal(size=rows),
            "action": rng.choice(["view", "cart", "buy"], size=rows),
        }
    )


def prepare(*arguments: str) -> None:
    made = run_here(main, "generic", *arguments)
    assert made.code == 0, made.stderr


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """A log, and in the current folder the data set ``old`` of its first part."""
    monkeypatch.chdir(tmp_path)
    table = random_log()
    early = pl.col("when") < BEFORE
    table.filter(early).write_csv("old.csv")
    table.filter(~early).write_csv("events.csv")
    table.write_csv("whole.csv")
    prepare("--input", "old.csv", *FLAGS, "--output", "old")
    return table


def shown(folder: Path, ids: Path) -> pl.DataFrame:
    """The samples of the test split with the features and names of what they show.

    Args:
        folder: has the tables.
        ids: a data set in which the items have the same indices.
    """
    names = ["", *pl.read_parquet(ids / "item_ids.parquet")["item"]]
    samples = pl.read_parquet(folder / "test.parquet")
    histories = pl.read_parquet(folder / "user_info.parquet").cast({"user_index": pl.Int64})
    samples = samples.join(histories, on="user_index", how="left", maintain_order="left")
    seen = pl.col("^(full_.*|event_.*)$").list.head("seq_len")
    items = pl.read_parquet(folder / "item_info.parquet")
    samples = samples.with_columns(seen).join(
        items, on="item_index", how="left", maintain_order="left"
    )
    history = [[names[i] for i in seq] for seq in samples["full_item_seq"]]
    what = [names[i] for i in samples["item_index"]]
    return samples.with_columns(full_item_seq=pl.Series(history), what=pl.Series(what))


def raw(log: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The rows of the log that the test split of its data set holds, in the order of that."""
    samples = shown(folder, folder)
    users = pl.read_parquet(folder / "user_ids.parquet").cast({"user_index": pl.Int64})
    samples = samples.join(users, on="user_index", how="left", maintain_order="left")
    keys = samples.select(who="user", what="what", when="time")
    first = log.unique(["who", "what", "when"], keep="first")
    return keys.join(first, on=keys.columns, how="left", maintain_order="left").select(ROWS)


def test_rows_are_the_samples_of_the_whole_log(log: pl.DataFrame, tmp_path: Path) -> None:
    """The events since bring users and items that the data set lacks."""
    prepare("--input", "whole.csv", "--like", "old", "--output", "whole")
    raw(log, Path("whole")).write_csv("rows.csv")
    files = Path("old"), Path("rows.csv"), Path("events.csv")
    (tmp_path / "scratch").mkdir()
    Extended(*files, {}, tmp_path / "scratch")
    want, found = (shown(folder, Path("whole")) for folder in (Path("whole"), tmp_path / "scratch"))
    known = (
        pl.read_parquet("old/item_ids.parquet")["item"],
        pl.read_parquet("old/user_ids.parquet")["user"],
    )
    assert (
        not want["what"].is_in(known[0].implode()).all()
        and not want["full_item_seq"].explode().is_in(known[0].implode()).all()
    )
    same = [
        n for n in want.columns if n not in ("user_index", "item_index", "group_index", "liked")
    ]
    assert len(want) > 80 and found.select(same).equals(want.select(same))


@pytest.fixture
def result(log: pl.DataFrame) -> Path:
    """The result of a model that no one has trained, on the data set ``old``."""
    return untrained("old")


def untrained(data: str, **changes: Any) -> Path:
    """The result of a model on a data set of the current folder."""
    options = RunOptions(config=Path(data, "config"), seed=1, changes=changes)
    params = load(f"TWIN_MoS_{data}", options).params
    torch.manual_seed(1)
    model = build(
        get_model("TWIN_MoS"), build_feature_map(params), params | {"gpu": -1}, params["model_id"]
    )
    path = Path(f"TWIN_MoS_{data}_seed1.json")
    torch.save(model.state_dict(), path.with_suffix(".model"))
    path.write_text(json.dumps({"params": params}))
    return path


def test_scores_are_those_of_the_prepared_data(log: pl.DataFrame, result: Path) -> None:
    """And no row changes the score of another."""
    trained = Trained(result)
    want = trained.model.predict(trained.loader("test"))
    rows = raw(log, Path("old"))
    rows.write_parquet("rows.parquet")
    found = predict(result, "rows.parquet")
    assert found.drop("score").equals(rows) and np.ptp(want) > 1e-4
    np.testing.assert_allclose(found["score"], want, rtol=0, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(rows))[: len(rows) // 2]
    rows[order].write_csv("some.csv")
    np.testing.assert_allclose(predict(result, "some.csv")["score"], want[order], rtol=0, atol=1e-6)


def test_metrics_of_a_positive_and_its_negatives(log: pl.DataFrame) -> None:
    """They are those of the scores, group by group, and also with FuxiCTR's own feature map."""
    prepare(
        "--input", "whole.csv", *FLAGS, "--negatives", "3", "--targets", "all", "--output", "drawn"
    )
    changes = {"metrics": ["AUC", "gAUC", "logloss", "HR(k=1)"], "group_id": "group_index"}
    result = untrained("drawn", **changes)
    trained = Trained(result)
    samples = pl.read_parquet("drawn/test.parquet").with_columns(
        score=pl.Series(trained.model.predict(trained.loader("test")))
    )
    groups = samples.partition_by("group_index")
    assert len(groups) == samples["liked"].sum() and len(groups[0]) == 4
    aucs = [roc_auc_score(group["liked"], group["score"]) for group in groups]
    hits = [group.sort("score")["liked"][-1] for group in groups]
    found = evaluate(result)
    assert list(found) == changes["metrics"]
    assert found["gAUC"] == pytest.approx(np.average(aucs, weights=[*map(len, groups)]))
    assert found["HR(k=1)"] == pytest.approx(np.mean(hits))
    feature_map = FeatureMap("drawn", "drawn")
    feature_map.load("drawn/feature_map.json", trained.params)
    again = get_model("TWIN_MoS")(feature_map, **trained.params, gpu=-1)
    again.load_state_dict(trained.model.state_dict())
    assert again.evaluate(trained.loader("test")) == pytest.approx(found)


def test_unknown_users_and_items_and_blank_lines(log: pl.DataFrame, result: Path) -> None:
    rows = raw(log, Path("old")).head(3)
    new = rows.with_columns(who=pl.Series(["u0", "nobody", "nobody"]), what=pl.lit("new"))
    rows = pl.concat([rows, new, new.with_columns(when=pl.lit(-5, pl.Int64))])
    lines = rows.write_csv().splitlines()
    Path("rows.csv").write_text("\n".join([*lines[:5], ",,,,,,", *lines[5:], ""]))
    score = predict(result, "rows.csv")["score"]
    assert score.is_null().to_list() == [place == 4 for place in range(10)]
    assert score.drop_nulls().is_between(0, 1, closed="none").all()


def test_the_longest_list_is_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a log has lists without times; of two of one length it is the newer."""
    monkeypatch.chdir(tmp_path)
    lists = {"a": ["x y", "x y z", "z"], "b": ["x", "y z", "z x"]}
    rows = [
        (u, "w" if i % 2 else "v", i, i % 2, h) for u in lists for i, h in enumerate(lists[u] * 4)
    ]
    pl.DataFrame(rows, ["who", "what", "when", "liked", "seen"], orient="row").write_csv("log.csv")
    prepare("--input", "log.csv", *KEYS, "--label", "liked", "--history", "seen", "--split", "user",
            "--train", "0.5", "--valid", "0.25", "--output", "old")  # fmt: skip
    pl.DataFrame(
        [("b", "w", 99), ("a", "v", 99), ("c", "v", 99)], ["who", "what", "when"], orient="row"
    ).write_csv("rows.csv")
    (tmp_path / "scratch").mkdir()
    Extended(Path("old"), Path("rows.csv"), None, {}, tmp_path / "scratch")
    assert shown(tmp_path / "scratch", Path("old"))["full_item_seq"].to_list() == [
        ["z", "x"],
        ["x", "y", "z"],
        [],
    ]


def test_bad_rows_are_named(result: Path) -> None:
    contents = {
        "who,what\nu1,i1\n": "rows.csv: column 'when' is missing",
        "who,what,when,price,tags,device,place\nu1,i1,soon,1,a,web,1\n": "rows.csv, column when",
        "": "rows.csv cannot be read .empty",
    }
    for content, says in contents.items():
        Path("rows.csv").write_text(content)
        with pytest.raises(UserError, match=says):
            predict(result, "rows.csv")
    with pytest.raises(UserError, match=r"--gpu 99: torch .* sees"):
        predict(result, "rows.csv", gpu=99)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("user_info", r"old: the files have the hash \w+, and dataset_card.json says"),
        ("item_info", r"old: the files have the hash \w+, and dataset_card.json says"),
        ("user_ids", "old/user_ids.parquet cannot be read"),
        ("item_ids", "old/item_ids.parquet cannot be read"),
    ],
)
def test_damaged_data_give_no_scores(log: pl.DataFrame, result: Path, name: str, says: str) -> None:
    raw(log, Path("old")).write_parquet("rows.parquet")
    file = Path("old", f"{name}.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=says):
        predict(result, "rows.parquet")


@pytest.fixture
def calls(result: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many candidates each call of the program in the folder ``served`` gets."""
    trained, calls = Trained(result), []
    served = ServedModel(trained.model, trained.params["max_len"])

    def program(*inputs: Any) -> torch.Tensor:
        calls.append(len(inputs[3]["item_id"]))
        return served(*inputs)

    monkeypatch.setattr(scorers, "load_program", lambda _: program)
    Path("served").mkdir()
    about = json.loads(result.read_text()) | {"context": ["device", "place"]}
    Path("served", ABOUT).write_text(json.dumps(about))
    return calls


def test_a_program_gets_the_candidates_of_each_history(
    log: pl.DataFrame, result: Path, calls: list[int]
) -> None:
    """Samples of many users, of which some have one candidate, in any order."""
    rows = pl.concat([raw(log, Path("old"))] * 2).sample(fraction=1, shuffle=True, seed=0)
    rows.write_parquet("rows.parquet")
    found, want = predict("served", "rows.parquet"), predict(result, "rows.parquet")
    assert found.drop("score").equals(rows) and 1 < len(calls) < len(rows) and min(calls) == 2
    np.testing.assert_allclose(found["score"], want["score"], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="--gpu 0: an exported model runs on the CPU"):
        predict("served", "rows.parquet", gpu=0)


def test_a_service_scores_as_predict_does(
    log: pl.DataFrame, result: Path, calls: list[int]
) -> None:
    rows = raw(log, Path("old"))
    rows.write_parquet("rows.parquet")
    want = predict(result, "rows.parquet").select("who", "what", "when", "device", "place", "score")
    service = Service("served")
    for who, what, when, device, place, score in want.head(40).iter_rows():
        features = {"device": device, "place": place}
        assert service.score(who, [what], when, features) == pytest.approx([score], abs=1e-6)
    items = rows["what"].unique().to_list()
    several = service.score(who, items, when, features)
    one_by_one = [service.score(who, [item], when, features)[0] for item in items]
    assert several == pytest.approx(one_by_one, abs=1e-6) and np.ptp(several) > 1e-4
    whole = service.score("u0", items, features=features)
    assert service.score("u0", items, BEFORE, features) == whole
    assert service.score("u0", items, 10, features) != whole
    assert 0 < service.score("nobody", items[:1], features=features)[0] < 1
    empty = service.score("nobody", items, features=features)
    assert empty == service.score("u0", items, time=-1, features=features)
    with pytest.raises(UserError, match="feature 'place': 'far' is no value of it"):
        service.score("u0", items, features={"device": "web", "place": "far"})
    with pytest.raises(UserError, match="item 'new' is not in "):
        service.score("u0", ["new"], when, features)
    with pytest.raises(UserError, match="feature 'place' is missing"):
        service.score("u0", items, when, {"device": "web"})


@pytest.mark.slow
def test_an_exported_model(log: pl.DataFrame, result: Path, tmp_path: Path) -> None:
    raw(log, Path("old")).write_csv("rows.csv")
    command = ("--result", str(result.resolve()), "--output", str(tmp_path / "served"))
    done = run_module("engine.export", *command)
    assert done.code == 0 and "served: 99 % of 1,000 test samples have the run" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("served*")) == ["served"]
    found, want = predict("served", "rows.csv"), predict(result, "rows.csv")
    np.testing.assert_allclose(found["score"], want["score"], rtol=0, atol=1e-5)
    done = run_module("engine.export", *command)
    assert done.code == 2 and "served: exists already; name a new folder" in done.stderr
    Path("served", PROGRAM).write_bytes(Path("served", PROGRAM).read_bytes()[:-999])
    with pytest.raises(UserError, match=r"served: its program cannot be loaded .* export it again"):
        predict("served", "rows.csv")
    Path("served", ABOUT).unlink()
    with pytest.raises(UserError, match=r"served/model.json"):
        predict("served", "rows.csv")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs the C++ compiler g++")
def test_a_compiled_model(log: pl.DataFrame, result: Path) -> None:
    about = json.loads(result.read_text())
    about["params"]["amp"] = "bf16"
    result.write_text(json.dumps(about))
    assert export(result, "served", compile=True) <= 1e-5
    raw(log, Path("old")).write_csv("rows.csv")
    found, want = predict("served", "rows.csv"), predict(result, "rows.csv")
    np.testing.assert_allclose(found["score"], want["score"], rtol=0, atol=0.02)  # bf16


@pytest.mark.slow
def test_the_commands(log: pl.DataFrame, tmp_path: Path) -> None:
    """Also with the model of more data, which goes on from the first one."""
    shutil.copy("old.csv", "log.csv")
    prepare_and_train(tmp_path, FLAGS, "SDIM_MoS_out")
    (result,) = (tmp_path / "results" / "out").glob("SDIM_MoS_out*seed*.json")
    weights = result.with_suffix(".model").read_bytes()
    save_atomically({}, result.with_suffix(".model"))  # as a later run would that was killed
    with pytest.raises(UserError, match="has weights of another run than the result beside it"):
        Trained(result)
    result.with_suffix(".model").write_bytes(weights)
    metrics = json.loads(result.read_text())["metrics"]
    for split in ("valid", "test"):
        done = run_module("engine.evaluate", "--result", str(result), "--split", split)
        assert f"AUC {metrics[split]['AUC']:.6f}" in done.stdout, done.stderr
    grow = ("--input", "whole.csv", "--like", "out", "--grow", "--min-count", "1")
    prepare(*grow, "--output", "grown")
    done = run_script(
        "run_expid.py", "--config", "grown/config", "--expid", "SDIM_MoS_grown", "--init-from",
        str(result), "--set", "epochs=1", "--model-root", "results", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0 and "no warm-up: all weights start from" in done.stdout, done.stderr
    raw(log, Path("out")).write_csv("rows.csv")
    command = ("--result", str(result), "--input", str(tmp_path / "rows.csv"), "--output")
    done = run_module("engine.predict", *command, str(tmp_path / "scores.csv"))
    assert done.code == 0, done.stderr
    scores = pl.read_csv("scores.csv")
    labels = pl.read_parquet("out/test.parquet")["liked"]
    assert roc_auc_score(labels, scores["score"]) == pytest.approx(metrics["test"]["AUC"], abs=1e-9)
    done = run_module("engine.predict", *command, "scores.txt")
    assert done.code == 2 and "scores.txt: ends with neither .parquet nor .csv" in done.stderr
