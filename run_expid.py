#!/usr/bin/env python
"""Run experiments: ``python run_expid.py --expid TWIN_MoS_session_hopping``."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from engine.config import list_experiments, load_experiment
from engine.errors import run_command

ROOT = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Train and evaluate models by experiment id.")
    parser.add_argument("--config", default=str(ROOT / "config"), help="configuration directory")
    parser.add_argument("--expid", nargs="+", default=[], help="experiment ids, run one by one")
    parser.add_argument("--gpu", type=int, default=-1, help="CUDA device, -1 (default) for the CPU")
    parser.add_argument("--seed", nargs="+", type=int, help="seeds; default: the configuration's")
    parser.add_argument("--resume", action="store_true", help="go on with killed runs")
    parser.add_argument("--model-zoo", type=Path, help="folder of other FuxiCTR models (LongCTR's)")
    parser.add_argument("--list", action="store_true", help="list the experiment ids and stop")
    args = parser.parse_args()
    if args.list or not args.expid:
        for expid, (model, dataset) in list_experiments(args.config).items():
            print(f"{expid!s:36} {model!s:16} {dataset}")
        return 0
    for expid in args.expid:  # a wrong one is answered before anything slow starts
        load_experiment(args.config, expid)

    from engine.experiment import run
    from engine.parameters import load
    from engine.results import summary

    runs = []
    seeds = args.seed or [None]
    for seed, expid in product(seeds, args.expid):
        load(Path(args.config), ROOT, expid, seed, args.model_zoo)
    for seed, expid in product(seeds, args.expid):
        runs.append(
            run(Path(args.config), ROOT, expid, seed, args.gpu, args.resume, args.model_zoo)
        )
    print("\n" + summary(runs))
    return 0


if __name__ == "__main__":
    run_command(main)
