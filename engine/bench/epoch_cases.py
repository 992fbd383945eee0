"""A whole epoch by ``run_expid.py``: ours against LongCTR's own, from start-up to test metrics."""

from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import mean

import polars as pl

from ..common.files import read_json, write_yaml
from ..common.places import CONFIG, HOME, RUN_EXPID
from ..config.feature_columns import SIZES
from ..config.read import DATA_FILES, dataset_part
from ..datasets import SEED, synthetic
from ..datasets.prepared.card import SPLITS
from . import rivals
from .child import run_python
from .harness import Report
from .inputs import ensure_data

DATASET = "session_hopping"  # its feature columns are those of all sizes
BATCH = {"small": 2048}  # the published 8192 would make 8 steps of it
# The most training samples, so that LongCTR's run takes minutes at most.
ROWS = {"small": {"TWIN": 32_768, "TransAct": 8_192}}
ROWS["micro"] = {"TWIN": 32_768, "SDIM": 65_536, "TransAct": 4_096}
FIRST_SEED = 2024  # of the first round; each round has one of its own


def epoch(report: Report, args: Namespace) -> None:
    """One epoch by run_expid.py, from start-up to test metrics.

    The rival is LongCTR's own run_expid.py with its loader and FuxiCTR's fit, evaluate and metrics (see
    rivals.py). Both sides are processes of their own. They start Python, read the data, train one
    epoch, validate, load the best weights, and evaluate validation and test. Nothing of that is left
    out. LongCTR's loader runs in the training process: with worker processes it took a fifth longer on
    two cores.

    Hyper-parameters are those of LongCTR's best published run at length 200. What would make two runs
    differ by chance is changed: dropout is off, SDIM's hashes are fixed, samples are shuffled once, in
    the file. Ours takes LongCTR's first weights and its short window (longctr_compat). So both compute
    the same numbers up to rounding. Where rounding decides (the k best items, the side of a hash),
    training amplifies it, and AUCs of a round then differ by chance, either way.
    """
    if args.longctr:
        rivals.find(args.longctr, "run_expid.py")
    data = Path(args.data or args.folder / args.size)
    ensure_data(data, synthetic.SIZES[args.size], args.users)
    for model in args.models:
        folder = args.folder / model
        samples = set_up(data, folder, model, args)
        counts = ", ".join(f"{count:,} {split}" for split, count in samples.items())
        report.notes.append(f"{model}: {counts} samples")
        _run_rounds(report, folder, model, samples["train"], args)


def set_up(data: Path, folder: Path, model: str, args: Namespace) -> dict[str, int]:
    """Write samples, and the experiments of both sides for each round, into a new folder.

    Validation and test have an eighth of the training samples at most. Returns the number of samples
    by split.
    """
    rows = args.rows or ROWS[args.size].get(model)
    own_data, samples = folder / "data" / DATASET, {}
    own_data.mkdir(parents=True)
    for split in SPLITS:
        table = pl.read_parquet(data / f"{split}.parquet")
        if split == "train":
            table = table.sample(fraction=1, shuffle=True, seed=SEED)
        if rows:
            table = table.head(rows if split == "train" else -(-rows // 8))
        table.write_parquet(own_data / f"{split}.parquet")
        samples[split] = len(table)
    keys = rivals.published(model)
    keys |= {key: 0.0 for key in keys if key.endswith("dropout")}
    keys |= {"reuse_hash": True} if "reuse_hash" in keys else {}
    keys |= {"dataset_id": DATASET, "model_root": f"{folder / 'checkpoints'}/"}
    keys |= {"epochs": 1, "shuffle": False, "max_len": args.length or keys["max_len"]}
    keys["batch_size"] = args.batch or BATCH.get(args.size, keys["batch_size"])
    experiments = {}
    for i in range(args.repeats):
        experiments[f"longctr_{i}"] = theirs = keys | {"seed": FIRST_SEED + i}
        start = {"backbone_checkpoint": str(folder / f"start_{i}.model")} if args.longctr else {}
        experiments[f"ours_{i}"] = theirs | {"longctr_compat": True} | start
    dataset = dataset_part(CONFIG, DATASET, DATASET)
    features = synthetic.features(synthetic.SIZES[args.size])
    for column in dataset["feature_cols"]:
        sizes = features.get(column["name"], {})
        column |= {key: sizes[key] for key in SIZES if key in sizes}
    for key in DATA_FILES:
        place = own_data if key.endswith("_data") else data.resolve()
        dataset[key] = str(place / Path(dataset[key]).name)
    dataset["data_root"] = f"{own_data.parent}/"
    (folder / "config").mkdir()
    write_yaml(folder / "config" / "model_config.yaml", experiments)
    write_yaml(folder / "config" / "dataset_config.yaml", {DATASET: dataset})
    return samples


def _run_rounds(report: Report, folder: Path, model: str, samples: int, args: Namespace) -> None:
    """Run both sides in turns, and put times and validation metrics into the report."""
    variables = {"PYTHONPATH": str(HOME)}
    variables |= {"OMP_NUM_THREADS": str(args.threads)} if args.threads else {}
    names = {"longctr": f"LongCTR's {model}"} if args.longctr else {}
    names["ours"] = f"our {model}"
    used: dict[str, list[tuple[float, int]]] = {side: [] for side in names}
    valid: dict[str, list[dict[str, float]]] = {side: [] for side in names}
    for i, (side, name) in product(range(args.repeats), names.items()):
        expid, script = f"{side}_{i}", RUN_EXPID
        metrics = folder / "checkpoints" / DATASET / f"{expid}_seed{FIRST_SEED + i}.json"
        if side == "longctr":
            metrics = folder / f"{expid}.json"
            files = [Path(args.longctr).resolve(), folder / f"start_{i}.model", metrics]
            script = ["-m", "engine.bench.rivals", *map(str, files)]
        command = [*script, "--config", str(folder / "config"), "--expid", expid, "--gpu", "-1"]
        used[side].append(run_python(*command, log=folder / f"{expid}.txt", **variables))
        print(f"{name}, round {i + 1} of {args.repeats}: {used[side][-1][0]:.1f} s", flush=True)
        result = read_json(metrics)
        # LongCTR's last two evaluations are of validation and test. Ours may end with its first
        # weights, so the evaluation after training counts.
        valid[side].append(result[-2] if side == "longctr" else result["stage_log"][-1])
    for side, name in names.items():
        seconds, peaks = zip(*used[side], strict=True)
        report.record(name, list(seconds), samples)
        report.notes.append(f"{name}: peak memory {max(peaks) / 2**30:.2f} GiB")
    if args.longctr:
        report.compare(names["longctr"], names["ours"], "at least 5")
        for metric in ("AUC", "gAUC", "logloss"):
            theirs, ours = (mean(run[metric] for run in runs) for runs in valid.values())
            report.differences[f"{model}, mean validation {metric}"] = abs(ours - theirs)
