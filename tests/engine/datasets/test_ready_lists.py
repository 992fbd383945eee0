"""Public logs whose rows show histories as lists, with the mappings that come with the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from engine.datasets.card import SPLITS

from ...support.command_line import Outcome

# ---------------------------------------------------------------- Taobao-MM

LEAST = -9_200_000_000_000_000_000  # an id that neither a fraction nor 32 bits can hold


def write_taobao_mm(folder: Path) -> dict[str, pl.DataFrame]:
    """The joined shards in their schema; users have lists of 3, 351 and 1,000 items."""
    rng = np.random.default_rng(0)
    items = [LEAST, *rng.integers(-(2**63), 2**63 - 1, size=80).tolist()]
    codes = {item: (int(item % 7), int(item % 3), int(item % 2)) for item in items}
    parts = {}
    for part, rows_of_user in {"train": 20, "test": 10}.items():
        rows = []
        for user, length in ((-5, 3), (7, 351), (LEAST, 1000), *((u, 5) for u in range(50, 80))):
            if part == "test" and user == 7:
                continue
            shown = rng.choice(items[: 3 if length == 3 else None], size=length).tolist()
            for n in range(rows_of_user):
                item = int(rng.choice(items))
                row = {"label_0": [0, 1] if n % 10 == 9 else [1, 0], "129_1": user}
                row |= {f"130_{k}": 1 + (user + k) % 4 for k in range(1, 5)}
                row |= {"130_5": 0 if user == 7 else 2}
                row |= {"150_2_180": shown, "151_2_180": [codes[i][0] for i in shown], "205": item}
                rows.append(row | dict(zip(("206", "213", "214"), codes[item], strict=True)))
        kinds = {"label_0": pl.List(pl.Int8), "150_2_180": pl.List(pl.Int64)}
        table = pl.DataFrame(rows, schema_overrides=kinds | {"151_2_180": pl.List(pl.Int64)})
        (folder / part).mkdir(parents=True)
        for i, shard in enumerate(table.iter_slices(300)):
            shard.write_parquet(folder / part / f"{part}-shard-{i:06d}.parquet", compression="zstd")
        (folder / part / "metadata.json").write_text(json.dumps({"mode": part}))
        parts[part] = table
    return parts


def test_taobao_mm(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    parts = write_taobao_mm(tmp_path / "raw")
    made = command("taobao_mm", "--input", str(tmp_path / "raw"), "--output", "out")
    assert made.code == 0, made.stderr
    files = {path.stem: pl.read_parquet(path) for path in Path("out").glob("*.parquet")}
    users, items = files["user_ids"]["user"], ["", *files["item_ids"]["item"]]
    lists = [[items[i] for i in row] for row in files["user_info"]["full_item_seq"]]
    found = {
        split: [
            (users[r["user_index"]], items[r["item_index"]], r["label_0"], lists[r["user_index"]])
            for r in files[split].iter_rows(named=True)
            if r["seq_len"] == len(lists[r["user_index"]])
        ]
        for split in SPLITS
    }
    expected = {
        part: [
            (str(r["129_1"]), str(r["205"]), r["label_0"][1], [str(i) for i in r["150_2_180"]])
            for r in table.iter_rows(named=True)
        ]
        for part, table in parts.items()
    }
    assert sorted(found["test"]) == sorted(expected["test"])
    assert sorted(found["train"] + found["valid"]) == sorted(expected["train"])
    assert len(files["user_info"]) == 33 + 32  # train and test have lists of their own
    assert files["test"]["group_user"].n_unique() == 32
    card = json.loads(Path("out", "dataset_card.json").read_text())
    assert card["users"] == 33 and card["time_unit"] == "order"
    assert str(LEAST) in items and str(LEAST) in users
    assert card["vocab_sizes"]["item_code_2"] == 3  # padding, missing, and the value 1
    lacking = {
        users[r["user_index"]]
        for r in files["train"].iter_rows(named=True)
        if r["user_code_5"] == 1
    }
    assert lacking == {"7"}
