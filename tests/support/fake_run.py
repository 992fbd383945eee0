"""Imitates ``run_expid.py`` without torch: ``fake_run.py PLAN FOLDER --expid EXPID``.

The plan is a JSON file with ``epochs``, ``seconds`` per epoch, and ``modes``: what befalls an
experiment whose ``topk`` is that key. With ``until``, an epoch is followed by the next one only once a
file of that name exists. Scores follow from the parameters alone, and epochs that were
finished before a kill are not run again.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    folder, expid = Path(sys.argv[2]), sys.argv[4]
    model = yaml.safe_load((folder / "model_config.yaml").read_text())[expid]
    dataset = yaml.safe_load((folder / "dataset_config.yaml").read_text())[model["dataset_id"]]
    params = {**model, **dataset}
    run = Path(params["model_root"]) / params["dataset_id"] / f"{expid}_seed{params['seed']}"
    run.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{run}.starts", "a") as file:
        file.write(f"{os.environ.get('OMP_NUM_THREADS')}\n")
    state, progress = Path(f"{run}.resume"), Path(f"{run}.progress.json")
    log = json.loads(state.read_text()) if state.exists() else []
    print(f"{expid}: {len(log)} epochs are there")
    mode = plan["modes"].get(str(params.get("topk")), "")
    starts = len(Path(f"{run}.starts").read_text().split())
    misfortune(mode, params, starts)
    for epoch in range(len(log) + 1, plan["epochs"] + 1):
        time.sleep(plan["seconds"])
        log.append({"stage": "joint", "epoch": epoch, **scores(params, epoch)})
        write(progress, {"stage_log": log})
        write(state, log)
        while "until" in plan and not Path(plan["until"]).exists():
            time.sleep(0.02)
        marker = Path(f"{run}.once")
        if mode == "fails once" and not marker.exists():
            marker.touch()
            raise RuntimeError("bad luck")
    if mode == "no result":
        return
    best = {name: value for name, value in log[-1].items() if name not in ("stage", "epoch")}
    keys = ("seed", "model", "dataset_id")
    result = {"expid": expid} | {key: params[key] for key in keys} | {"params": params}
    result |= {"metrics": {"valid": best, "test": {k: v - 0.01 for k, v in best.items()}}}
    result |= {"dataset_hash": plan.get("hashes", {}).get(str(params.get("topk")), "same")}
    result |= {"stage_log": [{"best": True, "routing": {}} | entry for entry in log]}
    result |= {"routing": {}, "bayes": {}, "versions": {}, "command": sys.argv, "device": "cpu"}
    costs = (
        "flops_per_sample",
        "train_samples_per_s",
        "test_samples_per_s",
        "serving_ms",
        "peak_memory_bytes",
    )
    result |= {"num_parameters": 9, "seconds": {"total": 1.0}} | dict.fromkeys(costs)
    write(Path(f"{run}.json"), result)
    state.unlink()
    progress.unlink()


def scores(params: dict[str, Any], epoch: int) -> dict[str, float]:
    """Rising from epoch to epoch to a value that the parameters decide."""
    kept = {k: v for k, v in params.items() if k in ("learning_rate", "topk", "max_len")}
    goal = random.Random(json.dumps(kept, sort_keys=True)).uniform(0.5, 0.9)
    return {"AUC": goal - 0.1 / epoch, "gAUC": goal - 0.2 / epoch, "logloss": 1 - goal}


def misfortune(mode: str, params: dict[str, Any], starts: int) -> None:
    """At the start of every process; ``starts`` counts them."""
    if mode == "fails":
        sys.exit("error: topk is unlucky")
    if mode == "never enough memory" or (mode == "no memory" and params["batch_size"] > 32):
        sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    if mode == "killed" or (mode == "killed twice" and starts <= 2):
        os.kill(os.getpid(), signal.SIGKILL)


def write(path: Path, content: Any) -> None:
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
