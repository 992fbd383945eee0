"""Files of weights and state: damage anywhere is noticed, and the state before the last is kept."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from model_zoo.training.checkpoints import load_backbone
from model_zoo.training.progress import (
    TrainingError,
    digest_of,
    load_state,
    save_atomically,
    save_state,
    state_before,
)

from ...support.helpers import build_model, killed_after, loader, tiny_params

DAMAGES = [*(("flip", seed) for seed in range(12)), *(("cut", seed) for seed in range(12))]


def damage(file: Path, kind: str, seed: int) -> None:
    """Turn one bit of a file over, or cut the file somewhere; most seeds fall near one of its ends."""
    content = bytearray(file.read_bytes())
    where = random.Random(seed).choice(
        [seed, len(content) - 1 - 9 * seed, len(content) * seed // 12]
    )
    if kind == "flip":
        content[where] ^= 1 << random.Random(seed).randrange(8)
    file.write_bytes(content if kind == "flip" else content[:where])


@pytest.mark.parametrize(("kind", "seed"), DAMAGES)
def test_a_damaged_state_is_not_used(
    kind: str, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "run.resume"
    for number in (1, 2):
        save_state({"identity": "mine", "weights": torch.full((20,), number)}, file)
    assert load_state(file)["weights"][0] == 2
    damage(file, kind, seed)
    for _ in range(2):
        assert load_state(file, peek=True)["weights"][0] == 1
    assert not caplog.records
    assert load_state(file)["weights"][0] == 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{file} is damaged") and line.endswith("the state before it is used")
    save_state({"identity": "mine", "weights": torch.full((20,), 3)}, file)
    assert load_state(file)["weights"][0] == 3 and load_state(state_before(file))["weights"][0] == 1


@pytest.mark.parametrize(("kind", "seed"), DAMAGES)
def test_damaged_weights_have_no_digest_or_are_refused(
    kind: str, seed: int, tmp_path: Path
) -> None:
    file = tmp_path / "run.model"
    digest = save_atomically({"weights": torch.ones(20)}, file)
    assert digest_of(file) == digest == save_atomically({"weights": torch.ones(20)}, file)
    assert torch.load(file)["weights"].equal(torch.ones(20))  # as FuxiCTR reads it
    damage(file, kind, seed)
    try:
        assert digest_of(file) != digest
    except TrainingError as error:
        assert str(error).startswith(f"{file} is damaged")


@pytest.fixture
def params(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    return tiny_params(tiny_data, "TWIN", model_root=str(tmp_path), verbose=0)


def fit(params: dict[str, Any], file: Path) -> dict[str, torch.Tensor]:
    model = build_model(params)
    model.fit(
        loader(params, shuffle=True), loader(params, "valid"), epochs=0.4, resume_file=str(file)
    )
    return model.state_dict()


def test_the_state_before_a_damaged_one_gives_the_same_weights(
    params: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params |= {"eval_steps": 4}
    whole = fit(params, tmp_path / "whole")
    file = tmp_path / "killed"
    with killed_after(2):
        fit(params, file)
    damage(file, "flip", 7)
    resumed = fit(params, file)
    assert all(value.equal(resumed[name]) for name, value in whole.items())
    assert "the state before it is used" in caplog.text


def test_a_damaged_checkpoint_is_one_line_at_the_start_of_a_resume(
    params: dict[str, Any], tmp_path: Path
) -> None:
    with killed_after(2):
        fit(params, tmp_path / "state")
    (file,) = tmp_path.rglob("*.model")
    whole = file.read_bytes()
    cut, turned = whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for content, what in ((cut, "not what this run has saved"), (turned, "damaged")):
        file.write_bytes(content)
        with pytest.raises(TrainingError, match=f"{file} is {what}"):
            fit(params, tmp_path / "state")


def test_a_checkpoint_of_another_run_is_not_the_result(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have put its own in the place of this run's."""
    model = build_model(params)
    data = loader(params), loader(params, "valid")
    other = {name: value + 1 for name, value in model.state_dict().items()}
    monkeypatch.setattr(model, "zero_grad", lambda: save_atomically(other, model.checkpoint))
    with pytest.raises(TrainingError, match="is not what this run has saved"):
        model.fit(*data, epochs=0.1)


def test_a_damaged_file_is_no_start_of_a_backbone(params: dict[str, Any], tmp_path: Path) -> None:
    model, file = build_model(params), tmp_path / "start.model"
    save_atomically(model.state_dict(), file)
    load_backbone(model, file)
    with open(file, "r+b") as content:
        content.seek(file.stat().st_size // 2)
        content.write(b"?")
    with pytest.raises(ValueError, match=f"backbone_checkpoint: {file}: .+ is damaged"):
        load_backbone(model, file)
