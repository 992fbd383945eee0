"""Tuner files: the grid is FuxiCTR's, every mistake is one message, and trials are what they are by
their parameters."""

import random
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuxictr.autotuner import enumerate_params
from fuxictr.utils import load_config, load_model_config

from engine.common.errors import UserError
from engine.config.options import RunOptions
from engine.config.validate import check
from engine.tuner.checks import check_space
from engine.tuner.folder import Folder
from engine.tuner.space import Space, read_space
from engine.tuner.trial import digest
from model_zoo import get_model

from ...support.command_line import Workspace, run_script, snapshot

OPTIONS = RunOptions()
SPACE = {"learning_rate": [1e-3, 1e-2], "topk": 5, "dnn_hidden_units": [[64, 32], [64]]}


def tuner_file(space: Workspace, choices: dict[str, Any], **keys: Any) -> Path:
    """Write a tuner file for ``TWIN_tiny``."""
    file = space.folder / "tuner.yaml"
    content = {"base_config": str(space.config), "base_expid": "TWIN_tiny", "dataset_id": "tiny"}
    file.write_text(yaml.safe_dump(content | {"tuner_space": choices} | keys))
    return file


@pytest.fixture
def space(tiny_data: Path, tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, tiny_data)


# ---------------------------------------------------------------- the grid


def combinations(config: Path) -> set[str]:
    """The checked parameters of every experiment of a configuration directory, as FuxiCTR loads
    them, without what names them."""
    found = set()
    for expid in yaml.safe_load((config / "model_config.yaml").read_text()):
        params = check(load_config(str(config), expid), get_model("TWIN"))
        found.add(digest(params))
    return found


def written(space: Space, path: Path) -> Path:
    """The configuration directory that the tuner writes."""
    folder = Folder(path)
    folder.open()
    trials = {trial.name: trial for trial in space.grid()}
    folder.write_config(path, space, trials, "anywhere")
    folder.close()
    return path


def test_grid_is_the_one_of_fuxictr(space: Workspace, tmp_path: Path) -> None:
    file = tuner_file(space, SPACE)
    ours = written(read_space(file, OPTIONS), tmp_path / "out")
    theirs = Path(enumerate_params(str(file)))
    assert combinations(ours) == combinations(theirs)
    assert len(combinations(ours)) == 4


def test_key_of_the_data_set_is_tuned_too(space: Workspace, tmp_path: Path) -> None:
    """FuxiCTR's grid collapses to its last value."""
    space.change_dataset(max_len=50)
    grid = read_space(tuner_file(space, {"max_len": [10, 20, 30], "topk": [5, 10]}), OPTIONS)
    out = written(grid, tmp_path / "out")
    for trial in grid.grid():
        loaded = load_config(str(out), trial.name)
        assert {key: loaded[key] for key in trial.tuned} == trial.tuned
        assert loaded["dataset_id"] == "tiny" and loaded["train_data"] == str(
            space.data / "train.parquet"
        )
    tuned = {(t.tuned["max_len"], t.tuned["topk"]) for t in grid.grid()}
    assert tuned == set(product([10, 20, 30], [5, 10])) and grid.size == 6


def test_the_start_of_embeddings_is_tuned_although_the_experiment_leaves_it_out(
    space: Workspace,
) -> None:
    del space.models["Base"]["embedding_initializer"]
    space.save()
    starts = ["partial(nn.init.normal_, std=1e-4)", "nn.init.xavier_normal_"]
    found = read_space(tuner_file(space, {"embedding_initializer": starts}), OPTIONS)
    assert "embedding_initializer" not in found.model
    trials = list(check_space(found, OPTIONS).grid())
    assert [trial.params["embedding_initializer"] for trial in trials] == starts


def test_inline_configuration_and_data_set_to_be_named(space: Workspace) -> None:
    model = load_model_config(str(space.config), "TWIN_tiny") | {"dataset_id": "TBD"}
    file = tuner_file(
        space, {"topk": [5, 10]}, model_config={"TWIN_tiny": model}, dataset_config=space.datasets
    )
    del model["model_id"]
    file.write_text(file.read_text().replace("experiments", "nowhere"))
    grid = list(read_space(file, OPTIONS).grid())
    assert [trial.params["topk"] for trial in grid] == [5, 10]
    assert all(trial.name.startswith("TWIN_tiny_") for trial in grid)
    assert {trial.params["dataset_id"] for trial in grid} == {"tiny"}


# ---------------------------------------------------------------- identity


def test_digest_depends_on_which_key_has_which_value() -> None:
    assert digest({"a": 0.1, "b": 0.2}) != digest({"a": 0.2, "b": 0.1})
    assert digest({"a": 12}) != digest({"a": 21})
    assert digest({"a": [64, 32]}) != digest({"a": [32, 64]})
    assert digest({"a": True}) != digest({"a": 1})
    assert digest({"a": "12"}) != digest({"a": ["12"]})


def test_digest_is_of_the_parameters_alone() -> None:
    params = {f"key{i}": random.choice([i, f"text{i}", i / 7, [i, {"x": i}]]) for i in range(20)}
    shuffled = dict(random.sample(list(params.items()), len(params)))
    assert digest(params) == digest(shuffled)
    assert digest({"rate": 1}) == digest({"rate": 1.0})
    assert digest(params) == digest(params | {"model_root": "/there", "model_id": "other"})


def test_keys_that_change_no_result_give_no_further_trials(space: Workspace) -> None:
    choices = {"topk": [5, 10], "verbose": [0, 1]}
    found = read_space(tuner_file(space, choices), OPTIONS)
    assert len({trial.name for trial in found.grid()}) == found.size == 2


def test_a_larger_grid_keeps_the_names_of_the_smaller(space: Workspace) -> None:
    small = [t.name for t in read_space(tuner_file(space, {"topk": [5, 10]}), OPTIONS).grid()]
    choices = {"learning_rate": ["1e-3", 1e-2], "topk": [20, 10, 5]}  # 1e-3 is the base's
    checked = check_space(read_space(tuner_file(space, choices), OPTIONS), OPTIONS)
    large = [t.name for t in checked.grid()]
    assert set(small) < set(large) and len(set(large)) == 6


# ---------------------------------------------------------------- mistakes

TEXTS = {
    "duplicate key": "base_expid: TWIN_tiny\ntuner_space:\n    topk: [1]\n    topk: [2]\n",
    "not YAML": "tuner_space: [1, 2\n",
}
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "unknown key": ({"topK": [1, 2]}, {}, ("tuner_space, topK", "did you mean `topk`")),
    "twice": ({"topk": [1, 2, 1]}, {}, ("tuner_space, topk", "1 is there twice")),
    "twice as a text": ({"learning_rate": ["1e-3", 0.001]}, {}, ("learning_rate", "there twice")),
    "twice as a list": ({"dnn_hidden_units": [[1], [1.0]]}, {}, ("dnn_hidden_units", "twice")),
    "empty list": ({"topk": []}, {}, ("tuner_space, topk", "empty list")),
    "data set": ({"dataset_id": ["a", "b"]}, {}, ("dataset_id: cannot be tuned",)),
    "unknown experiment": ({}, {"base_expid": "TWIN_tyni"}, ("base_expid", "TWIN_tiny")),
    "unknown data set": ({}, {"dataset_id": "tinny"}, ("dataset_id", "did you mean `tiny`")),
    "unknown section": ({}, {"tuner_spaces": {}}, ("tuner_spaces", "did you mean `tuner_space`")),
    "no mapping": ([1], {}, ("tuner_space", "write a mapping")),  # type: ignore[dict-item]
    "no directory": ({}, {"base_config": "nowhere"}, ("nowhere", "model_config.yaml")),
    "not inline": ({}, {"model_config": {"TWIN": {}}}, ("model_config: has no 'TWIN_tiny'",)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_the_file_is_one_message(name: str, space: Workspace) -> None:
    choices, keys, says = MISTAKES[name]
    file = tuner_file(space, choices, **keys)
    with pytest.raises(UserError) as caught:
        check_space(read_space(file, OPTIONS), OPTIONS)
    for part in (str(file), *says):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"topk": [5, "many"]}, ("topk", "'many'", "a whole number")),
        ({"learning_rate": [0.1, -0.1]}, ("learning_rate", "above 0")),
        ({"net_dropout": [0.1, 1.5]}, ("net_dropout", "1.5")),
        ({"embedding_initializer": ["print(1)"]}, ("'print(1)'", "nn.init.xavier_normal_")),
        ({"model": ["TWIN", "TWINN"]}, ("TWINN", "did you mean")),
        (
            {"attention_dim": [64, 63], "num_heads": [1, 2]},
            ("TWIN_tiny with attention_dim: 63, num_heads: 2", "is not divisible by"),
        ),
    ],
)
def test_value_that_a_run_would_refuse(
    choices: dict[str, Any], says: tuple[str, ...], space: Workspace
) -> None:
    file = tuner_file(space, choices)
    with pytest.raises(UserError) as caught:
        check_space(read_space(file, OPTIONS), OPTIONS)
    for part in (str(file), *says):
        assert part in str(caught.value)


def test_missing_data_is_said_before_anything_starts(space: Workspace) -> None:
    shutil.rmtree(space.data)
    with pytest.raises(UserError, match="prepare the data first"):
        check_space(read_space(tuner_file(space, {"topk": [5]}), OPTIONS), OPTIONS)


@pytest.mark.parametrize("name", TEXTS)
def test_mistake_is_answered_without_torch(name: str, tmp_path: Path) -> None:
    """By the command line: exit code 2, one line, nothing written."""
    (tmp_path / "torch.py").write_text("raise ImportError('poisoned')")
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    (tmp_path / "tuner.yaml").write_text(TEXTS[name])
    before = snapshot(tmp_path)
    outcome = run_script("run_param_tuner.py", "--config", "tuner.yaml", cwd=tmp_path)
    assert outcome.code == 2 and outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1 and "error: tuner.yaml: not valid YAML" in outcome.stderr
    assert snapshot(tmp_path) == before
