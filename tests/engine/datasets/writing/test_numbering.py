"""Blocks of users: as large as the memory allows, given by the folder, or worked on by a cluster."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.forms import generic
from engine.datasets.forms.mapping_file import read_mapping
from engine.datasets.prepared.card import CARD, SPLITS
from engine.datasets.raw.raw_files import PART
from engine.datasets.writing import interactions, numbering

from ....support.command_line import Outcome, run_script
from ....support.helpers import without_package

KEYS = {"user": "who", "item": "what", "time": "when", "label": "clicked"}
FLAGS = [word for key, column in KEYS.items() for word in (f"--{key}", column)]


@pytest.fixture
def table() -> pl.DataFrame:
    """Events of 30 users, some of whom have many more than others."""
    rng = np.random.default_rng(0)
    rows = 900
    return pl.DataFrame(
        {
            "who": [f"u{int(30 * x**2)}" for x in rng.random(rows)],
            "what": rng.integers(40, size=rows),
            "when": 1_600_000_000 + rng.integers(500, size=rows),
            "clicked": rng.integers(2, size=rows),
            "place": rng.choice(["home", "mail"], size=rows),
        }
    )


def prepare(folder: Path, memory: float = 4.0, **flags: Any) -> dict[str, Any]:
    """Prepare ``folder/log...`` into ``folder/out``; returns the card."""
    mapping = read_mapping(None, KEYS | {"sample_features": ["place"]} | flags)
    return interactions.write(generic.load(mapping), folder / "out", memory)


def samples(folder: Path) -> dict[str, list[tuple]]:
    """The samples of each split with raw ids and histories, sorted."""
    user, item = (
        dict(pl.read_parquet(folder / "out" / f"{name}_ids.parquet").iter_rows())
        for name in ("user", "item")
    )
    histories = dict(
        pl.read_parquet(folder / "out" / "user_info.parquet").select(
            "user_index", "full_item_seq"
        ).iter_rows()
    )  # fmt: skip
    found = {}
    for split in SPLITS:
        rows = pl.read_parquet(folder / "out" / f"{split}.parquet").iter_rows(named=True)
        found[split] = sorted(
            (
                user[row["user_index"]],
                item[row["item_index"]],
                row["time"],
                row["clicked"],
                row["place"],
                [item[i] for i in histories[row["user_index"]][: row["seq_len"]]],
            )
            for row in rows
        )
    return found


# ---------------------------------------------------------------- memory


def test_blocks_are_as_large_as_the_memory_allows(
    tmp_path: Path, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set is the same, whatever the memory."""
    table.write_csv(tmp_path / "log.csv")
    monkeypatch.setattr(numbering, "PROGRAM", 0)
    monkeypatch.setattr(numbering, "ID", 0)
    monkeypatch.setattr(numbering, "LEAST", 50)
    counts, hashes = [], set()
    number = numbering.number

    def counted(*args: Any) -> numbering.Numbered:
        numbered = number(*args)
        counts.append(len(numbered.spans()))
        return numbered

    monkeypatch.setattr(interactions, "number", counted)
    for kib in (0, 200, 10_000):
        card = prepare(tmp_path / str(kib), kib / 2**20, input=str(tmp_path / "log.csv"))
        hashes.add(card["hash"])
    prepare(tmp_path / "negatives", 200 / 2**20, input=str(tmp_path / "log.csv"), negatives=9)
    assert len(hashes) == 1
    nothing, some, much, with_negatives = counts
    assert nothing > some > much == 1 and with_negatives > some


@pytest.mark.parametrize("partitioned", [False, True])
def test_a_user_and_an_item_may_be_in_many_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitioned: bool
) -> None:
    """Against a plain loop. An item's first event is not in its first slice."""
    monkeypatch.setattr(numbering, "SLICE", 7)
    rng = np.random.default_rng(0)
    users, items = (rng.choice([*"abcdef", None], 100).tolist() for _ in range(2))
    events = {"row": range(100), "user": users, "item": items, "time": rng.integers(30, size=100)}
    if partitioned:
        events[PART] = ["odd" if user in {*"bd"} else "even" for user in users]
    given = pl.LazyFrame(events).with_columns(label=1, positive=True)
    found = numbering.number(given, "a test", tmp_path, None, 4.0, 0)
    kept = [event for event in zip(*events.values(), strict=True) if None not in event]
    counts = Counter(user for _, user, *_ in kept)
    first = {item: row for row, _, item, *_ in sorted(kept, key=lambda e: (-e[3], -e[0]))}
    order = sorted(counts, key=lambda user: (partitioned and user in {*"bd"}, user))
    assert found.users["user"].to_list() == order
    assert dict(found.users.select("user", "events").iter_rows()) == counts
    assert found.items.rows() == sorted(first.items())


# ---------------------------------------------------------------- partitions


def write_partitions(table: pl.DataFrame, folder: Path, nested: bool) -> None:
    """Five parts by a hash of the user: a file each, or a folder of two files each."""
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for part in range(5):
        rows = table.filter(pl.col("who").hash() % 5 == part)
        if nested:
            (folder / f"bucket={part}").mkdir()
            rows[:20].write_parquet(folder / f"bucket={part}" / "part-00000.parquet")
            rows[20:].write_parquet(folder / f"bucket={part}" / "part-00001.parquet")
        else:
            rows.write_parquet(folder / f"part-{part:05}-c000.snappy.parquet")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("negatives", [0, 2])
def test_partitions_are_the_blocks(
    tmp_path: Path, table: pl.DataFrame, nested: bool, negatives: int
) -> None:
    table.write_csv(tmp_path / "log.csv")
    write_partitions(table, tmp_path / "parts", nested)
    (tmp_path / "whole").mkdir()
    options = {"negatives": negatives} if negatives else {}
    whole = prepare(tmp_path / "whole", input=str(tmp_path / "log.csv"), **options)
    card = prepare(tmp_path, input=str(tmp_path / "parts"), partitioned=True, **options)
    found, expected = samples(tmp_path), samples(tmp_path / "whole")
    if negatives:  # they depend on the numbers of users, which other blocks change
        found, expected = (
            {s: [r for r in v if r[3]] for s, v in x.items()} for x in (found, expected)
        )
    assert found == expected and found["train"]
    assert card["events"] == whole["events"] and card["splits"]["test"] == whole["splits"]["test"]


def test_a_user_in_two_partitions_is_named(tmp_path: Path, table: pl.DataFrame) -> None:
    write_partitions(table.filter(pl.col("who") != "u3"), tmp_path / "parts", nested=False)
    for name in ("x.parquet", "y.parquet"):
        table.filter(pl.col("who") == "u3").write_parquet(tmp_path / "parts" / name)
    with pytest.raises(UserError, match=r"events of user 'u3' in x\.parquet and in y\.parquet"):
        prepare(tmp_path, input=str(tmp_path / "parts"), partitioned=True)


def test_partitions_are_of_one_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--partitioned and --test-input exclude each other"):
        read_mapping(None, KEYS | {"input": "a", "test_input": "b", "partitioned": True})


# ---------------------------------------------------------------- Ray


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(
    tmp_path: Path, table: pl.DataFrame, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines of one core each, and the partitions are the tasks."""
    cluster.add_node(num_cpus=1)
    write_partitions(table, tmp_path / "parts", nested=False)
    for negatives in ("0", "3"):
        hashes = set()
        for engine in ("local", "ray"):
            arguments = [*FLAGS, "--partitioned", "--negatives", negatives, "--engine", engine]
            done = run_script(
                "data/prepare.py", "generic", "--input", "parts", *arguments,
                "--output", "data", "--overwrite", cwd=tmp_path,
            )  # fmt: skip
            assert done.code == 0, done.stderr
            hashes.add(json.loads((tmp_path / "data" / CARD).read_text())["hash"])
        assert len(hashes) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "parts"]


def test_without_ray_it_says_what_to_install(
    tmp_path: Path,
    table: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., Outcome],
) -> None:
    without_package(
        monkeypatch, "ray", "engine.datasets.writing.ray_blocks", "engine.common.ray_cluster"
    )
    table.write_csv(tmp_path / "log.csv")
    done = command("generic", "--input", "log.csv", *FLAGS, "--engine", "ray", "--output", "out")
    assert done.code == 2 and "pip install ray==2" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
