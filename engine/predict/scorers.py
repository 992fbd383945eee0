"""A trained model with its data set: from the result of a run, or from an exported program."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_zoo.batch import Batch
from model_zoo.history.item_dict import ItemDict
from model_zoo.serving import serving_inputs

from ..common.errors import UserError
from ..common.files import read_json
from ..common.schema import ABSENT, Schema
from ..config.feature_map import build_feature_map
from ..config.read import DATA_FILES, DATA_PATHS
from ..datasets.prepared.card import data_hash, recorded_hash
from ..datasets.prepared.ready_config import described
from ..datasets.writing.encoders import digest
from ..loader.loader import SequenceLoader
from ..run.cpu import set_up_cpu
from ..run.devices import require_devices
from ..run.trained import load_trained

ABOUT, PROGRAM, COMPILED = "model.json", "program.pt2", "compiled.pt2"  # of an exported model
LEAST = 2  # candidates of a program, since torch.export treats a size of 1 as a constant


class Run(Schema):
    """What scores need of the result of a run."""

    params: dict[str, Any]
    weights: str = ABSENT
    encoders: str = ABSENT


class Program(Run):
    """What they need of an exported model besides: the features of the context, in order."""

    context: list[str]


class Scorer(ABC):
    """A model that scores samples of the data set that it was trained on, or of one encoded like it.

    Args:
        about: what is known of the run, as a ``Run`` has it.
        data: folder of the data set, where it is not that of the run.

    Attributes:
        about: see above.
        folder: of the data set.
        device: where the model is.

    Raises:
        UserError: the data set is damaged, or encodes values in another way than that of the run.
    """

    device = torch.device("cpu")

    def __init__(self, about: dict[str, Any], data: str | Path | None) -> None:
        set_up_cpu()
        self.about, self.params = about, about["params"]
        if data is not None:
            moved = described(Path(data).resolve())
            self.params |= {key: moved[key] for key in (*DATA_PATHS, "dataset_id")}
        self.folder = Path(self.params["train_data"]).parent
        files = [Path(self.params[key]) for key in DATA_FILES]
        # A folder to serve from may lack the samples.
        if recorded_hash(files) and all(file.exists() for file in files):
            data_hash(files)
        if (known := about.get("encoders")) and digest(self.folder) != known:
            raise UserError(
                f"{self.folder}: its encoders are not those of the run's data; name the data of the run, "
                "or data that were prepared --like these without --grow"
            )
        self.feature_map = build_feature_map(self.params)

    def loader(self, split: str, **changes: Any) -> SequenceLoader:
        """The samples of a split in their order; ``changes`` replace parameters, as of files."""
        params = self.params | changes | {"device": self.device, "shuffle": False}
        return SequenceLoader(self.feature_map, params[f"{split}_data"], **params)

    @abstractmethod
    def predict(self, loader: SequenceLoader) -> NDArray[np.float64]:
        """The click probability of each sample."""


class Trained(Scorer):
    """The model of a finished run.

    Args:
        result: ``<expid>_seed<seed>.json``, beside which the checkpoint lies.
        data: see ``Scorer``.
        gpu: the CUDA device, or -1 for the CPU.

    Raises:
        UserError: the result or the checkpoint is missing or damaged, or there is no such device.
    """

    def __init__(self, result: str | Path, data: str | Path | None = None, gpu: int = -1) -> None:
        require_devices(gpu)
        path = Path(result)
        content = read_json(path, Run, "name the JSON that run_expid.py wrote")
        super().__init__(content, data)
        self.model = load_trained(
            self.params,
            self.feature_map,
            path.with_suffix(".model"),
            gpu,
            content.get("weights", ""),
        )
        self.device = self.model.device

    def predict(self, loader: SequenceLoader) -> NDArray[np.float64]:
        return self.model.predict(loader)


class Exported(Scorer):
    """A program of ``engine.export``, which runs on the CPU.

    Args:
        folder: of the program.
        data: see ``Scorer``.

    Raises:
        UserError: the folder lacks a file, or one is damaged.
    """

    def __init__(self, folder: str | Path, data: str | Path | None = None) -> None:
        path = Path(folder) / ABOUT
        super().__init__(read_json(path, Program, "export the model again"), data)
        self.program = load_program(Path(folder))

    def predict(self, loader: SequenceLoader) -> NDArray[np.float64]:
        return np.concatenate([self.score(batch) for batch in loader])

    @torch.no_grad()
    def score(self, batch: Batch) -> NDArray[np.float64]:
        """The scores of a batch: samples with one history are the candidates of one call."""
        _, items, mask_BL = batch
        assert isinstance(items, ItemDict)
        shown = [items.index[:, :-1], *items.events.values()]
        _, group_B = torch.cat(shown, dim=1).unique(dim=0, return_inverse=True)
        score_B = torch.empty(len(mask_BL))
        for chosen_N in group_B.argsort(stable=True).split(group_B.bincount().tolist()):
            asked_N = chosen_N.repeat(LEAST) if len(chosen_N) < LEAST else chosen_N
            inputs = serving_inputs(batch, asked_N, self.about["context"], self.params["max_len"])
            score_B[chosen_N] = self.program(*inputs)[: len(chosen_N)]
        return score_B.double().numpy()


def load_program(folder: Path) -> Callable[..., Tensor]:
    """The program of an exported model; see ``ServedModel.forward`` for its arguments.

    Raises:
        UserError: it is missing or damaged, or was compiled for another machine.
    """
    compiled = folder / COMPILED
    try:
        if compiled.exists():
            return torch._inductor.aoti_load_package(str(compiled))
        # ``score`` gives the program what it was made for, so its checks would only take time.
        return torch.export.load(folder / PROGRAM).module(check_guards=False)
    except Exception as error:  # torch raises anything for a damaged file
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder}: its program cannot be loaded ({reason}); export it again"
        ) from None


def open_model(path: str | Path, data: str | Path | None = None, gpu: int = -1) -> Scorer:
    """The model of a run's result, or of the folder of an exported program.

    Raises:
        UserError: as ``Trained`` and ``Exported``, or a program is to run on a GPU.
    """
    if not Path(path).is_dir():
        if Path(path).suffix != ".json":
            raise UserError(f"{path} is neither a folder that engine.export wrote, nor a result")
        return Trained(path, data, gpu)
    if gpu >= 0:
        raise UserError(f"--gpu {gpu}: an exported model runs on the CPU; score with --result")
    return Exported(path, data)
