"""Every shipped experiment starts: its model is built on data of its schema, takes a training step,
and predicts. The data sets are small ones of the same names."""

import itertools
from pathlib import Path

import pytest
import torch

from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.options import RunOptions
from engine.config.read import list_experiments
from engine.datasets import paper, synthetic
from engine.datasets.forms import ebnerd, movielens
from engine.datasets.prepared import layout
from engine.datasets.writing import interactions
from engine.run.experiment import make_loaders

from ...support import stand_ins
from ...support.helpers import CONFIG
from ...support.raw_files import write_ebnerd
from ..datasets.test_datasets import ratings, write_movielens

BATCH = 24
EXPIDS = list_experiments(CONFIG)
# Every tenth: of each data set some models, and of each model some data set.
CASES = [pytest.param(e, marks=[pytest.mark.slow] * (i % 10 > 0)) for i, e in enumerate(EXPIDS)]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets that the shipped experiments name."""
    root = tmp_path_factory.mktemp("data")
    for name in paper.NAMES:
        layout.write(stand_ins.generate(name, 1e-4), root / name)
    for name in ("session_hopping", "session_hopping_tiny", "session_hopping_micro"):
        layout.write(synthetic.generate(synthetic.SIZES["tiny"], 1), root / name)
    raw = tmp_path_factory.mktemp("raw")
    for name, form in (("movielens_1m", "ratings.dat"), ("movielens_100k", "u.data")):
        (raw / name).mkdir()
        write_movielens(raw / name, ratings(3), form)
        interactions.write(movielens.load(raw / name), root / name)
    write_ebnerd(raw / "ebnerd")
    interactions.write(ebnerd.load(raw / "ebnerd"), root / "ebnerd")
    assert {dataset for _, dataset in EXPIDS.values()} == {path.name for path in root.iterdir()}
    return root


@pytest.mark.parametrize("expid", CASES)
def test_it_starts(expid: str, data_root: Path, tmp_path: Path) -> None:
    experiment = load(expid, RunOptions(CONFIG, data_root=data_root, model_root=tmp_path))
    params, model_class = experiment.params, experiment.model_class
    torch.manual_seed(0)
    feature_map = build_feature_map(params)
    model = model_class(feature_map, **params | {"verbose": 0})
    loaders = make_loaders(params | {"batch_size": BATCH}, feature_map, "cpu")
    model.enter("joint")
    model.train()
    batch = next(iter(loaders["train"]))
    loss = model.add_loss(model(batch), model.get_labels(batch))
    loss.backward()
    assert torch.isfinite(loss)
    model.eval()
    with torch.no_grad():
        for batch in itertools.islice(loaders["test"], 2):
            prediction = model(batch)["y_pred"]
            assert prediction.shape == (len(batch[2]), 1) and torch.isfinite(prediction).all()
