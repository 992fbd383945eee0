"""``backbone_checkpoint``: a trained vanilla model starts its variants; anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_zoo.moe.stages import StageName
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.checkpoints import BLOCK, EMBEDDING, HEAD

from ...support.command_line import Workspace
from ...support.helpers import all_models, build_model, random_batch, tiny_params

LENGTHS = [20, 20, 13, 3, 1, 0]


def save_vanilla(name: str, data: Path, folder: Path) -> tuple[SequenceModel, str]:
    """A vanilla model with weights of its own, and its checkpoint."""
    model = build_model(tiny_params(data, name, model_root=str(folder)), seed=1).eval()
    file = str(folder / "vanilla.model")
    model.save_weights(file)
    return model, file


def predict(model: SequenceModel) -> Tensor:
    with torch.no_grad():
        return model.eval()(random_batch(model.feature_map, LENGTHS, L=20))["y_pred"]


@pytest.mark.parametrize("name", all_models())
def test_a_variant_starts_from_its_trained_backbone(
    name: str, tiny_data: Path, tmp_path: Path
) -> None:
    vanilla, file = save_vanilla(name.split("_")[0], tiny_data, tmp_path)
    options = {"model_root": str(tmp_path), "backbone_checkpoint": file}
    params = tiny_params(tiny_data, name, **options)
    model = build_model(params, seed=2)
    untouched = build_model(params | {"backbone_checkpoint": None}, seed=2).state_dict()
    for key, weight in model.state_dict().items():
        of_backbone = key.startswith((EMBEDDING, BLOCK, HEAD))
        expected = vanilla.state_dict() if of_backbone else untouched
        assert weight.equal(expected[key]), key
    stages = [stage.name for stage in model.stages(1.0)]
    assert stages == (["experts", "joint"] if model.expert_parts() else ["joint"])
    model.enter(StageName.BACKBONE)
    assert predict(model).equal(predict(vanilla))


def test_a_checkpoint_of_a_variant_serves_too(tiny_data: Path, tmp_path: Path) -> None:
    """Of it the backbone's part is read."""
    variant, file = save_vanilla("TWIN_MoS", tiny_data, tmp_path)
    model = build_model(tiny_params(tiny_data, "TWIN", backbone_checkpoint=file), seed=2)
    weights = variant.state_dict()
    assert all(weight.equal(weights[key]) for key, weight in model.state_dict().items())


def refused(data: Path, model: str, file: Path | str, **keys: object) -> str:
    """The message with which a model refuses a checkpoint; it is one line and names the file."""
    with pytest.raises(ValueError) as error:
        build_model(tiny_params(data, model, backbone_checkpoint=str(file), **keys))
    message = str(error.value)
    assert message.startswith(f"backbone_checkpoint: {file}: ") and "\n" not in message
    return message


def test_a_missing_file_is_named(tiny_data: Path, tmp_path: Path) -> None:
    assert "model: No such file" in refused(tiny_data, "TWIN", tmp_path / "missing.model")


def test_what_is_no_checkpoint_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "odd.model"
    file.write_text("not weights")
    assert "not a checkpoint" in refused(tiny_data, "TWIN", file)
    assert "Is a directory" in refused(tiny_data, "TWIN", tmp_path)
    for content in ([torch.zeros(2)], {"epoch": 3}, {0: torch.zeros(2)}, torch.zeros(2)):
        torch.save(content, file)
        assert "holds no weights by name" in refused(tiny_data, "TWIN", file)
    torch.save({}, file)
    assert "has no 'embedding_layer." in refused(tiny_data, "TWIN", file)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"attention_dim": 32}, "size mismatch for "),
        ({"embedding_dim": 4}, "size mismatch for "),
        ({"dnn_hidden_units": [16]}, "has no place in this model"),
        ({"dnn_hidden_units": [128, 64, 32]}, "has no 'classifier.dnn.mlp.6.weight'"),
        ({"batch_norm": True}, "classifier"),
    ],
)
def test_other_sizes_are_refused(keys: dict, message: str, tiny_data: Path, tmp_path: Path) -> None:
    _, file = save_vanilla("TWIN", tiny_data, tmp_path)
    assert message in refused(tiny_data, "TWIN_MoS", file, **keys)


@pytest.mark.parametrize("name", ["SDIM", "TransAct", "Mamba4Rec_MoS", "MIRRN", "MiasRec"])
def test_another_models_weights_are_refused(name: str, tiny_data: Path, tmp_path: Path) -> None:
    _, file = save_vanilla("TWIN", tiny_data, tmp_path)
    assert "has no '" in refused(tiny_data, name, file)


@pytest.mark.parametrize("name", ["TWIN", "SDIM", "TransAct", "MIRRN"])
def test_foreign_weights_are_refused(name: str, tiny_data: Path, tmp_path: Path) -> None:
    """Without one of our names they are taken for LongCTR's, here of a model with other parts."""
    model, file = save_vanilla(name, tiny_data, tmp_path)
    weights = {k: v for k, v in model.state_dict().items() if k.startswith(EMBEDDING)}
    torch.save(weights | {"attention.in_proj_weight": torch.zeros(3, 2)}, file)
    assert "has no '" in refused(tiny_data, name, file)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("MIRRN", {"a_complex_weight": torch.zeros(3)}),
        ("SDIM", {"random_rotations": torch.tensor(1.0)}),
        ("TransAct", {"layers.0.self_attn.in_proj_weight": torch.zeros(2, 3)}),
    ],
)
def test_misshapen_foreign_weights_are_refused(
    name: str, weights: dict[str, torch.Tensor], tiny_data: Path, tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "weights.model")
    assert "LongCTR's model" in refused(tiny_data, name, tmp_path / "weights.model")


def grown(params: dict[str, Any], rows: int) -> dict[str, Any]:
    """The same, with more items than the data set has."""
    columns = [dict(column) for column in params["feature_cols"]]
    (item,) = (column for column in columns if column["name"] == "item_id")
    item["vocab_size"] = rows
    return params | {"feature_cols": columns}


@pytest.mark.parametrize("sparse", [False, True])
def test_a_grown_model_goes_on_with_all_weights(
    sparse: bool, tiny_data: Path, tmp_path: Path
) -> None:
    """Tables keep their first rows, and the codes of the routers stay as they are."""
    options = {"model_root": str(tmp_path), "sparse_embedding": sparse}
    params = tiny_params(tiny_data, "TWIN_MoS", **options)
    old, file = build_model(params, seed=1).eval(), str(tmp_path / "old.model")
    old.save_weights(file)
    table = "embedding_layer.embedding_layer.embedding_layers.item_id.weight"
    size = len(old.state_dict()[table])
    params = grown(params, size + 7)
    fresh = build_model(params, seed=2).state_dict()
    model = build_model(params | {"init_from": file}, seed=2)
    for name, weight in old.state_dict().items():
        found = model.state_dict()[name]
        assert found[: len(weight)].equal(weight) if weight.ndim else found.equal(weight), name
    assert model.state_dict()[table][size:].equal(fresh[table][size:])
    model.feature_map = old.feature_map  # from which the batch of ``predict`` is made
    assert predict(model).equal(predict(old))
    assert [stage.name for stage in model.stages(1.0)] == ["joint"]
    codes = {name: w.clone() for name, w in model.state_dict().items() if "codes" in name}
    model.before_experts(iter([]), 0)
    assert codes and all(model.state_dict()[name].equal(w) for name, w in codes.items())
    with pytest.raises(ValueError, match=r"init_from: .*old\.model: .*item_id"):
        build_model(grown(params, size - 1) | {"init_from": file})
    with pytest.raises(ValueError, match=r"init_from: .*old\.model: .* has no place"):
        build_model(tiny_params(tiny_data, "TWIN", **options, init_from=file))


@pytest.mark.slow
def test_on_the_command_line(tiny_data: Path, tmp_path: Path) -> None:
    """A path is relative to the project, as all are; a run from a checkpoint has two stages."""
    space = Workspace(tmp_path, tiny_data)
    trained = space.file("TWIN_tiny", 1, "model")
    space.change_model("TWIN_MoS_tiny", backbone_checkpoint=str(trained))
    outcome = space.run_expid("--expid", "TWIN_MoS_tiny", "--seed", "1")
    assert outcome.code == 2 and outcome.stderr.startswith("error: ")
    assert f"{trained}: No such file or directory; write the path" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not space.file("TWIN_MoS_tiny", 1, "log").exists()
    outcome = space.run_expid("--expid", "TWIN_tiny", "TWIN_MoS_tiny", "--seed", "1")
    assert outcome.code == 0, outcome.stderr
    stages = [entry["stage"] for entry in space.result("TWIN_MoS_tiny", 1)["stage_log"]]
    assert list(dict.fromkeys(stages)) == ["experts", "joint"]
