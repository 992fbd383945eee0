"""A trained model, found by its result: scores of new rows, and metrics on other data."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from ..common.errors import UserError
from ..common.files import read_json
from ..common.schema import Schema
from ..config.feature_map import build_feature_map
from ..datasets.prepared.ready_config import described
from ..datasets.raw.source import ROW
from ..loader.loader import SequenceLoader
from ..run.cpu import set_up_cpu
from ..run.devices import require_devices
from ..run.trained import load_trained
from .extended import Extended


class Run(Schema):
    """What predictions need of a result."""

    params: dict[str, Any]


class Trained:
    """The model of a finished run.

    Args:
        result: ``<expid>_seed<seed>.json``, beside which the checkpoint lies.
        data: folder of the data set, where it is not that of the run.
        gpu: the CUDA device, or -1 for the CPU.

    Raises:
        UserError: the result or the checkpoint is missing or damaged, or there is no such device.
    """

    def __init__(self, result: str | Path, data: str | Path | None = None, gpu: int = -1) -> None:
        require_devices(gpu)
        set_up_cpu()
        path = Path(result)
        self.params = read_json(path, Run, "name the JSON that run_expid.py wrote")["params"]
        if data is not None:
            self.params |= described(Path(data).resolve())
        self.folder = Path(self.params["train_data"]).parent
        self.feature_map = build_feature_map(self.params)
        self.model = load_trained(self.params, self.feature_map, path.with_suffix(".model"), gpu)

    def loader(self, split: str, **files: str) -> SequenceLoader:
        """The samples of a split in their order; ``files`` replace those of the data set."""
        params = self.params | files | {"device": self.model.device, "shuffle": False}
        return SequenceLoader(self.feature_map, params[f"{split}_data"], **params)


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
        result, data, gpu: see ``Trained``.
        rows: CSV or Parquet with the log's columns of users, items, times and features.
        events: what happened since the data set was prepared, in the form of its log.
        keys: of the mapping, such as ``items``, where these tables are not as that log was.

    Returns:
        The table in its order, with the column ``score``. It is null in rows that are blank.
    """
    trained = Trained(result, data, gpu)
    with TemporaryDirectory() as scratch:
        since = Path(events) if events is not None else None
        extended = Extended(trained.folder, Path(rows), since, keys, Path(scratch))
        scores = trained.model.predict(trained.loader("test", **extended.files))
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
