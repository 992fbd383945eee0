"""Rare ids are hidden in training, as often as they are rare, and never elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.loader.loader import SequenceLoader
from model_zoo.batch import Batch
from model_zoo.history.rare_ids import RareIds

from ...support.helpers import build_model, killed_after, loader, random_batch, tiny_params

IDS = torch.tensor([3] * 8 + [4] * 2 + [0, 1])


def hidden() -> RareIds:
    found = RareIds({"id": 1, "tags": 1, "plain": 0}, rate=2.0)
    batches = [IDS[:5], IDS[5:]]
    found.count(({"id": ids, "tags": ids[:, None]} for ids in batches), {"id": 6, "tags": 6})
    return found


@pytest.mark.parametrize(("value", "seen"), [(3, 8), (4, 2), (5, 0)])
@pytest.mark.parametrize("name", ["id", "tags"])
def test_an_id_is_hidden_the_more_often_the_rarer_it_is(name: str, value: int, seen: int) -> None:
    torch.manual_seed(0)
    ids = torch.full((20_000, 2) if name == "tags" else (40_000,), value)
    columns = {"id": ids, "tags": ids, "plain": ids}
    shown = hidden().hide(columns)
    assert set(shown[name].unique().tolist()) <= {1, value}
    assert (shown[name] == 1).float().mean().item() == pytest.approx(2 / (2 + seen), abs=0.01)
    assert shown["plain"] is ids and (columns[name] == value).all()


def test_padding_and_unknown_values_stay() -> None:
    ids = torch.tensor([0, 1] * 1000)
    assert torch.equal(hidden().hide({"id": ids, "tags": ids})["id"], ids)


def marked(data: Path) -> dict[str, Any]:
    """Parameters of a data set whose feature map names the id of unknown items."""
    params = tiny_params(data, "TWIN", rare_id_rate=1e9, verbose=0)
    columns = [dict(c, oov_idx=1) if c["name"] == "item_id" else c for c in params["feature_cols"]]
    return params | {"feature_cols": columns}


def test_training_hides_and_evaluation_does_not(tiny_data: Path, tmp_path: Path) -> None:
    params = marked(tiny_data) | {"model_root": str(tmp_path)}
    model, plain = (build_model(params | {"rare_id_rate": rate}) for rate in (1e9, 0.0))
    train, valid = (loader(params, split) for split in ("train", "valid"))
    model.before_training(train)
    batch = next(iter(valid))
    for one in (model, plain):
        one.eval()
    assert torch.equal(model(batch)["logit"], plain(batch)["logit"])
    table = model.embedding_layer.embedding_layer.embedding_layers["item_id"].weight
    model.train().add_loss(model(batch), model.get_labels(batch)).backward()
    assert table.grad.any(1).nonzero().flatten().tolist() == [1]
    first, again = (model.fit(train, valid, epochs=0.1, seed=3) for _ in range(2))
    assert first == again


def test_items_without_ids_need_none(tiny_data: Path, tmp_path: Path) -> None:
    params = marked(tiny_data) | {"model_root": str(tmp_path)}
    price = {"name": "price", "active": True, "dtype": "float", "type": "numeric", "source": "item"}
    model = build_model(params | {"feature_cols": [price], "group_id": None})
    assert model(random_batch(model.feature_map, [3, 2], 3))["logit"].shape == (2, 1)


class _Drawing(SequenceLoader):
    """Each pass draws a number of torch's, as one over torch's DataLoader does."""

    def __iter__(self) -> Iterator[Batch]:
        torch.rand(1)
        return super().__iter__()


def test_a_resumed_run_hides_the_same(tiny_data: Path, tmp_path: Path) -> None:
    params = marked(tiny_data) | {"model_root": str(tmp_path), "rare_id_rate": 5.0}

    def fit(name: str) -> list[float]:
        model, state = build_model(params), str(tmp_path / name)
        train, valid = (loader(params, split) for split in ("train", "valid"))
        train.__class__ = _Drawing
        model.fit(train, valid, epochs=2, seed=3, resume_file=state)
        return [entry["train_loss"] for entry in model.stage_log]

    whole = fit("whole")
    with killed_after(2):
        fit("killed")
    assert len(whole) == 2 and fit("killed") == whole
