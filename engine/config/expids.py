"""Write the experiments of a configuration: ``python -m engine.config.expids [--config DIR]``.

Every registered model gets a line for every data set of ``.datasets`` in ``model_config.yaml``.
FuxiCTR reads these lines, so they are written to the file and not computed at each start. A line
merges the presets that exist under the following names, in this order:

- for a variant, ``<data set>_mixtures``: how long mixtures train on the data set;
- ``<data set>_<backbone>``, or else ``<data set>`` and ``<backbone>``;
- for a variant, ``<mixture>``.

A model without a preset runs with the defaults of its class.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from model_zoo.registry import backbone_of, mixture_of, model_names

from ..common.errors import UserError, run_command
from ..common.files import write_text
from ..common.places import CONFIG
from .command_line import CommandLine
from .read import parse_yaml

MARK = (
    "# The rest is written by `python -m engine.config.expids`: change what is above, and run it.\n"
)


def with_expids(text: str) -> str:
    """The text of a ``model_config.yaml``, with all experiments that follow from its presets.

    Raises:
        UserError: the text lacks the mark after which the experiments are written.
    """
    own, mark, _ = text.partition(MARK)
    if not mark:
        what = f"has no line {MARK.strip()!r}"
        raise UserError(f"model_config.yaml: {what}; add it after the presets")
    return own + mark + "".join(f"{line}\n" for line in _lines(own))


def _lines(presets: str) -> Iterator[str]:
    """The experiments of each data set, after an empty line."""
    anchors = set(re.findall(r"&(\w+)", presets))
    for data, keys in parse_yaml(presets, "model_config.yaml")[".datasets"].items():
        if "dataset_id" not in keys:  # a preset that several data sets share
            continue
        yield ""
        for model in model_names():
            backbone, mixture = backbone_of(model).lower(), mixture_of(model).lower()
            both = f"{data}_{backbone}"
            own = [both] if both in anchors else [data, backbone]
            names = [f"{data}_mixtures", *own, mixture] if mixture else own
            merged = ", ".join(f"*{name}" for name in names if name in anchors)
            yield f"{model}_{keys['dataset_id']}: {{<<: [{merged}], model: {model}}}"


def main() -> None:
    about = "Write the experiments of all models."
    parser = CommandLine(prog="python -m engine.config.expids", description=about)
    parser.add_argument("--config", type=Path, default=CONFIG, help="configuration directory")
    folder = parser.parse_args().config
    file = folder / "model_config.yaml"
    if not file.exists():
        raise UserError(f"--config {folder}: has no {file.name}; name a configuration directory")
    write_text(file, with_expids(file.read_text("utf-8")))


if __name__ == "__main__":
    run_command(main)
