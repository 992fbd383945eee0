#!/usr/bin/env python
"""Run experiments: ``python run_expid.py --expid TWIN_MoS_session_hopping``."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from engine.common.errors import run_command
from engine.common.places import CONFIG, HOME
from engine.config.read import describe_experiments, load_experiment


def main() -> int:
    parser = argparse.ArgumentParser(description="Train and evaluate models by experiment id.")
    parser.add_argument("--config", default=str(CONFIG), help="configuration directory")
    parser.add_argument("--expid", nargs="+", default=[], help="experiment ids, run one by one")
    parser.add_argument("--gpu", type=int, default=-1, help="CUDA device, -1 (default) for the CPU")
    parser.add_argument("--seed", nargs="+", type=int, help="seeds; default: the configuration's")
    parser.add_argument("--resume", action="store_true", help="go on with killed runs")
    parser.add_argument("--model-zoo", type=Path, help="folder of other FuxiCTR models (LongCTR's)")
    parser.add_argument(
        "--data-root", type=Path, help="folder of the data sets, in place of data_root"
    )
    parser.add_argument(
        "--model-root", type=Path, help="folder for results, in place of model_root"
    )
    parser.add_argument("--list", action="store_true", help="list the experiment ids and stop")
    args = parser.parse_args()
    if args.list or not args.expid:
        print(describe_experiments(args.config))
        return 0
    for expid in args.expid:  # a wrong one is answered before anything slow starts
        load_experiment(args.config, expid)

    from engine.config.load import load
    from engine.run.experiment import run
    from engine.run.summary import summary

    runs = []
    seeds = args.seed or [None]
    config = Path(args.config)
    folders = (args.model_zoo, args.data_root, args.model_root)
    for seed, expid in product(seeds, args.expid):
        load(config, HOME, expid, seed, *folders)
    for seed, expid in product(seeds, args.expid):
        runs.append(run(config, HOME, expid, seed, args.gpu, args.resume, *folders))
    print("\n" + summary(runs))
    return 0


if __name__ == "__main__":
    run_command(main)
