"""What trained weights show: session hopping, dispatch and themes, as plain numbers. Nothing is trained here.

The histories are of the test split. Each user counts once, with the longest history that a sample of
the user has, cut to what the model reads. "Items" are the distinct items that appear in them.

Shape suffixes: U users, L items of a history, N items of the catalogue, I distinct items, D item width,
P appearances.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from model_zoo.history.history import History
from model_zoo.history.item_dict import ItemDict
from model_zoo.moe.branch import Branch
from model_zoo.moe.mos import ThemeRouter
from model_zoo.sequence_model import SequenceModel

from ...common.errors import UserError
from ...config.feature_map import build_feature_map
from ...config.read import Params
from ...datasets.prepared.card import card_beside
from ...loader.loader import SequenceLoader
from ...run.experiment import Loaders, make_loaders
from ...run.trained import load_trained
from .item_experts import describe_codes, dispatch, experts_of, match, usual_experts
from .sessions import measure, planted_agreement

USERS = 2_000  # at most
MAX_ITEMS = 200  # newest of each user
BATCH = 256  # users that are routed at a time
DIGITS = 4
KINDS = {"genres": "first genre", "cate_id": "category"}  # item features that are known themes
PLANTED = "planted theme"


def load_run(params: Params, checkpoint: Path) -> tuple[SequenceModel, Loaders]:
    """The model with the weights of a checkpoint, on the CPU, and the loaders of its data.

    Args:
        params: checked parameters of the experiment, see ``engine.config.load.load``.
        checkpoint: ``<expid>_seed<seed>.model``.

    Raises:
        UserError: there is no such file, or it has another model's weights.
    """
    feature_map = build_feature_map(params)
    return load_trained(params, feature_map, checkpoint), make_loaders(params, feature_map, "cpu")


def probe(
    model: SequenceModel, loaders: Loaders, params: Params, max_users: int = USERS, seed: int = 0
) -> dict[str, Any]:
    """Measure a trained model. It is left in evaluation mode and otherwise as it was.

    Args:
        model: a trained model of the zoo.
        loaders: its data.
        params: parameters of its experiment.
        max_users: if there are more users, this many are drawn at random.
        seed: of the draw, the shuffles and the routers.

    Returns:
        Numbers of four decimals, ready for JSON.

        ``about``: the run, the users and the items.

        ``session_hopping``: what ``sessions.measure`` gives. Where sessions are known it also has
        ``planted_borders``, and each example has ``experts`` (None without a mixture).

        ``dispatch``: for each branch that routes items, what ``item_experts.dispatch`` gives.

        ``themes``: None without such a branch. ``kind`` says what the categories are, ``codes`` is what
        ``item_experts.describe_codes`` gives (None without codes), and with categories there are the
        numbers of ``item_experts.match``.

    Raises:
        UserError: the model is not of the zoo, or no user has a history.
    """
    if not isinstance(model, SequenceModel):
        raise UserError(f"{params['model']}: only models of the zoo can be probed")
    model.eval()
    loader = loaders["test"]
    user_U, index_UL, mask_UL = _users(loader, max_users, seed)
    item_I, row_P, count_I = np.unique(index_UL[mask_UL], return_inverse=True, return_counts=True)
    each = _history(model, loader, item_I[:, None], np.ones((len(item_I), 1), bool))
    x_ID = each.embed_detached()[:, 0].double().cpu().numpy()
    # Items share a large part of their vectors. What is left without it says how they differ. Each
    # appearance counts, so that the items that users see lie around zero.
    centred_ID = x_ID - (count_I @ x_ID) / count_I.sum()
    rows = np.split(row_P, mask_UL.sum(1).cumsum()[:-1])
    vectors = [centred_ID[row_L] for row_L in rows]
    kind, label_N = _categories(loader, params)
    label_I = None if label_N is None else label_N[item_I].astype(np.int64)

    hopping = measure(vectors, user_U.tolist(), seed)
    if kind == PLANTED and label_I is not None:
        labels = [label_I[row_L] for row_L in rows]
        hopping["planted_borders"] = planted_agreement(vectors, labels, hopping["threshold"])
    branches = {name: branch for name, branch in model.branches.items() if name != "window"}
    branch = next(iter(branches.values()), None)  # no model has two
    for example in hopping["examples"]:
        own = user_U == example["user"]
        one = _history(model, loader, index_UL[own], mask_UL[own])
        example["experts"] = experts_of(branch, one)[example["first"] :] if branch else None
    batches = [slice(start, start + BATCH) for start in range(0, len(user_U), BATCH)]
    histories = [_history(model, loader, index_UL[batch], mask_UL[batch]) for batch in batches]
    themes: dict[str, Any] | None = None
    if branch:
        expert_I = usual_experts(branch, histories, row_P)
        codes = _codes(branch, x_ID, expert_I, item_I, label_I)
        _name(codes or [], Path(params["item_info"]).with_name("item_ids.parquet"), label_N)
        themes = {"kind": kind, "codes": codes}
        themes |= {} if label_I is None else match(expert_I, label_I, seed)
    about = {"expid": params["model_id"]} | {k: params[k] for k in ("seed", "model", "dataset_id")}
    about |= {"split": "test", "users": len(user_U), "items": len(item_I)}
    about |= {"appearances": len(row_P), "max_items": index_UL.shape[1], "probe_seed": seed}
    sent = {name: dispatch(b, histories, item_I, row_P, seed) for name, b in branches.items()}
    return rounded({"about": about, "session_hopping": hopping, "dispatch": sent, "themes": themes})


def rounded(content: Any) -> Any:
    """The content as JSON has it, with all fractions rounded to ``DIGITS`` decimals."""
    text = json.dumps(content, default=lambda number: number.item())  # of numpy
    return json.loads(text, parse_float=lambda fraction: round(float(fraction), DIGITS))


def _users(loader: SequenceLoader, max_users: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Users ``(U,)`` in order, their items ``(U, L)``, left padded with 0, and the mask."""
    samples = pl.read_parquet(loader.samples.path, columns=["user_index", "seq_len"], glob=False)
    longest = samples.cast(pl.Int64).group_by("user_index").max()
    longest = longest.filter(pl.col("seq_len") > 0).sort("user_index")
    if longest.is_empty():
        what = "no user has a history, so there is nothing to probe"
        raise UserError(f"{loader.samples.path}: {what}")
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(longest), min(max_users, len(longest)), replace=False))
    user_U, length_U = longest[drawn].to_numpy().T
    size, none_U = min(MAX_ITEMS, loader.max_len), np.zeros_like(user_U)
    index_UL1, mask_UL = loader.histories.batch(user_U, length_U, none_U, size)
    return user_U, index_UL1[:, :-1].astype(np.int64), mask_UL > 0


def _history(
    model: SequenceModel, loader: SequenceLoader, index_UL: NDArray, mask_UL: NDArray
) -> History:
    """The histories of some users as the model reads them. Nothing reads the target, which is padding."""
    index_UL1 = torch.from_numpy(np.pad(index_UL, ((0, 0), (0, 1))))
    items = ItemDict(loader.items.tables, index_UL1)
    with torch.no_grad():
        return model.embed_items(({}, items, torch.from_numpy(mask_UL).float()))[0]


def _categories(loader: SequenceLoader, params: Params) -> tuple[str | None, NDArray | None]:
    """What is known about the items' themes, and the label of each item ``(N,)``, 0 unknown."""
    feature = next((name for name in KINDS if name in loader.items.tables), None)
    if feature is None:
        return None, None
    values = loader.items.tables[feature].cpu().numpy()
    label_N = values if values.ndim == 1 else values[:, 0]
    themes = card_beside(params["train_data"]).get("themes", 0)  # planted; 0 in other data
    if feature == "cate_id" and themes:
        # As engine.datasets.synthetic draws them: each theme has equally many categories.
        size = (loader.samples.feature_map.features[feature]["vocab_size"] - 1) // themes
        return PLANTED, np.where(label_N > 0, 1 + (label_N - 1) // size, 0)
    return KINDS[feature], label_N


def _codes(
    branch: Branch, x_ID: NDArray, expert_I: NDArray, item_I: NDArray, label_I: NDArray | None
) -> list[dict[str, Any]] | None:
    """What each code of the router stands for; None if it has no codebook."""
    router = branch.router
    if not isinstance(router, ThemeRouter):
        return None
    with torch.no_grad():
        projected_IC = router.project(torch.from_numpy(x_ID).to(next(router.parameters())))
        z_IC, codes_EC = (z.double().cpu().numpy() for z in (projected_IC, router.codes()))
    return describe_codes(z_IC, codes_EC, expert_I, item_I, label_I)


def _name(codes: Sequence[dict[str, Any]], file: Path, label_N: NDArray | None) -> None:
    """Put the names of items and categories beside their numbers; None where they are not known.

    Args:
        codes: what ``describe_codes`` found; the names are added.
        file: ``item_ids.parquet`` of the prepared data, which may have ``name`` and ``category``.
        label_N: category of each item of the catalogue, 0 unknown.
    """
    names: dict[int, str] = {}
    categories: dict[int | None, str] = {}
    if file.exists() and {"name", "category"} <= set(
        pl.scan_parquet(file, glob=False).collect_schema()
    ):
        known = pl.read_parquet(file, columns=["item_index", "name", "category"], glob=False)
        names = dict(zip(known["item_index"], known["name"], strict=True))
        if label_N is not None:
            numbers = label_N[known["item_index"].to_numpy()].tolist()
            categories = dict(zip(numbers, known["category"], strict=True))
    for code in codes:
        code["main_name"] = categories.get(code.get("main_category"))
        for near in code["nearest"]:
            near["name"] = names.get(near["item"])
            near["category_name"] = categories.get(near["category"])
