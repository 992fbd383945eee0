"""The counting baseline of a data set: ``python -m engine.baseline --data data/mine``."""

from os.path import relpath
from pathlib import Path
from typing import Any

from ..common.errors import run_command
from ..common.places import CONFIG, HOME
from ..common.text_table import text_table
from ..config.command_line import CommandLine, positive
from ..config.read import DATA_FILES, list_experiments, load_experiment
from ..datasets.prepared import ready_config
from ..datasets.prepared.card import card_beside, data_hash, sampling
from . import record

UNCONFIGURED = {"max_len": 200, "model_root": "./checkpoints/"}


def main() -> None:
    parser = CommandLine(
        prog="python -m engine.baseline",
        description="Train boosted trees on counts of the candidate in the history. Runs, studies "
        "and tables show their metrics beside those of the models.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared data set")
    parser.add_argument("--max-len", type=positive, help="newest events of a history that are read")
    parser.add_argument("--model-root", type=Path, help="folder of results, as in run_expid.py")
    parser.add_argument("--rows", type=positive, default=1_000_000, help="training samples at most")
    parser.add_argument("--seed", type=int, default=2024, help="of these and of the training")
    args = parser.parse_args()
    folder = args.data.resolve()
    params = ready_config.described(folder)
    own = _experiment(folder)
    max_len = args.max_len or own["max_len"]
    results = (args.model_root or HOME / own["model_root"]) / folder.name

    from .measure import METRICS, measure  # slow to import

    entry = measure(params, max_len, args.rows, args.seed)
    path = record.add(results, data_hash(params[key] for key in DATA_FILES), max_len, entry)
    splits = [(split, metric) for split in ("valid", "test") for metric in METRICS]
    rows = [
        [kind, *(f"{found[split][metric]:.4f}" for split, metric in splits)]
        for kind, found in entry["metrics"].items()
    ]
    print(text_table(["trees on counts of", *map(" ".join, splits)], rows))
    lines = [sampling(card_beside(params["train_data"]))]
    lines += [record.long_history(entry), record.running_theme(entry)]
    print(*filter(None, [*lines, f"kept in {relpath(path)}"]), sep="\n")


def _experiment(folder: Path) -> dict[str, Any]:
    """An experiment on a data set, from the configuration that ``run_expid.py`` would use."""
    config = folder / "config" if (folder / "config").exists() else CONFIG
    expids = (expid for expid, (_, data) in list_experiments(config).items() if data == folder.name)
    expid = next(expids, None)
    return load_experiment(config, expid) if expid else UNCONFIGURED


if __name__ == "__main__":
    run_command(main, "nothing was written")
