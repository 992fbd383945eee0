"""Write a configuration for a prepared data set, so that every model trains on it at once."""

from math import log2
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl

from ...common.errors import UserError
from ...common.files import write_yaml
from ...common.places import CONFIG, HOME, RUN_COMMAND
from ...config.feature_map_file import read_feature_map
from ...config.read import list_experiments, read_yaml, redirect, resolve_paths, with_tables
from .card import SPLITS, card_beside

LIKE = "movielens_1m"  # the shipped data set whose models others start from
OF_PAPER = "codebook_restarts"  # its tables have fewer than the default
WARM_UP = ("backbone_warmup_epochs", "expert_warmup_epochs")
COPIED = ("type", "source", "oov_idx", "vocab_size", "max_len", "embedding_dim", "feature_encoder")


def write(folder: Path, place: Path) -> str:
    """Write ``<folder>/config/`` unless the project ships experiments for the data set.

    The directory has every model as ``<Model>_<folder name>``, and FuxiCTR reads it too. Paths in
    it are relative if ``place`` is below the folder where relative paths of a configuration start.

    Args:
        folder: a prepared data set.
        place: where it will be, under the same name.

    Returns:
        The command that trains on the data set.
    """
    dataset_id, entry = place.name, dataset_entry(folder, place)
    shipped = shipped_entry(dataset_id)
    if shipped and _columns(shipped) == _columns(entry):
        command = f"{RUN_COMMAND} --expid TWIN_MoS_{dataset_id}"
        if place.parent == HOME / "data":
            return command
        other = place.parent  # results of other data of that name go elsewhere, too
        roots = quote(_shown(other)), quote(f"./checkpoints/{other.name}")
        return f"{command} --data-root {roots[0]} --model-root {roots[1]}"
    models = read_yaml(CONFIG / "model_config.yaml")
    card = card_beside(folder / "train.parquet")
    shared = start(card) | budget(card["splits"]["train"]["rows"])
    experiments = {"Base": models["Base"] | shared}
    named = [column["name"] for column in entry["feature_cols"]]
    # With lists in rows a user has several ``user_index``.
    group = "group_user" if "group_user" in named else "user_index"
    experiments["Base"] |= {"group_id": group}
    if not _both_labels(folder, group, entry["label_col"]["name"]):
        print("the metric gAUC is left out, for no user has both labels in validation and test")
        experiments["Base"] |= {"metrics": ["AUC", "logloss"], "monitor": "AUC"}
    for expid, (model, dataset) in list_experiments(CONFIG).items():
        if dataset == LIKE:
            own = {key: value for key, value in models[expid].items() if key not in shared}
            own.pop(OF_PAPER, None)
            own |= {key: min(own[key], shared["epochs"] / 4) for key in WARM_UP if key in own}
            experiments[f"{model}_{dataset_id}"] = own | {"dataset_id": dataset_id}
    config = folder / "config"
    config.mkdir(exist_ok=True)
    write_yaml(config / "model_config.yaml", experiments)
    write_yaml(config / "dataset_config.yaml", {dataset_id: entry})
    expid = quote(f"TWIN_MoS_{dataset_id}")
    return f"{RUN_COMMAND} --config {quote(_shown(place / 'config'))} --expid {expid}"


def start(card: dict[str, Any]) -> dict[str, Any]:
    """The keys about the start of embeddings and about sampled negatives, by the data set's card.

    With FuxiCTR's start, N(0, 1e-4), attention models stay 4 to 11 points of AUC below themselves
    where negatives were sampled. On MovieLens, whose labels are real, TWIN does not need a wider one, and SDIM does. Where
    most items are new, ids that training knows only from its own sample are learnt by heart. What
    candidate and history share tells much about sampled negatives; on MovieLens it only costs quality.
    """
    if (negatives := card.get("negatives")) is None:
        return {"embedding_initializer": "partial(nn.init.normal_, std=1e-4)"}
    return {
        "embedding_initializer": "partial(nn.init.normal_, std=0.25)",
        "embedding_regularizer": 0.0,
        "match_features": True,
        "rare_id_rate": 10.0,
        "negative_sampling_rate": negatives["rate"],
    }


def budget(samples: int) -> dict[str, Any]:
    """How long to train, and in which steps, by the number of training samples.

    A batch is a 250th of the samples, from 32 to 1,024, so that even a small log has some hundreds of
    steps in an epoch. Beyond a million samples it is a 1,000th of them, up to 8,192. Batches are
    powers of 2. Training stops two evaluations after the best one, with an evaluation after each
    epoch. So ``epochs`` is only a bound: 20, or as many as show 20 million samples, but at least 2.
    More than 10 million samples are evaluated five times in an epoch, and the patience is 4.
    """
    batch = min(max(samples / 250, 32), max(1024, samples / 1000), 8192)
    size, many = 2 ** round(log2(batch)), samples > 10_000_000
    return {
        "batch_size": size,
        "learning_rate": 1e-3,
        "epochs": min(20, max(2, 20_000_000 // samples)),
        "early_stop_patience": 4 if many else 2,
        "eval_steps": samples // size // 5 if many else None,
    }


def _both_labels(folder: Path, group: str, label: str) -> bool:
    """Whether validation and test each have a group with both labels."""
    for split in SPLITS[1:]:
        groups = pl.scan_parquet(folder / f"{split}.parquet", glob=False).group_by(group)
        mixed = groups.agg(mixed=pl.col(label).n_unique() > 1).select(pl.col("mixed").any())
        if not mixed.collect(engine="streaming").item():
            return False
    return True


def shipped_entry(dataset_id: str) -> dict[str, Any] | None:
    """The data set's entry in the project's own configuration."""
    return read_yaml(CONFIG / "dataset_config.yaml").get(dataset_id)


def _columns(entry: dict[str, Any]) -> tuple[set[tuple[str, str]], str, Any]:
    """The features that an entry names, and their types; the label; and the features of events."""
    features = [column for column in entry["feature_cols"] if column["type"] != "meta"]
    columns = {(c["name"], c["type"]) for c in features}
    return columns, entry["label_col"]["name"], entry.get("event_cols")


def dataset_entry(folder: Path, place: Path) -> dict[str, Any]:
    """The entry of ``dataset_config.yaml`` for a prepared folder.

    Its ``feature_map.json`` names the features, and its card those of events.

    Args:
        folder: where the data set is.
        place: where it will be.
    """
    features, label = read_feature_map(folder / "feature_map.json")
    columns = []
    for name, spec in features.items():
        kind = "float" if spec["type"] in ("numeric", "embedding") else "int"
        copied = {key: spec[key] for key in COPIED if key in spec}
        columns.append({"name": name, "active": True, "dtype": kind} | copied)
    files = {f"{split}_data": f"{split}.parquet" for split in SPLITS}
    files |= {name: f"{name}.parquet" for name in ("user_info", "item_info")}
    card = card_beside(folder / "train.parquet")
    return {
        "data_root": _shown(place.parent),
        "data_format": "parquet",
        **{key: f"{_shown(place)}/{name}" for key, name in files.items()},
        "rebuild_dataset": False,
        "feature_cols": columns,
        "label_col": {"name": label, "dtype": "float"},
        **{key: card[key] for key in ("event_cols",) if key in card},
    }


def described(folder: Path) -> dict[str, Any]:
    """The entry of a data set, with absolute paths.

    Its ``feature_map.json`` says which columns there are. Files that were copied by hand may have
    none. Then the shipped configuration of a data set of that name says it.

    Args:
        folder: the data set; its name is the ``dataset_id``.

    Raises:
        UserError: nothing says what the columns are.
    """
    entry = shipped_entry(folder.name)
    if (folder / "feature_map.json").exists():
        entry = dataset_entry(folder, folder)
    if entry is None:
        raise UserError(
            f"{folder} has no feature_map.json, and the shipped configuration has no data set of "
            "its name; name a folder that data/prepare.py wrote"
        )
    entry = redirect(resolve_paths(with_tables(entry), HOME), folder.parent)
    return entry | {"dataset_id": folder.name, "data_root": str(folder.parent)}


def _shown(path: Path) -> str:
    """A path as configurations write it."""
    path = path.resolve()
    return f"./{path.relative_to(HOME)}" if path.is_relative_to(HOME) else str(path)
