"""Scores of new rows by a trained model, and its metrics on other data."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from ..common.errors import UserError
from ..datasets.raw.source import ROW
from .extended import Extended
from .scorers import Trained, open_model


def predict(
    result: str | Path,
    rows: str | Path,
    events: str | Path | None = None,
    data: str | Path | None = None,
    gpu: int = -1,
    **keys: Any,
) -> pl.DataFrame:
    """Score the rows of a table.

    Args:
        result, data, gpu: see ``open_model``.
        rows: CSV or Parquet with the log's columns of users, items, times and features.
        events: what happened since the data set was prepared, in the form of its log.
        keys: of the mapping, such as ``items``, where these tables are not as that log was.

    Returns:
        The table in its order, with the column ``score``. It is null in rows that are blank.
    """
    model = open_model(result, data, gpu)
    with TemporaryDirectory() as scratch:
        since = Path(events) if events is not None else None
        extended = Extended(model.folder, Path(rows), since, keys, Path(scratch))
        scores = model.predict(model.loader("test", **extended.files))
    scored = pl.DataFrame({ROW: extended.scored, "score": scores})
    return extended.table.join(scored, on=ROW, how="left", maintain_order="left").drop(ROW)


def evaluate(
    result: str | Path, split: str = "test", data: str | Path | None = None, gpu: int = -1
) -> dict[str, float]:
    """The metrics of a trained model on a split of its data set, or of another one encoded like it.

    Args:
        result, data, gpu: see ``Trained``.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        UserError: a file is missing or damaged, or a metric is undefined.
    """
    trained = Trained(result, data, gpu)
    try:
        return trained.model.evaluate(trained.loader(split), trained.params["metrics"])
    except ValueError as error:
        raise UserError(f"{trained.folder}, {split}: {error}") from None
