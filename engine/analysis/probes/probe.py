"""What trained weights show: session hopping, dispatch and themes, as plain numbers. Nothing is trained here.

The histories are those of the test split: each user once, with the longest history that a sample of the user
has, cut to what the model reads. "Items" are the distinct items that appear in them.

Shape suffixes: U users, L items of a history, N items of the catalogue, I distinct items, D item width,
P appearances.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_zoo.history.item_dict import ItemDict
from model_zoo.moe.branch import Branch
from model_zoo.sequence_model import SequenceModel

from ...common.errors import UserError
from ...config.feature_map import build_feature_map
from ...config.models import build, find_model
from ...datasets.card import card_beside
from ...loader.loader import SequenceLoader
from ...run.experiment import make_loaders
from .expert_themes import describe_codes, match
from .item_experts import dispatch, experts_of, usual_experts
from .item_names import item_names
from .sessions import measure, planted_agreement

MAX_USERS = 2_000
MAX_ITEMS = 200  # newest of each user
BATCH = 256  # users that are routed at a time
DIGITS = 4
KINDS = {"genres": "first genre", "cate_id": "category"}  # item features that are known themes


def load_trained(
    params: dict[str, Any], checkpoint: Path
) -> tuple[SequenceModel, dict[str, SequenceLoader]]:
    """The model with the weights of a checkpoint, on the CPU, and the loaders of its data.

    Args:
        params: checked parameters of the experiment, see ``engine.config.load.load``.
        checkpoint: ``<expid>_seed<seed>.model``.

    Raises:
        UserError: there is no such file, or it is of another model.
    """
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such checkpoint; train the experiment first")
    feature_map = build_feature_map(params)
    params = params | {"gpu": -1}
    model = build(find_model(params["model"]), feature_map, params, params["model_id"])
    try:
        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises anything for a damaged file
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{checkpoint}: not weights of {params['model']} as {params['model_id']} describes it ({reason})"
        ) from None
    return model, make_loaders(params, feature_map, "cpu")


def probe(
    model: SequenceModel,
    loaders: Mapping[str, SequenceLoader],
    params: dict[str, Any],
    *,
    max_users: int = MAX_USERS,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is measured from a trained model; the model is as it was afterwards, in
    evaluation mode.

    Args:
        model: a trained model of the zoo.
        loaders: its data.
        params: of its experiment.
        max_users: more are drawn at random.
        seed: of the draw, the shuffles and the routers.

    Returns:
        for JSON, in numbers of four decimals: ``about``; ``session_hopping``, see
        ``session_hopping.measure``, with ``planted_borders`` where sessions are known, and in each
        example ``experts`` (None without a mixture), but not its items, which are the data set's;
        ``dispatch`` of each branch that routes items, see ``dispatch_probe.dispatch``; ``themes`` of
        the same branch, None without one: ``kind``, what the categories are; ``codes``, see
        ``themes.describe_codes``, None without a codebook; and, with categories, the numbers of
        ``themes.match``.

    Raises:
        UserError: the model is none of the zoo's, or no user has a history.
    """
    if not isinstance(model, SequenceModel):
        raise UserError(f"{params['model']}: only models of the zoo can be probed")
    model.eval()
    loader = loaders["test"]
    user_U, index_UL, mask_UL = _histories(loader, max_users, seed)
    item_I, row_P, count_I = np.unique(index_UL[mask_UL], return_inverse=True, return_counts=True)
    x_ID = _item_vectors(model, loader, item_I)
    # Items share a large part of their vectors; without it, what is left says how they differ. Each
    # appearance counts, so that the items that users do see are around zero.
    centred_ID = x_ID - (count_I @ x_ID) / count_I.sum()
    ends = mask_UL.sum(1).cumsum()[:-1]
    rows = np.split(row_P, ends)
    kind, label_N = _categories(loader, params)

    hopping = measure([centred_ID[row_L] for row_L in rows], user_U.tolist(), seed)
    if kind == "planted theme":
        hopping["planted_borders"] = planted_agreement(
            [centred_ID[row_L] for row_L in rows],
            [label_N[item_I[row_L]] for row_L in rows],
            hopping["threshold"],
        )
    branches = {name: branch for name, branch in model.branches.items() if name != "window"}
    by_item = next(iter(branches.values()), None)  # no model has two
    label_I = None if label_N is None else label_N[item_I].astype(np.int64)
    batches = [slice(start, start + BATCH) for start in range(0, len(user_U), BATCH)]
    histories = [_embed(model, loader, index_UL[batch], mask_UL[batch]) for batch in batches]
    for example in hopping["examples"]:
        u = int(np.flatnonzero(user_U == example["user"])[0])
        one = _embed(model, loader, index_UL[u : u + 1], mask_UL[u : u + 1])
        example["experts"] = experts_of(by_item, one)[example["first"] :] if by_item else None
    indices = [index_UL[batch] for batch in batches]
    found = None
    if by_item:
        expert_I = usual_experts(by_item, histories, indices)
        found = {"kind": kind, "codes": _codes(by_item, x_ID, expert_I, item_I, label_I)}
        found |= {} if label_I is None else match(expert_I, label_I, seed)
    result = {
        "about": {
            "expid": params["model_id"],
            "seed": params["seed"],
            "model": params["model"],
            "dataset_id": params["dataset_id"],
            "split": "test",
            "users": len(user_U),
            "items": len(item_I),
            "appearances": len(row_P),
            "max_items": index_UL.shape[1],
            "probe_seed": seed,
        },
        "session_hopping": hopping,
        "dispatch": {
            name: dispatch(branch, histories, indices, seed) for name, branch in branches.items()
        },
        "themes": found,
    }
    if found and found["codes"]:
        _name(found["codes"], *item_names(Path(params["item_info"]).parent, label_N))
    return rounded(result)


def rounded(content: Any) -> Any:
    """The same with all fractions rounded to ``DIGITS`` decimals."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    if isinstance(content, float | np.floating):
        return round(float(content), DIGITS)
    return int(content) if isinstance(content, np.integer) else content


def _histories(
    loader: SequenceLoader, max_users: int, seed: int
) -> tuple[NDArray, NDArray, NDArray]:
    """Users ``(U,)`` in order, their items ``(U, L)``, left padded with 0, and the mask."""
    longest: dict[int, int] = {}
    for columns in loader.samples.batches(BATCH * 64, None):
        pairs = zip(columns["user_index"].tolist(), columns["seq_len"].tolist(), strict=True)
        for user, length in pairs:
            longest[user] = max(length, longest.get(user, 0))
    known = np.array(sorted(user for user, length in longest.items() if length), np.int64)
    if not len(known):
        raise UserError(
            f"{loader.samples.path}: no user has a history, so there is nothing to probe"
        )
    rng = np.random.default_rng(seed)
    user_U = np.sort(rng.choice(known, min(max_users, len(known)), replace=False))
    length_U = np.array([longest[user] for user in user_U.tolist()], np.int64)
    index_UL1, mask_UL = loader.histories.batch(
        user_U, length_U, np.zeros_like(user_U), min(MAX_ITEMS, loader.max_len)
    )
    return user_U, index_UL1[:, :-1].astype(np.int64), mask_UL > 0


def _embed(model: SequenceModel, loader: SequenceLoader, index_UL: NDArray, mask_UL: NDArray):
    """The history of some users as the model reads it. No sample is meant, so the target is padding."""
    index_UL1 = torch.from_numpy(np.pad(index_UL, ((0, 0), (0, 1))))
    with torch.no_grad():
        batch = ({}, ItemDict(loader.items.tables, index_UL1), torch.from_numpy(mask_UL).float())
        return model.embed_items(batch)[0]


def _item_vectors(model: SequenceModel, loader: SequenceLoader, item_I: NDArray) -> NDArray:
    """The trained embedding of items, ``(I, D)``."""
    parts = [item_I[start : start + BATCH * 64] for start in range(0, len(item_I), BATCH * 64)]
    histories = [
        _embed(model, loader, part[:, None], np.ones((len(part), 1), bool)) for part in parts
    ]
    return np.concatenate(
        [history.embed_detached()[:, 0].double().cpu().numpy() for history in histories]
    )


def _categories(
    loader: SequenceLoader, params: dict[str, Any]
) -> tuple[str | None, NDArray | None]:
    """What is known about the items' themes, and the label of each item ``(N,)``, 0 unknown."""
    for feature, kind in KINDS.items():
        if feature in loader.items.tables:
            values = loader.items.tables[feature].cpu().numpy()
            label_N = values if values.ndim == 1 else values[:, 0]
            card = card_beside(params["train_data"])
            num_themes = card.get("themes", 0)  # planted; 0 in other data
            if feature == "cate_id" and num_themes:
                # As engine.datasets.synthetic draws them: each theme has equally many categories.
                per_theme = (
                    loader.samples.feature_map.features[feature]["vocab_size"] - 1
                ) // num_themes
                return "planted theme", np.where(label_N > 0, 1 + (label_N - 1) // per_theme, 0)
            return kind, label_N
    return None, None


def _codes(
    branch: Branch,
    x_ID: NDArray,
    expert_I: NDArray,
    item_I: NDArray,
    label_I: NDArray | None,
) -> list[dict[str, Any]] | None:
    router = branch.router
    if not hasattr(router, "codebook"):
        return None
    with torch.no_grad():
        weight = next(router.parameters())
        z_IC = router.project(torch.from_numpy(x_ID).to(weight)).double().cpu().numpy()
    return describe_codes(z_IC, router.codes().double().cpu().numpy(), expert_I, item_I, label_I)


def _name(
    codes: list[dict[str, Any]], names: Mapping[int, str], category_names: Mapping[int, str]
) -> None:
    """Put the names that are known beside the numbers."""
    for code in codes:
        code["main_name"] = category_names.get(code.get("main_category"))
        for near in code["nearest"]:
            near["name"] = names.get(near["item"])
            near["category_name"] = category_names.get(near["category"])
