"""Export a trained model, and compare its scores with those of training."""

import os
import shutil
from pathlib import Path

import torch

from model_zoo.batch import Batch
from model_zoo.ops.compiled import first_line
from model_zoo.sequence_model import SequenceModel
from model_zoo.serving import export_program

from ..common.errors import UserError
from ..common.files import write_json, writing
from .scorers import ABOUT, COMPILED, PROGRAM, Exported, Trained

COMPARED = 1000  # samples of the test split
MOST = 0.99  # of the samples; in others, rounding may choose another one of two equally good items
KEPT = (
    "expid",
    "seed",
    "model",
    "dataset_id",
    "dataset_hash",
    "encoders",
    "weights",
    "negatives",
    "versions",
)
TOLERANCE = 1e-5


@torch.no_grad()
def export(
    result: str | Path, output: str | Path, data: str | Path | None = None, compile: bool = False
) -> float:
    """Write the program of a trained model, and what it needs to know.

    Args:
        result, data: see ``Trained``.
        output: a folder that is not there yet.
        compile: compile it by AOTInductor for the processor of this machine.

    Returns:
        The largest difference between its scores and those of training, computed in float32, on 99 % of
        some test samples.

    Raises:
        UserError: the model cannot be exported, its scores are not those of training, or the folder
            cannot be written.
    """
    output = Path(output)
    if output.exists():
        raise UserError(f"--output {output}: exists already; name a new folder")
    trained = Trained(result, data)
    if not isinstance(trained.model, SequenceModel):
        raise UserError(f"{result}: is a foreign model; only models of this project are exported")
    trained.model.amp = None  # the program computes in float32
    batch = next(iter(trained.loader("test", batch_size=COMPARED)))
    about = {key: value for key, value in trained.about.items() if key in KEPT}
    about |= {"params": trained.params, "context": [*trained.model.context_features(batch[0])]}
    folder = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    with writing(output):
        folder.mkdir(parents=True)
    try:
        write_json(folder / ABOUT, about)
        _write_program(trained, batch, folder, compile)
        theirs = torch.as_tensor(trained.model.eval()(batch)["y_pred"][:, 0]).double()
        difference = (torch.from_numpy(Exported(folder, data).score(batch)) - theirs).abs()
        if not (most := float(difference.quantile(MOST))) <= TOLERANCE:
            raise UserError(f"{result}: exported scores differ by {most:.1e}; nothing was written")
        with writing(output):
            folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return most


def _write_program(trained: Trained, batch: Batch, folder: Path, compile: bool) -> None:
    try:
        program = export_program(trained.model, batch, trained.params["max_len"])
        if compile:
            package = str(folder / COMPILED)
            torch._inductor.aoti_compile_and_package(program, package_path=package)
        else:
            torch.export.save(program, folder / PROGRAM)
    except Exception as error:  # torch and each compiler have errors of their own
        what = "compiled" if compile else "exported"
        model = trained.params["model"]
        raise UserError(f"{model} cannot be {what} here ({first_line(error)})") from None
