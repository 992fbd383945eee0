"""``data/prepare.py generic``: any table, in any form, from the command line to a trained model."""

import contextlib
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from engine.common.errors import UserError
from engine.datasets.forms import ebnerd, generic
from engine.datasets.forms.mapping_file import read_mapping
from engine.datasets.prepared import ready_config
from engine.datasets.prepared.card import FILES, SPLITS
from engine.datasets.prepared.layout import new_folder
from engine.datasets.writing import interactions
from engine.loader.columnar import INDEX
from model_zoo.registry import model_names

from ....support.command_line import ROOT, Outcome, environment, run_script
from ....support.raw_files import write_ebnerd

Command = Callable[..., Outcome]
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
    with new_folder(output, overwrite=True) as new:
        interactions.write(generic.load(read_mapping(None, COLUMNS | flags)), new)
    return {name: pl.read_parquet(output / name) for name in FILES}


def assert_same(first: dict[str, pl.DataFrame], second: dict[str, pl.DataFrame]) -> None:
    """The same rows; times may be in another unit, which decides on the order within a moment."""
    for name, frame in first.items():
        found, expected = (
            f.drop("time", "full_time_seq", strict=False) for f in (frame, second[name])
        )
        key = list(INDEX) if "seq_len" in found.columns else found.columns[0]
        assert found.sort(key).equals(expected.sort(key)), name


# ---------------------------------------------------------------- forms of the same table


def written(folder: Path, form: str) -> str:
    """The random table in one of the forms that are read."""
    table, folder = random_table(), folder / "in"
    folder.mkdir()
    text = table.with_columns(pl.col("when").dt.strftime("%Y-%m-%d %H:%M:%S"))
    if form == "csv":
        text.write_csv(folder / "log.csv")
    elif form == "tsv":
        text.write_csv(folder / "log.tsv", separator="\t", quote_style="never")
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
    mapping = read_mapping(str(tmp_path / "mapping.yaml"), {"positive": 3.0, "label": None})
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


def test_each_table_tells_its_separator(tmp_path: Path) -> None:
    """A named one is that of the tables which have it; their endings may be wrong."""
    table = random_table().select("who", "what", "stars", when=pl.col("when").dt.epoch("s"))
    items = random_table().unique("what").select("what", "price").sort("what")
    users = table.unique("who").select("who", age=pl.col("who").str.len_chars()).sort("who")
    flags = {"item_features": ["price"], "user_features": ["age"]}
    flags |= {key: str(tmp_path / f"{key}.csv") for key in ("input", "items", "users")}
    for name, frame in {"input": table, "items": items, "users": users}.items():
        frame.write_csv(tmp_path / f"{name}.csv")
    expected = prepare(tmp_path, **flags)
    (tmp_path / "input.csv").write_text(table.write_csv().replace(",", "::"))
    items.write_csv(tmp_path / "items.csv", separator=";")
    users.write_csv(tmp_path / "users.csv", separator="\t", include_header=False)
    found = prepare(tmp_path, separator="::", users_columns=["who", "age"], **flags)
    for name, frame in expected.items():
        assert frame.equals(found[name]), name


def test_features_of_samples_of_every_kind(tmp_path: Path) -> None:
    table = random_table().with_columns(pl.lit(None, pl.String).alias("never"))
    table.write_csv(tmp_path / "log.csv")
    features = ["price", "tags:sequence", "device", "never"]
    frames = prepare(tmp_path, input=str(tmp_path / "log.csv"), sample_features=features)
    train = frames["train.parquet"]
    assert train.columns[6:] == ["price", "tags", "device", "never"]
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
    log = generic.load(read_mapping(None, mapping | {"sample_features": ["slot"]}))
    card = interactions.write(log, tmp_path / "out")
    assert sum(split["rows"] for split in card["splits"].values()) == 900
    table = pl.concat([pl.read_parquet(tmp_path / "out" / f"{s}.parquet") for s in SPLITS])
    assert table["label"].sum() == clicked.sum() == card["interactions"]
    assert table["slot"].n_unique() == 3


# ---------------------------------------------------------------- what real files are like


def small(**columns: list) -> pl.DataFrame:
    """Twelve events of two users, one moment after the other, clicked in turns."""
    frame = {
        "u": ["a", "b"] * 6,
        "i": list("xyzxyzzyxzyx"),
        "t": list(range(12)),
        "y": [0, 1, 1, 0] * 3,
    }
    return pl.DataFrame(frame | columns)


def prepare_small(folder: Path, path: Path, **flags: Any) -> dict[str, pl.DataFrame]:
    mapping = {
        "input": str(path),
        "user": "u",
        "item": "i",
        "time": "t",
        "label": "y",
        "train": 0.5,
        "valid": 0.3,
    }
    with new_folder(folder / "out", overwrite=True) as new:
        interactions.write(generic.load(read_mapping(None, mapping | flags)), new)
    return {name: pl.read_parquet(folder / "out" / name) for name in FILES}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, pl.DataFrame]:
    """The data set of ``small``."""
    (tmp_path / "expected").mkdir()
    small().write_parquet(tmp_path / "expected" / "log.parquet")
    return prepare_small(tmp_path / "expected", tmp_path / "expected" / "log.parquet")


TIMES = {
    "fractions of a second": [t / 1e5 for t in range(12)],
    "nanoseconds": [1_700_000_000_000_000_000 + 1000 * t for t in range(12)],
    "before 1970": [t - 100 for t in range(12)],
    "days": [datetime(2024, 1, 1 + t).date() for t in range(12)],
    "time zone": [datetime(2024, 1, 1, t, tzinfo=timezone(timedelta(hours=2))) for t in range(12)],
}


@pytest.mark.parametrize(
    ("kind", "form"),
    [(k, form) for k in TIMES for form in ("csv", "parquet") if form != "csv" or k != "time zone"],
)
def test_moments_keep_their_order(tmp_path: Path, expected: dict, kind: str, form: str) -> None:
    times = pl.Series(TIMES[kind])
    path = tmp_path / f"log.{form}"
    table = small().with_columns(t=times).sample(fraction=1, shuffle=True, seed=1)
    table.write_csv(path) if form == "csv" else table.write_parquet(path)
    found = prepare_small(tmp_path, path)
    assert_same({name: found[name] for name in FILES}, expected)


WRITERS = {
    "semicolons": (lambda t, p: t.write_csv(p, separator=";"), "log.csv", {}),
    "other ending": (lambda t, p: t.write_csv(p, separator="|"), "log.txt", {"separator": "|"}),
    "capitals": (lambda t, p: t.write_csv(p), "LOG.CSV", {}),
    "compressed": (lambda t, p: p.write_bytes(gzip.compress(t.write_csv().encode())), "log.csv.gz", {}),
    "windows": (lambda t, p: p.write_text("\ufeff" + t.write_csv(line_terminator="\r\n"), newline=""), "log.csv", {}),
    "blank lines": (lambda t, p: p.write_text(t.write_csv().replace("\nb", "\n\nb")), "log.csv", {}),
    "a column called row": (lambda t, p: t.with_columns(row=pl.lit(1)).write_csv(p), "log.csv", {}),
    "labels of decimals": (lambda t, p: t.cast({"y": pl.Decimal(10, 2)}).write_parquet(p), "log.parquet", {}),
    "labels of words": (lambda t, p: t.with_columns(y=pl.col("y") == 1).write_csv(p), "log.csv", {}),
    "small types": (lambda t, p: t.cast({"y": pl.UInt8, "t": pl.Int16, "u": pl.Categorical}).write_parquet(p), "log.parquet", {}),
    "a tsv with quotes": (lambda t, p: t.with_columns(n=pl.lit('12" \\"mix')).write_csv(p, separator="\t", quote_style="never"), "log.tsv", {}),
    "stray quotes": (lambda t, p: t.with_columns(n=pl.lit('"Weird')).write_csv(p, quote_style="never"), "log.csv", {"no_quotes": True}),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_every_kind(tmp_path: Path, expected: dict, kind: str) -> None:
    writer, name, flags = WRITERS[kind]
    writer(small(), tmp_path / name)
    assert_same(prepare_small(tmp_path, tmp_path / name, **flags), expected)


def test_stray_quotes_are_not_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = small(n=["good"] * 3 + ['"bad'] + ["good"] * 3 + ['bad"'] + ["good"] * 4)
    table.select("n", "u", "i", "t", "y").write_csv(tmp_path / "log.csv", quote_style="never")
    with contextlib.suppress(UserError):
        prepare_small(tmp_path, tmp_path / "log.csv")
    assert "12 lines are 8 rows" in capsys.readouterr().err
    (tmp_path / "good").mkdir()
    small().write_csv(tmp_path / "good" / "log.csv")
    prepare_small(tmp_path / "good", tmp_path / "good" / "log.csv")
    assert not [line for line in capsys.readouterr().err.splitlines() if "warning" in line]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path, expected: dict) -> None:
    for kind, write in (("csv", pl.DataFrame.write_csv), ("parquet", pl.DataFrame.write_parquet)):
        write(small(), tmp_path / f"log[1].{kind}")
        assert_same(prepare_small(tmp_path, tmp_path / f"log[1].{kind}"), expected)


def test_features_of_an_item_are_its_earliest(tmp_path: Path) -> None:
    """In whatever order the file is."""
    table = small(stock=[float(t) for t in range(12)]).reverse()
    table.write_csv(tmp_path / "log.csv")
    items = prepare_small(tmp_path, tmp_path / "log.csv", item_features=["stock:numeric"])[
        "item_info.parquet"
    ]
    assert items["stock"][1] < items["stock"][2] < items["stock"][3]  # x, y, z come at 0, 1, 2


def test_fractions_as_ids_and_dots_in_names(tmp_path: Path) -> None:
    """Pandas makes fractions of whole numbers where some are missing; names of modules have no dot."""
    numbers = {"x": 7.0, "y": 8.0, "z": 9.0}
    table = small().with_columns(i=pl.col("i").replace_strict(numbers), **{"a.b": pl.lit("q")})
    table.write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"i": [7, 8, 9], "c.d": [1.5, 2.5, 9.5]}).write_csv(tmp_path / "items.csv")
    frames = prepare_small(
        tmp_path, tmp_path / "log.parquet", items=str(tmp_path / "items.csv"),
        item_features=["c.d"], sample_features=["a.b"],
    )  # fmt: skip
    assert frames["item_info.parquet"]["c_d"].n_unique() == 4 and set(
        frames["train.parquet"]["a_b"]
    ) == {2}


def test_the_card_tells_how_it_was_made(tmp_path: Path) -> None:
    table = pl.concat([small(), small()[3:5]])
    table.write_csv(tmp_path / "log.csv")
    prepare_small(tmp_path, tmp_path / "log.csv")
    card = json.loads((tmp_path / "out" / "dataset_card.json").read_text())
    assert card["events"] == 14 and card["events_merged"] == 2
    assert card["mapping"]["label"] == "y" and card["mapping"]["train"] == 0.5


SEQUENCES = {
    "brackets": (["[1, 10]", "[10]", "", "[2,1]"], None, [["1", "10"], ["10"], [], ["2", "1"]]),
    "quotes": (["['1', '10']", "['10']", "[]", '["2", "1"]'], None, [["1", "10"], ["10"], [], ["2", "1"]]),
    "semicolons": (["1;10", "10", "", "2;1"], None, [["1", "10"], ["10"], [], ["2", "1"]]),
    "commas": (["1,10", "10", None, "2, 1"], None, [["1", "10"], ["10"], [], ["2", "1"]]),
    "blanks between numbers": (["1 10", "10", "", "2  -1"], None, [["1", "10"], ["10"], [], ["2", "-1"]]),
    "a named blank": (["a 10", "10", "", "b 1"], " ", [["a", "10"], ["10"], [], ["b", "1"]]),
    "a named bar": (["1 x|10", "10", "", "2|1"], "|", [["1 x", "10"], ["10"], [], ["2", "1"]]),
    "single words": (["red", "10", "", "2"], None, [["red"], ["10"], [], ["2"]]),
    "blanks inside": (["Film Noir|Drama", "Drama", "", "War"], None, [["Film Noir", "Drama"], ["Drama"], [], ["War"]]),
    "blanks alone": (["red shoe", "hat", "", "blue shoe"], None, [["red shoe"], ["hat"], [], ["blue shoe"]]),
    "the order": (["a, b|c", "x;y|z", "", "c"], None, [["a, b", "c"], ["x;y", "z"], [], ["c"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
def test_texts_as_sequences(tmp_path: Path, name: str) -> None:
    """The raw values that a loop reads, whatever form they have."""
    texts, separator, lists = SEQUENCES[name]
    table, named = random_table(), dict(zip(range(4), texts, strict=True))
    table = table.with_columns(tags=pl.Series([named[item % 4] for item in table["what"]]))
    table.write_csv(tmp_path / "log.csv")
    feature = {"name": "tags", "kind": "sequence", "separator": separator}
    prepare(tmp_path, input=str(tmp_path / "log.csv"), item_features=[feature])
    raw = pl.read_parquet(tmp_path / "out" / "encoders" / "1.parquet")["value"].to_list()
    written = pl.read_parquet(tmp_path / "out" / "item_info.parquet")["tags"].to_list()[1:]
    items = pl.read_parquet(tmp_path / "out" / "item_ids.parquet")["item"].to_list()
    found = [[raw[i - 2] for i in ids if i] for ids in written]
    assert found == [lists[int(item) % 4] for item in items]


# ---------------------------------------------------------------- a part of the users


def splitmix(value: int) -> int:
    """The first number of SplitMix64, in Python's whole numbers."""
    bits = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & bits
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & bits
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & bits
    return value ^ value >> 31


@pytest.mark.parametrize("seed", [7, 2**64 - 1])
def test_a_share_of_the_users_is_always_the_same(tmp_path: Path, seed: int) -> None:
    """The data are those of a log of these users, whose texts alone choose them."""
    users = [*(f"ü{n}" for n in range(200)), *map(str, range(-100, 100))]
    table = random_table(rows=4000)
    rng = np.random.default_rng(1)
    table = table.with_columns(who=pl.Series(rng.choice(users, len(table))))

    def draw(user: str) -> float:
        key = splitmix(seed ^ zlib.crc32(user.encode()))
        return (splitmix((key + 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53

    kept = [user for user in users if draw(user) < 0.3]
    assert 80 < len(kept) < 160
    table.write_csv(tmp_path / "all.csv")
    table.filter(pl.col("who").is_in(kept)).write_csv(tmp_path / "kept.csv")
    own = {"item_features": ["price"], "seed": seed}
    found = prepare(tmp_path, input=str(tmp_path / "all.csv"), sample_users=0.3, **own)
    ids = pl.read_parquet(tmp_path / "out" / "user_ids.parquet")
    expected = prepare(tmp_path, input=str(tmp_path / "kept.csv"), **own)
    assert ids.equals(pl.read_parquet(tmp_path / "out" / "user_ids.parquet"))
    assert_same(found, expected)


def test_a_switch_is_a_flag_without_a_value(tmp_path: Path, command: Command) -> None:
    small(n=['"Weird'] * 12).write_csv(tmp_path / "log.csv", quote_style="never")
    keys = ("--user=u", "--item=i", "--time=t", "--label=y", "--train=0.5", "--valid=0.3")
    made = command("generic", "--no-quotes", "--input", "log.csv", *keys, "--output", "out")
    assert made.code == 0, made.stderr


# ---------------------------------------------------------------- from a command to a model


@pytest.mark.slow
def test_one_command_and_it_trains(tmp_path: Path, command: Command) -> None:
    path = written(tmp_path, "csv")
    columns = [f"--{name}={column}" for name, column in COLUMNS.items()]
    features = ["--item-features", "price", "tags:sequence", "--sample-features", "device"]
    made = command("generic", "--input", path, *columns, *features, "--output", "mine")
    assert made.code == 0, made.stderr
    told = made.stdout.splitlines()[-1].removeprefix("train on it: python run_expid.py ")
    models = tmp_path / "mine" / "config" / "model_config.yaml"
    content = yaml.safe_load(models.read_text())
    content["Base"] |= {"model_root": str(tmp_path / "checkpoints"), "epochs": 1}
    models.write_text(yaml.safe_dump(content))
    trained = run_script("run_expid.py", *told.split(), cwd=tmp_path)
    assert trained.code == 0, trained.stderr
    result = json.loads((tmp_path / "checkpoints/mine/TWIN_MoS_mine_seed2024.json").read_text())
    card = json.loads((tmp_path / "mine" / "dataset_card.json").read_text())
    assert result["dataset_hash"] == card["hash"] and 0 < result["metrics"]["test"]["AUC"] < 1
    assert content.keys() == {"Base", *(f"{name}_mine" for name in model_names())}
    again = command("check", "mine")
    assert again.code == 0 and "0 errors" in again.stdout, again.stdout


def test_fuxictr_reads_the_written_configuration(tmp_path: Path) -> None:
    from fuxictr.utils import load_config

    from engine.config.read import load_experiment

    prepare(tmp_path, input=written(tmp_path, "csv"))
    command = ready_config.write(tmp_path / "out", tmp_path / "out")
    assert command.endswith(f"--config {tmp_path / 'out' / 'config'} --expid TWIN_MoS_out")
    config = str(tmp_path / "out" / "config")
    assert load_experiment(config, "MIRRN_out") == load_config(config, "MIRRN_out")


def test_shipped_experiments_only_where_they_fit(tmp_path: Path) -> None:
    """A folder with the name of a shipped data set and other columns gets experiments of its own."""
    raw = tmp_path / "raw"
    write_ebnerd(raw)
    interactions.write(ebnerd.load(raw), tmp_path / "a" / "ebnerd")
    command = ready_config.write(tmp_path / "a" / "ebnerd", tmp_path / "a" / "ebnerd")
    assert "--config" not in command and f"--data-root {tmp_path / 'a'} " in command
    own = generic.load(read_mapping(None, COLUMNS | {"input": written(tmp_path, "csv")}))
    interactions.write(own, tmp_path / "b c" / "ebnerd")
    command = ready_config.write(tmp_path / "b c" / "ebnerd", tmp_path / "b c" / "ebnerd")
    assert f"--config '{tmp_path / 'b c' / 'ebnerd' / 'config'}'" in command


def test_overwriting_loses_nothing_that_is_not_written_again(
    tmp_path: Path, command: Command
) -> None:
    small().write_csv(tmp_path / "log.csv")
    arguments = [
        "generic",
        "--user=u",
        "--item=i",
        "--time=t",
        "--label=y",
        "--train=.5",
        "--valid=.3",
    ]

    def run(*more: str) -> Any:
        return command(*arguments, *more, "--output", "mine")

    assert run("--input", "log.csv").code == 0
    config = tmp_path / "mine" / "config" / "model_config.yaml"
    config.write_text("Base: {epochs: 3}\n")
    again = run("--input", "log.csv", "--overwrite")
    assert again.code == 0 and "the configuration that was there is in" in again.stdout
    kept = tmp_path / "mine" / "config_before" / "model_config.yaml"
    assert kept.read_text() == "Base: {epochs: 3}\n" and "TWIN_MoS_mine" in config.read_text()
    (tmp_path / "log.csv").rename(tmp_path / "mine" / "raw.csv")
    refused = run("--input", "mine/raw.csv", "--overwrite")
    assert refused.code == 2 and "holds raw.csv, which is no part of a data set" in refused.stderr
    assert (tmp_path / "mine" / "raw.csv").exists()


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
    "no such column": (nothing, {"user": "whom"}, ("column 'whom' is missing", "did you mean `who`")),
    "no such file": (nothing, {"input": "no.csv"}, ("no.csv does not exist",)),
    "other suffix": (lambda p: p.rename(p.with_suffix(".txt")), {"input": "in/log.txt"}, ("ends with .txt",)),
    "empty": (lambda p: p.write_text("who,what,when,stars\n"), {}, ("log.csv has no rows",)),
    "no columns": (lambda p: p.write_text(""), {}, ("log.csv cannot be read",)),
    "missing user": (broken("who", 5, ""), {}, ("column who, line 7: the value is missing; write an id, or add --bad-rows leave_out",)),
    "odd date": (broken("when", 9, "yesterday"), {}, ("column when, line 11: the value is 'yesterday'", "%Y-%m-%d")),
    "odd rating": (broken("stars", 3, "five"), {}, ("column stars, line 5: the value is 'five'; write a number",)),
    "odd label": (nothing, {"rating": None, "label": "stars"}, ("column stars, line", "write 0 or 1")),
    "no label": (nothing, {"rating": None}, ("every interaction is a click", "--negatives 4",)),
    "label is a feature": (nothing, {"sample_features": ["stars"]}, ("feature stars is the label",)),
    "odd number": (broken("price", 30, "cheap"), {"item_features": ["price:numeric"]}, ("price, line 32: the value is 'cheap'",)),
    "feature without a name": (nothing, {"item_features": [{"name": None}]}, ("has no name; write a column",)),
    "unknown kind": (nothing, {"item_features": ["price:number"]}, ("feature price: kind is 'number'; write categorical or sequence or",)),
    "vectors in text": (nothing, {"item_features": ["tags:embedding"]}, ("column tags is String",)),
    "label is a feature of items": (nothing, {"item_features": ["stars"]}, ("feature stars is the label",)),
    "a feature twice": (nothing, {"item_features": ["price", "price"]}, ("feature price is named twice",)),
    "action is a feature": (
        nothing, {"rating": None, "action": "device", "positive_actions": ["web"], "sample_features": ["device"]},
        ("feature device is the label or tells it",),
    ),
    "a name of the label": (
        lambda p: p.write_text(p.read_text().replace("stars", "liked", 1)),
        {"rating": None, "label": "liked", "sample_features": [{"name": "liked", "column": "price"}]},
        ("feature liked has a name that is taken",),
    ),
    "a name of a scratch column": (
        nothing, {"sample_features": [{"name": "chance", "column": "price"}]}, ("chance has a name that is taken",)
    ),
    "a name of torch's": (
        nothing, {"sample_features": [{"name": "type", "column": "price"}]}, ("type has a name that is taken",)
    ),
    "negative seed": (nothing, {"seed": -1}, ("--seed is -1; write a number from 0 to",)),
    "large seed": (nothing, {"seed": 2**64}, ("--seed is 18446744073709551616; write",)),
    "test rows of exposures": (
        nothing, {"rating": None, "exposures": "in/log.csv", "test_input": "in/log.csv"}, ("--test-input and --exposures exclude",)
    ),
    "a number too large": (
        broken("price", 30, "1e300"), {"item_features": ["price:numeric"]}, ("price, line 32: the value is '1e300'; write a number up to 3.4e+38",)
    ),
    "no such action": (nothing, {"rating": None, "action": "device", "positive_actions": ["Phone"]}, ("column device has no 'Phone'; there are phone, web",)),
    "columns twice": (nothing, {"item": "who"}, ("--user and --item and --time must name three different columns; got who, who, when",)),
    "positive without rating": (nothing, {"rating": None, "label": "stars", "positive": 3.0}, ("--positive needs --rating; add it",)),
    "min count": (nothing, {"min_count": 0}, ("--min-count is 0; write 1 or more",)),
    "all rare": (nothing, {"min_count": 10_000}, ("--min-count 10000 is too large, for no item occurs so often",)),
    "infinite time": (broken("when", 0, "inf"), {}, ("column when, line 2: the value is 'inf'; write a date",)),
    "none of the items": (
        lambda p: (p.parent / "items.csv").write_text("what,price\nx,1\n"),
        {"items": "in/items.csv", "item_features": ["price"]}, ("items.csv lacks 60 of 60 items", "'100'"),
    ),
    "header": (nothing, {"columns": ["Who", "what", "when", "stars", "price", "tags", "device"], "user": "Who"}, ("log.csv has a header, who, what",)),
    "two features of one name": (
        nothing, {"item_features": ["price"], "sample_features": ["price"]}, ("feature price is named twice",)
    ),
    "shares": (nothing, {"train": 0.9, "valid": 0.2}, ("together below 1",)),
    "split": (nothing, {"split": "random"}, ("split is 'random'; write time or user",)),
    "all liked": (nothing, {"positive": 0.0}, ("every label of the training data is 1",)),
    "one label in validation": (
        lambda p: pl.read_csv(p).sort("when").with_columns(stars=pl.int_range(pl.len()).clip(upper_bound=1599) % 2).write_csv(p),
        {"positive": 1.0}, ("every label of the validation data is 1", "write --split user or other shares"),
    ),
    "users with every item": (
        lambda p: p.write_text("who,what,when,stars\n" + "".join(f"a,{i},{i},5\n" for i in range(40))),
        {"rating": None, "negatives": 1, "negatives_from": "uniform"},
        ("no negative could be drawn for the", "because the users have every item"),
    ),
    "ratings of 0 and 1": (
        lambda p: pl.read_csv(p).with_columns(pl.col("stars") % 2).write_csv(p), {},
        ("every label of the training data is 0", "--positive"),
    ),
    "item twice": (nothing, {"items": "in/log.csv", "item_features": ["device"]}, ("item 1", "stands twice")),
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
    assert "mine was not written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
