"""``data/prepare.py generic``: any table, in any form, from the command line to a trained model."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from engine.datasets import generic, interactions
from engine.datasets.layout import FILES, SPLITS
from engine.errors import UserError

from .command_line import ROOT, environment, run_script

COLUMNS = {"user": "who", "item": "what", "time": "when", "rating": "stars"}


def random_table(seed: int = 0, rows: int = 2000) -> pl.DataFrame:
    """Items have a price and tags of their own; ids are texts and numbers."""
    rng = np.random.default_rng(seed)
    item = rng.integers(100, 160, size=rows)
    start = datetime(2024, 1, 1)
    tags = ["|".join("abcdef"[i % 6 : i % 6 + i % 3]) for i in range(160)]
    return pl.DataFrame(
        {
            "who": [f"user {u}" for u in rng.integers(30, size=rows)],
            "what": item,
            "when": [start + timedelta(minutes=int(m)) for m in rng.integers(50_000, size=rows)],
            "stars": rng.integers(1, 6, size=rows),
            "price": item / 7,
            "tags": [tags[i] for i in item],
            "device": rng.choice(["phone", "web"], size=rows),
        }
    )


def prepare(folder: Path, **flags: Any) -> dict[str, pl.DataFrame]:
    """The five files that the flags make."""
    output = folder / "out"
    interactions.write(generic.load(generic.read_mapping(None, COLUMNS | flags)), output, True)
    return {name: pl.read_parquet(output / name) for name in FILES}


def assert_same(first: dict[str, pl.DataFrame], second: dict[str, pl.DataFrame]) -> None:
    for name, frame in first.items():
        assert frame.equals(second[name]), name


# ---------------------------------------------------------------- forms of the same table


def written(folder: Path, form: str) -> str:
    """The random table in one of the forms that are read."""
    table, folder = random_table(), folder / "in"
    folder.mkdir()
    text = table.with_columns(pl.col("when").dt.strftime("%Y-%m-%d %H:%M:%S"))
    if form == "csv":
        text.write_csv(folder / "log.csv")
    elif form == "tsv":
        text.write_csv(folder / "log.tsv", separator="\t")
    elif form == "parquet":
        table.write_parquet(folder / "log.parquet")
    elif form == "folder":
        for i, part in enumerate(text.iter_slices(700)):
            part.write_csv(folder / f"part{i}.csv")
        return str(folder)
    elif form == "pattern":
        for i, part in enumerate(table.iter_slices(700)):
            part.write_parquet(folder / f"log_{i}.parquet")
        (folder / "notes.csv").write_text("other,things\n")
        return str(folder / "log_*.parquet")
    elif form == "iso dates":
        text.with_columns(pl.col("when").str.replace(" ", "T") + "Z").write_csv(folder / "log.csv")
    elif form == "seconds":
        seconds = table.with_columns(pl.col("when").dt.epoch("s"))
        seconds.write_csv(folder / "log.csv")
    elif form == "fractions":
        (table.with_columns(pl.col("when").dt.epoch("ms") / 1000)).write_csv(folder / "log.csv")
    return str(next(folder.iterdir()))


@pytest.mark.parametrize(
    "form", ["tsv", "parquet", "folder", "pattern", "iso dates", "seconds", "fractions"]
)
def test_every_form_gives_the_same_data(tmp_path: Path, form: str) -> None:
    features = {"item_features": ["price", "tags:sequence"], "sample_features": ["device"]}
    (tmp_path / "csv").mkdir()
    expected = prepare(tmp_path, input=written(tmp_path / "csv", "csv"), **features)
    assert_same(prepare(tmp_path, input=written(tmp_path, form), **features), expected)


def test_a_mapping_file_says_the_same_as_flags(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    content = COLUMNS | {"input": "in/log.csv", "positive": 5, "split": "user"}
    content["item_features"] = [{"name": "tags", "kind": "sequence", "max_len": 1}, "price"]
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(content))
    mapping = generic.read_mapping(str(tmp_path / "mapping.yaml"), {"positive": 3.0, "label": None})
    assert mapping.positive == 3 and mapping.input == path
    interactions.write(generic.load(mapping), tmp_path / "by_file")
    flags = prepare(
        tmp_path, input=path, positive=3.0, split="user", item_features=content["item_features"]
    )
    assert_same({name: pl.read_parquet(tmp_path / "by_file" / name) for name in FILES}, flags)
    assert flags["item_info.parquet"]["tags"].list.len().max() == 1


def test_features_of_an_item_table(tmp_path: Path) -> None:
    """Its ids may be of another type; items that it lacks have unknown features."""
    path = written(tmp_path, "csv")
    items = (
        random_table()
        .unique("what")
        .select("what", "price", vector=pl.concat_list("price", "stars"))
    )
    items = items.with_columns(pl.col("vector").cast(pl.List(pl.Float32))).filter(
        pl.col("what") != 100
    )
    items.write_parquet(tmp_path / "items.parquet")
    frames = prepare(
        tmp_path,
        input=path,
        items=str(tmp_path / "items.parquet"),
        item_features=["price", "vector"],
    )
    table, without = frames["item_info.parquet"], frames["item_info.parquet"].row(1, named=True)
    assert without["price"] == 0 and without["vector"] == [0, 0]  # 100 is the first id
    prices = np.array([i / 7 for i in range(101, 160)])
    order = np.argsort(table["price"].to_numpy()[2:])
    assert np.array_equal(order, np.argsort(prices))
    first = table["vector"].list.get(0).to_numpy()[2:]
    assert np.allclose(first, prices, atol=1e-5)


def test_features_of_samples_of_every_kind(tmp_path: Path) -> None:
    table = random_table().with_columns(pl.lit(None, pl.String).alias("never"))
    table.write_csv(tmp_path / "log.csv")
    features = ["price", "tags:sequence", "device", "never"]
    frames = prepare(tmp_path, input=str(tmp_path / "log.csv"), sample_features=features)
    train = frames["train.parquet"]
    assert train.columns[4:] == ["price", "tags", "device", "never"]
    assert abs(train["price"].mean()) < 1e-4 and abs(train["price"].std() - 1) < 0.01
    assert train["tags"].list.len().unique().to_list() == [2]
    assert set(train["device"]) == {2, 3} and set(train["never"]) == {1}
    assert not any(frame.null_count().sum_horizontal().item() for frame in frames.values())


def test_exposures_are_the_samples(tmp_path: Path) -> None:
    """Clicks come from one table, what was shown from another."""
    rng = np.random.default_rng(3)
    shown = [
        (f"u{rng.integers(9)}", int(rng.integers(20)), int(t), str(rng.integers(3)))
        for t in range(900)
    ]
    clicked = rng.random(900) < 0.4
    clicks = [(u, i, t + 0.5) for (u, i, t, _), c in zip(shown, clicked, strict=True) if c]
    names = ["who", "what", "when"]
    pl.DataFrame(shown, [*names, "slot"], orient="row").write_csv(tmp_path / "shown.csv")
    pl.DataFrame(clicks, names, orient="row").write_csv(tmp_path / "clicks.csv")
    mapping = {k: v for k, v in COLUMNS.items() if k != "rating"}
    mapping |= {"input": str(tmp_path / "clicks.csv"), "exposures": str(tmp_path / "shown.csv")}
    log = generic.load(generic.read_mapping(None, mapping | {"sample_features": ["slot"]}))
    card = interactions.write(log, tmp_path / "out")
    assert sum(split["rows"] for split in card["splits"].values()) == 900
    table = pl.concat([pl.read_parquet(tmp_path / "out" / f"{s}.parquet") for s in SPLITS])
    assert table["label"].sum() == clicked.sum() == card["interactions"]
    assert table["slot"].n_unique() == 3


# ---------------------------------------------------------------- from a command to a model


def test_one_command_and_it_trains(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    columns = [f"--{name}={column}" for name, column in COLUMNS.items()]
    features = ["--item-features", "price", "tags:sequence", "--sample-features", "device"]
    made = run_script(
        "data/prepare.py",
        "generic",
        "--input",
        path,
        *columns,
        *features,
        "--output",
        "mine",
        cwd=tmp_path,
    )
    assert made.code == 0, made.stderr
    command = made.stdout.splitlines()[-1].removeprefix("train on it: python run_expid.py ").split()
    models = tmp_path / "mine" / "config" / "model_config.yaml"
    content = yaml.safe_load(models.read_text())
    content["Base"]["model_root"] = str(tmp_path / "checkpoints")
    models.write_text(yaml.safe_dump(content))
    trained = run_script("run_expid.py", *command, cwd=tmp_path)
    assert trained.code == 0, trained.stderr
    result = json.loads((tmp_path / "checkpoints/mine/TWIN_MoS_mine_seed2024.json").read_text())
    card = json.loads((tmp_path / "mine" / "dataset_card.json").read_text())
    assert result["dataset_hash"] == card["hash"] and 0 < result["metrics"]["test"]["AUC"] < 1
    assert len(content) == 24  # Base and every model
    again = run_script("data/prepare.py", "check", "mine", cwd=tmp_path)
    assert again.code == 0 and "0 errors" in again.stdout, again.stdout


def test_fuxictr_reads_the_written_configuration(tmp_path: Path) -> None:
    from fuxictr.utils import load_config

    from engine.config import load_experiment
    from engine.datasets import ready_config

    prepare(tmp_path, input=written(tmp_path, "csv"))
    command = ready_config.write(tmp_path / "out", ROOT)
    assert command.endswith(f"--config {tmp_path / 'out' / 'config'} --expid TWIN_MoS_out")
    config = str(tmp_path / "out" / "config")
    assert load_experiment(config, "MIRRN_out") == load_config(config, "MIRRN_out")


# ---------------------------------------------------------------- bad input


def broken(column: str, row: int, value: str) -> Any:
    """Put a value into one cell of the CSV file."""

    def edit(path: Path) -> None:
        table = pl.read_csv(path, infer_schema=False)
        values = table[column].to_list()
        values[row] = value
        table.with_columns(pl.Series(column, values)).write_csv(path)

    return edit


def nothing(path: Path) -> None:
    """The mistake is in the flags."""


BAD = {
    "no such column": (nothing, {"user": "whom"}, ("no column 'whom'", "did you mean `who`")),
    "no such file": (nothing, {"input": "no.csv"}, ("no.csv: no such file",)),
    "other suffix": (lambda p: p.rename(p.with_suffix(".txt")), {"input": "in/log.txt"}, ("ends with .txt",)),
    "empty": (lambda p: p.write_text("who,what,when,stars\n"), {}, ("log.csv: has no rows",)),
    "no columns": (lambda p: p.write_text(""), {}, ("log.csv: cannot be read",)),
    "missing user": (broken("who", 5, ""), {}, ("column who, line 7: is missing; write an id",)),
    "odd date": (broken("when", 9, "yesterday"), {}, ("column when, line 11: is 'yesterday'", "%Y-%m-%d")),
    "unknown form of dates": (broken("when", 0, "1.2.24"), {}, ("'1.2.24' is no date", "--time-format")),
    "odd rating": (broken("stars", 3, "five"), {}, ("column stars, line 5: is 'five'; write a number",)),
    "odd label": (nothing, {"rating": None, "label": "stars"}, ("column stars, line", "write 0 or 1")),
    "no label": (nothing, {"rating": None}, ("without --label or --rating every interaction is a click",)),
    "label is a feature": (nothing, {"sample_features": ["stars"]}, ("stars: is the label",)),
    "odd number": (broken("price", 30, "cheap"), {"item_features": ["price:numeric"]}, ("price, line 32: is 'cheap'",)),
    "unknown kind": (nothing, {"item_features": ["price:number"]}, ("'number' is none of", "did you mean `numeric`")),
    "vectors in text": (nothing, {"item_features": ["tags:embedding"]}, ("column tags: is String",)),
    "two features of one name": (
        nothing, {"item_features": ["price"], "sample_features": ["price"]}, ("price: is a feature of items and",)
    ),
    "shares": (nothing, {"train": 0.9, "valid": 0.2}, ("together below 1",)),
    "split": (nothing, {"split": "random"}, ("--split random: write time or user",)),
    "all liked": (nothing, {"positive": 0.0}, ("every label of the training data is 1",)),
    "item twice": (nothing, {"items": "in/log.csv", "item_features": ["price"]}, ("item 1", "stands twice")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_nothing_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, changes, says = BAD[name]
    monkeypatch.chdir(tmp_path)
    spoil(Path(written(tmp_path, "csv")))
    with pytest.raises(UserError) as error:
        prepare(tmp_path, **({"input": "in/log.csv"} | changes))
    assert all(part in str(error.value) for part in says), error.value
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk."""
    import resource
    import subprocess
    import sys

    path = written(tmp_path, "csv")
    columns = [f"--{name}={column}" for name, column in COLUMNS.items()]
    done = subprocess.run(
        [sys.executable, str(ROOT / "data/prepare.py"), "generic", "--input", path, *columns, "--output", "mine"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "mine: cannot be written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
