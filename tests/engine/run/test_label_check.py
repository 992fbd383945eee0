"""The start of training: no feature may be the label."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.options import RunOptions
from engine.datasets.prepared.card import SPLITS
from engine.run.experiment import make_loaders, require_no_label

from ...support.command_line import Workspace

LABEL = pl.col("is_click").cast(pl.Int64)
NUMBER, CATEGORY = {"type": "numeric"}, {"type": "categorical", "vocab_size": 4}


def start(space: Workspace, value: pl.Expr, spec: dict[str, Any], **changes: Any) -> None:
    """Look at training samples with a feature ``told`` of this value."""
    for split in SPLITS:
        path = space.data / f"{split}.parquet"
        pl.read_parquet(path).with_columns(told=value).write_parquet(path)
    columns = space.datasets["tiny"]["feature_cols"]
    space.change_dataset(feature_cols=[*columns, {"name": "told", "dtype": "int"} | spec])
    params = load("TWIN_tiny", RunOptions(space.config)).params | changes
    feature_map = build_feature_map(params)
    require_no_label(make_loaders(params, feature_map, "cpu")["train"], feature_map)


@pytest.mark.parametrize(
    ("value", "spec", "streaming"),
    [
        (LABEL, NUMBER, True),
        (1.5 - LABEL, NUMBER, False),
        (2 + LABEL, CATEGORY, False),
        (pl.when(pl.int_range(pl.len()) % 2 == 0).then(1).otherwise(3 - LABEL), CATEGORY, True),
    ],
    ids=["number", "scaled number", "category", "category with missing ones"],
)
def test_a_feature_that_is_the_label_is_refused(
    value: pl.Expr, spec: dict[str, Any], streaming: bool, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"train.parquet: feature told equals the label"):
        start(Workspace(tmp_path, tiny_data), value, spec, streaming=streaming)


def test_a_label_among_the_features_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="feature is_click equals the label"):
        start(Workspace(tmp_path, tiny_data), LABEL, NUMBER | {"name": "is_click"})


def test_one_that_nearly_tells_it_is_a_warning(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(Workspace(tmp_path / "a", tiny_data), pl.int_range(pl.len()) % 3, CATEGORY)
    assert capsys.readouterr().err == ""
    wrong = pl.int_range(pl.len()) % 50 == 0
    start(Workspace(tmp_path / "b", tiny_data), (LABEL + wrong) % 2, NUMBER)
    err = capsys.readouterr().err
    assert err.startswith("warning: ") and "feature told alone has an AUC of 0.9" in err
