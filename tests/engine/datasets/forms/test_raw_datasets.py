"""EB-NeRD and KuaiRand from their raw files, against plain loops; the authors' fixture."""

import os
from pathlib import Path

import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.forms import ebnerd, generic
from engine.datasets.forms.mapping_file import READY, read_mapping
from engine.datasets.prepared.card import SPLITS
from engine.datasets.writing import interactions

from ....support.command_line import run_script
from ....support.raw_files import write_ebnerd, write_kuairand


def samples_and_histories(folder: Path, feature: str | None = None) -> dict[str, list[tuple]]:
    """``(user_index, item_index, label, history)`` of each split, and a feature's ids."""
    histories = pl.read_parquet(folder / "user_info.parquet")["full_item_seq"].to_list()
    found = {}
    for split in SPLITS:
        table = pl.read_parquet(folder / f"{split}.parquet")
        label = table.columns[5]
        found[split] = [
            (
                r["user_index"],
                r["item_index"],
                r[label],
                tuple(histories[r["user_index"]][: r["seq_len"]]),
                *([r[feature]] if feature else []),
            )
            for r in table.iter_rows(named=True)
        ]
    return found


# ---------------------------------------------------------------- EB-NeRD


def test_ebnerd_against_a_plain_loop(tmp_path: Path) -> None:
    """Train is the first folder, valid and test the halves of the second; a history is all clicks
    of the user at earlier moments, in whichever file they stand."""
    write_ebnerd(tmp_path / "raw")
    interactions.write(ebnerd.load(tmp_path / "raw"), tmp_path / "data")
    behaviors = [pl.read_parquet(tmp_path / "raw" / p / "behaviors.parquet") for p in ebnerd.PARTS]
    history = [pl.read_parquet(tmp_path / "raw" / p / "history.parquet") for p in ebnerd.PARTS]
    clicks: dict[int, dict[tuple, None]] = {}
    for table in history:
        for row in table.iter_rows(named=True):
            for t, i in zip(row["impression_time_fixed"], row["article_id_fixed"], strict=True):
                clicks.setdefault(row["user_id"], {})[t, i] = None
    shown, age_of = {}, {}
    for table in behaviors:
        for row in table.iter_rows(named=True):
            for i in row["article_ids_inview"]:
                key = row["user_id"], row["impression_time"], i
                age_of.setdefault(key, row["age"])
                shown[key] = shown.get(key, False) or i in row["article_ids_clicked"]
                if i in row["article_ids_clicked"]:
                    clicks.setdefault(row["user_id"], {})[row["impression_time"], i] = None
    articles = sorted({i for c in clicks.values() for _, i in c} | {i for _, _, i in shown})
    users = sorted(clicks.keys() | {u for u, _, _ in shown})
    times = sorted(behaviors[1]["impression_time"])
    middle = times[int(0.5 * (len(times) - 1))]
    expected: dict[str, list[tuple]] = {split: [] for split in SPLITS}
    for (user, moment, item), clicked in shown.items():
        split = SPLITS[(moment >= times[0]) + (moment >= middle)]
        before = sorted((t, i) for t, i in clicks.get(user, {}) if t < moment)
        history_of = tuple(articles.index(i) + 1 for _, i in before)
        age = 2 + (age_of[user, moment, item] - 20) // 10  # ages are 20, 30, 40, 50
        expected[split].append(
            (users.index(user), articles.index(item) + 1, int(clicked), history_of, age)
        )
    found = samples_and_histories(tmp_path / "data", "age")
    for split in SPLITS:
        assert sorted(found[split]) == sorted(expected[split]), split
        assert expected[split], split


def test_ebnerd_features(tmp_path: Path) -> None:
    write_ebnerd(tmp_path / "raw")
    interactions.write(ebnerd.load(tmp_path / "raw"), tmp_path / "default")
    items = pl.read_parquet(tmp_path / "default" / "item_info.parquet")
    assert items.columns == ["item_index", "article_id", *ebnerd.ARTICLE]
    train = pl.read_parquet(tmp_path / "default" / "train.parquet")
    assert train.columns[5:] == ["click", *ebnerd.USER, *ebnerd.MOMENT]
    vectors = pl.DataFrame({"article_id": range(50), "image": [[i / 2, -i] for i in range(50)]})
    vectors.cast({"image": pl.List(pl.Float32)}).write_parquet(tmp_path / "vectors.parquet")
    chosen = ["age"], ["category", "subcategory"], str(tmp_path / "vectors.parquet")
    card = interactions.write(ebnerd.load(tmp_path / "raw", *chosen), tmp_path / "data")
    items = pl.read_parquet(tmp_path / "data" / "item_info.parquet")
    assert items.columns == ["item_index", "article_id", "category", "subcategory", "embedding"]
    train = pl.read_parquet(tmp_path / "data" / "train.parquet")
    assert train.columns[5:] == ["click", "age", *ebnerd.MOMENT]
    assert 1 < card["vocab_sizes"]["impression_hour"] <= 26
    assert items["category"].max() == card["vocab_sizes"]["category"] - 1 > 1
    known = items.filter(pl.col("embedding").list.get(1) != 0)
    assert (known["embedding"].list.get(0) * 2 + known["embedding"].list.get(1)).abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sample_features": ["next_read_time"]}, "next_read_time is measured after"),
        ({"item_features": ["total_pageviews"]}, "total_pageviews counts until the end"),
        ({"sample_features": ["gendre"]}, "column 'gendre' is missing.*did you mean `gender`"),
        ({"embeddings": "names.parquet"}, "no column of vectors, only article_id, name"),
    ],
)
def test_ebnerd_refuses_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict, says: str
) -> None:
    write_ebnerd(tmp_path / "raw")
    monkeypatch.chdir(tmp_path / "raw")
    pl.DataFrame({"article_id": [1], "name": ["a"]}).write_parquet("names.parquet")
    with pytest.raises(UserError, match=says):
        interactions.write(ebnerd.load(tmp_path / "raw", **arguments), tmp_path / "data")


def test_ebnerd_without_its_articles(tmp_path: Path) -> None:
    write_ebnerd(tmp_path / "raw")
    (tmp_path / "raw" / "articles.parquet").unlink()
    card = interactions.write(ebnerd.load(tmp_path / "raw"), tmp_path / "data")
    items = pl.read_parquet(tmp_path / "data" / "item_info.parquet")[1:]
    assert set(items["category"]) == {1} and set(items["subcategory"].explode()) == {0}
    assert card["vocab_sizes"]["article_id"] > 2


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("articles", {"category": "kategory"}, "articles.parquet: column 'category'.*`kategory`"),
        (
            "train/behaviors",
            {"gender": "gendre"},
            "column 'gender' is missing.*did you mean `gendre`",
        ),
        ("train/history", None, "history.parquet does not exist"),
    ],
)
def test_ebnerd_refuses(
    tmp_path: Path, file: str, change: dict[str, str] | None, says: str
) -> None:
    write_ebnerd(tmp_path / "raw")
    path = tmp_path / "raw" / f"{file}.parquet"
    if change is None:
        path.unlink()
    else:
        pl.read_parquet(path).rename(change).write_parquet(path)
    with pytest.raises(UserError, match=says):
        interactions.write(ebnerd.load(tmp_path / "raw"), tmp_path / "data")


def test_ebnerd_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ebnerd(tmp_path / "raw")
    path = tmp_path / "raw" / "train" / "behaviors.parquet"
    shown = pl.read_parquet(path)
    lost = pl.int_range(pl.len()) < 3
    time = pl.when(lost).then(None).otherwise("impression_time").alias("impression_time")
    shown.with_columns(time).write_parquet(path)
    card = interactions.write(ebnerd.load(tmp_path / "raw"), tmp_path / "data")
    articles = shown["article_ids_inview"].list.len()
    said = f"{articles.head(3).sum()} events without a user, an item or a time are left out"
    assert said in capsys.readouterr().out
    assert card["splits"]["train"]["rows"] <= articles.sum() - articles.head(3).sum()


@pytest.mark.parametrize("week", [True, False])
def test_ebnerd_without_impressions(tmp_path: Path, week: bool) -> None:
    write_ebnerd(tmp_path / "raw")
    part = tmp_path / "raw" / "validation"
    behaviors = part / "behaviors.parquet"
    pl.read_parquet(behaviors).clear().write_parquet(behaviors)
    says = "behaviors.parquet has no impressions" if week else "no event is a sample"
    with pytest.raises(UserError, match=says):
        interactions.write(ebnerd.load(tmp_path / "raw" if week else part), tmp_path / "data")


def test_a_cut_off_file_is_named(tmp_path: Path) -> None:
    write_ebnerd(tmp_path / "raw")
    path = tmp_path / "raw" / "train" / "behaviors.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"behaviors\.parquet cannot be read"):
        ebnerd.load(tmp_path / "raw")


@pytest.mark.skipif(
    "REAL_DATA_DIR" not in os.environ, reason="set REAL_DATA_DIR to a folder with ebnerd_fixture"
)
def test_the_authors_fixture(tmp_path: Path) -> None:
    raw = Path(os.environ["REAL_DATA_DIR"]) / "ebnerd_fixture"
    made = run_script(
        "data/prepare.py", "ebnerd", "--input", str(raw), "--output", "ebnerd", cwd=tmp_path
    )
    assert made.code == 0, made.stderr
    assert "train on it: python run_expid.py --expid TWIN_MoS_ebnerd" in made.stdout
    behaviors = pl.read_parquet(raw / "behaviors.parquet")
    pairs = behaviors.explode("article_ids_inview").unique(
        ["user_id", "impression_time", "article_ids_inview"]
    )
    found = samples_and_histories(tmp_path / "ebnerd")
    assert sum(map(len, found.values())) == len(pairs.drop_nulls("article_ids_inview"))
    lengths = pl.read_parquet(raw / "history.parquet")["article_id_fixed"].list.len()
    assert max(len(s[3]) for s in found["train"]) >= lengths.max() * 0.9
    checked = run_script("data/prepare.py", "check", "ebnerd", cwd=tmp_path)
    assert checked.code == 0 and "0 errors, 0 warnings" in checked.stdout, checked.stdout


# ---------------------------------------------------------------- KuaiRand


@pytest.mark.parametrize("label", ["is_click", "long_view"])
def test_kuairand_against_a_plain_loop(tmp_path: Path, label: str) -> None:
    log = write_kuairand(tmp_path / "raw" / "data").sort("time_ms")
    mapping = read_mapping(
        READY / "kuairand.yaml", {"input": str(tmp_path / "raw"), "label": label}
    )
    card = interactions.write(generic.load(mapping), tmp_path / "data")
    users, videos = (sorted(map(str, log[c].unique())) for c in ("user_id", "video_id"))
    times = log["time_ms"].to_list()
    starts = [times[int(share * (len(times) - 1) + 1e-9)] for share in (0.8, 0.9)]
    expected: dict[str, list[tuple]] = {split: [] for split in SPLITS}
    liked: dict[str, list[int]] = {user: [] for user in users}
    for row in log.iter_rows(named=True):
        user, item = str(row["user_id"]), videos.index(str(row["video_id"])) + 1
        split = SPLITS[sum(row["time_ms"] >= start for start in starts)]
        expected[split].append((users.index(user), item, float(row[label]), tuple(liked[user])))
        liked[user] += [item] if row[label] else []
    found = samples_and_histories(tmp_path / "data")
    for split in SPLITS:
        assert sorted(found[split]) == sorted(expected[split]), split
    items = pl.read_parquet(tmp_path / "data" / "item_info.parquet")
    assert items["tag"].list.len().unique().to_list() == [3]
    assert items["tag"][1 + videos.index("7")].to_list() == [0, 0, 0]
    assert card["vocab_sizes"]["hourmin"] == 26 and card["licence"].startswith("CC")


def test_kuairand_without_its_videos(tmp_path: Path) -> None:
    write_kuairand(tmp_path / "raw")
    next((tmp_path / "raw").glob("video*")).unlink()
    with pytest.raises(UserError, match=r"video_features_basic_\*\.csv does not exist"):
        generic.load(read_mapping(READY / "kuairand.yaml", {"input": str(tmp_path / "raw")}))
