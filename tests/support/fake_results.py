"""Folders of results as a study leaves them, with random but realistic numbers; nothing is trained."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.analysis.probes import item_experts as themes
from engine.analysis.probes import sessions as session_hopping
from engine.analysis.probes.probe import rounded
from model_zoo.registry import BACKBONES, BASELINES, MIXTURES, backbone_of, mixture_of, variant

PAPERS = ("Mamba4Rec", "TransAct", "TWIN", "SDIM")
VARIANTS = ("", *MIXTURES)
SEEDS = (1, 2, 3, 4, 5)
OF_TABLES = ("table1", "table2", "knobs")  # the experiments that tables show
EXPERIMENTS = (*OF_TABLES, "length", "experts", "alphas", "start")
GAIN = {"": 0.0, "DSelectK": 0.001, "GShard": -0.002, "ExpertChoice": 0.0, "MoS": 0.01}


@contextmanager
def papers_backbones() -> Iterator[None]:
    """Only the paper's backbones are registered, so that what tests count stays as others come."""
    every = dict(BACKBONES)
    for name in set(every).difference(PAPERS):
        del BACKBONES[name]
    yield
    BACKBONES.clear()
    BACKBONES.update(every)


def write_study(
    folder: Path,
    dataset_id: str = "toy",
    seeds: tuple[int, ...] = SEEDS,
    only: tuple[str, ...] = EXPERIMENTS,
) -> Path:
    """Some experiments on one data set below ``folder``, by default all; returns the data set's folder."""
    home = folder / dataset_id
    (home / "runs").mkdir(parents=True)
    (home / "config").mkdir()
    cells = [("table1", variant(b, m), {}) for b in BACKBONES for m in VARIANTS]
    cells += [("table2", m, {}) for m in BASELINES] + [
        ("table2", f"{b}_MoS", {}) for b in BACKBONES
    ]
    for b in BACKBONES:
        cells += [
            ("length", m, {"max_len": n}) for m in (b, f"{b}_MoS") for n in (100, 200, 300, 400)
        ]
        cells += [("experts", f"{b}_MoS", {"num_experts": n}) for n in (0, 2, 4, 6, 8)]
    steps = [round(0.2 * i, 1) for i in range(6)]
    cells += [
        ("alphas", "TWIN_MoS", {"alpha_item": i, "alpha_window": w})
        for i in steps for w in steps if i + w <= 1
    ]  # fmt: skip
    cells += [
        ("knobs", "TWIN_MoS", v)
        for v in ({}, {"router_weight": "softmax_topk"}, {"router_topk": 2})
    ]
    cells += [
        ("start", model, {"embedding_initializer": f"partial(nn.init.normal_, std={std})"})
        for model in ("TWIN", "TWIN_MoS") for std in ("1e-4", "0.25")
    ]  # fmt: skip
    entries = []
    cells = [cell for cell in cells if cell[0] in only]
    for experiment, model, varied in cells:
        ending = "".join(f"_{key}{value}" for key, value in varied.items())
        ending = re.sub(r"[^\w.-]+", "_", ending)
        expid = f"{model}_{dataset_id}{ending}"
        entry = {"experiment": experiment, "model": model, "varied": varied, "expid": expid}
        entries.append(entry | {"seeds": list(seeds), "budget": 2, "changes": {}})
        for seed in seeds:
            write_run(home / "runs", dataset_id, expid, model, seed, varied)
    tuning = [
        {
            "model": model, "expid": f"{model}_{dataset_id}", "seed": 2024, "chosen": rate == 1e-3,
            "tuned": {"learning_rate": rate}, "valid": {"AUC": 0.7 + rate, "gAUC": 0.65, "logloss": 0.6},
        }
        for model in dict.fromkeys(m for _, m, _ in cells) for rate in (5e-4, 1e-3)
    ]  # fmt: skip
    study = {
        "dataset_id": dataset_id,
        "studies": [{"experiment": "table1", "dataset": dataset_id, "seeds": len(seeds)}],
        "cells": entries,
        "tuning": tuning,
    }
    (home / "study.json").write_text(json.dumps(study))
    card = {"dataset_id": dataset_id, "hash": f"hash of {dataset_id}", "users": 900, "items": 1700}
    (home / "dataset_card.json").write_text(json.dumps(card))
    return home


def write_run(
    folder: Path,
    dataset_id: str,
    expid: str,
    model: str,
    seed: int,
    varied: dict[str, Any] | None = None,
) -> Path:
    """One result; the same arguments give the same numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    key = [*f"{dataset_id} {expid}".encode(), seed]
    rng = np.random.default_rng(key)
    shared = np.random.default_rng([*dataset_id.encode(), seed])  # what a seed does to all models
    backbone, mixture = backbone_of(model), mixture_of(model)
    level = 0.7 + 0.01 * len(backbone) / 10 + GAIN.get(mixture, 0) + shared.normal(scale=0.004)
    params = {
        "model": model, "dataset_id": dataset_id, "seed": seed, "learning_rate": 1e-3, "max_len": 200,
        "epochs": 3.0, "batch_size": 256, "num_experts": 5, "monitor": {"AUC": 1, "gAUC": 1}, "monitor_mode": "max",
        "model_id": expid, "train_data": f"data/{dataset_id}/train.parquet", **(varied or {}),
    }  # fmt: skip
    stages = ["backbone", "experts", "joint", "joint"] if mixture else ["joint", "joint"]
    result = {
        "status": "done",
        "expid": expid,
        "seed": seed,
        "model": model,
        "dataset_id": dataset_id,
        "dataset_hash": f"hash of {dataset_id}",
        "bayes": {},
        "versions": {"torch": "2.13.0+cpu", "fuxictr": "2.3.10", "numpy": "2.4.6"},
        "command": ["python", "run_expid.py", "--expid", expid, "--seed", str(seed)],
        "params": params,
        "metrics": {split: _metrics(level, rng) for split in ("valid", "test")},
        "routing": _routing(mixture, rng),
        "stage_log": [
            {
                "stage": stage, "epoch": 1.0 + (i > 0 and stages[i - 1] == stage),
                "train_loss": 0.6 - 0.02 * i, **_metrics(level - 0.02 / (i + 1), rng),
                "best": True, "learning_rate": 1e-3, "samples_per_s": 9000.0, "valid_seconds": 0.2,
                "routing": {} if stage == "backbone" else _routing(mixture, rng),
            }
            for i, stage in enumerate(stages)
        ],
        "num_parameters": int(rng.integers(80_000, 900_000)),
        "flops_per_sample": float(rng.uniform(1e5, 1e8)),
        "train_samples_per_s": float(rng.uniform(1e3, 5e4)),
        "test_samples_per_s": float(rng.uniform(5e3, 1e5)),
        "serving_ms": 4.5 if mixture else 3.5,
        "peak_memory_bytes": int(rng.integers(400e6, 900e6)),
        "seconds": {"fit": 20.0, "test": 0.2, "total": 21.0},
        "device": "cpu",
        "threads": seed,
    }  # fmt: skip
    path = folder / f"{expid}_seed{seed}.json"
    path.write_text(json.dumps(result))
    return path


def _metrics(level: float, rng: np.random.Generator) -> dict[str, float]:
    auc = level + rng.normal(scale=0.001)
    return {"AUC": auc, "gAUC": auc - 0.05 + rng.normal(scale=0.001), "logloss": 1.25 - auc}


def _routing(mixture: str, rng: np.random.Generator) -> dict[str, Any]:
    """What ``model_zoo.routing_report`` gives: MoS has two branches, the others one."""
    if not mixture:
        return {}
    return {
        name: _branch(name, rng) for name in (["item", "window"] if mixture == "MoS" else ["moe"])
    }


def _branch(name: str, rng: np.random.Generator) -> dict[str, Any]:
    share, popular, rare = rng.dirichlet(np.full(5, 4.0), size=3).tolist()
    by_item = name != "window"
    return {
        "item_share": share,
        "sample_share": share,
        "item_entropy": 0.9,
        "sample_entropy": 0.88,
        "unserved": 0.0,
        "dead": [],
        "switch_rate": float(rng.uniform(0.2, 0.8)),
        "code_cosine": np.eye(5).tolist() if name in ("item", "window") else None,
        "code_movement": float(rng.uniform(0, 0.1)) if name in ("item", "window") else None,
        "consistency": float(rng.uniform(0.4, 1)) if by_item else None,
        "most_popular": popular if by_item else None,
        "least_popular": rare if by_item else None,
    }


def write_probe(home: Path, model: str, seed: int = 1, users: int = 12) -> Path:
    """What ``engine.analysis.probe`` would find in a trained model: planted sessions, random routers."""
    rng = np.random.default_rng([*model.encode(), seed])
    mixture = mixture_of(model)
    theme_IC = np.repeat(np.eye(5), 40, axis=0)  # 200 items, 40 of each theme
    item_IC = theme_IC + rng.normal(scale=0.25, size=theme_IC.shape)
    sessions = [rng.permutation(np.r_[0:5, rng.integers(5, size=3)]) for _ in range(users)]
    items = [
        np.concatenate([rng.integers(40 * t, 40 * t + 40, size=12) for t in s]) for s in sessions
    ]
    hopping = session_hopping.measure([item_IC[i] - 0.2 for i in items], list(range(users)), seed)
    for example in hopping["examples"]:
        shown = items[example["user"]][example["first"] :]
        example["experts"] = {"": None, "MoS": (shown // 40).tolist()}.get(
            mixture, rng.integers(-1, 5, size=len(shown)).tolist()
        )
    found: dict[str, Any] | None = None
    if mixture:
        label_I = np.where(rng.random(200) < 0.7, 1 + np.arange(200) // 40, rng.integers(1, 6, 200))
        expert_I = np.arange(200) // 40 if mixture == "MoS" else rng.integers(-1, 5, 200)
        found = {"kind": "first genre", "codes": None} | themes.match(expert_I, label_I, seed)
    if mixture == "MoS":
        found["codes"] = themes.describe_codes(
            item_IC, np.eye(5), expert_I, np.arange(1, 201), label_I
        )
        for code in found["codes"]:
            code["main_name"] = "Drama"
            for near in code["nearest"]:
                near |= {
                    "name": f"A film of some length, no. {near['item']}",
                    "category_name": "Drama",
                }
    fixed = [0.0, 1.0, 0.0, 0.0, 0.0]
    shares = ("most", "least", "most_sent", "least_sent")
    modes = {
        mode: {
            name: fixed if mixture == "MoS" else rng.dirichlet(np.ones(5)).tolist()
            for name in shares
        }
        | {"consistency": 1.0 if mixture == "MoS" else 0.6, "unrouted": 0.01}
        for mode in ("train", "eval")
    }
    ends = {
        "experts": 5,
        "most": {"item": 3, "appearances": 1530},
        "least": {"item": 9, "appearances": 5},
    }
    probe = {
        "about": {
            "expid": f"{model}_{home.name}", "seed": seed, "model": model, "dataset_id": home.name,
            "split": "test", "users": users, "items": 200, "appearances": users * 96,
            "max_items": 200, "probe_seed": 0,
        },
        "session_hopping": hopping,
        "dispatch": {"item" if mixture == "MoS" else "moe": ends | modes} if mixture else {},
        "themes": found,
    }  # fmt: skip
    path = home / "probes" / f"{model}_{home.name}_seed{seed}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rounded(probe)))
    return path
