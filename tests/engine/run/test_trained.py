"""Weights to start from must be those of the result beside them."""

import json
from pathlib import Path

import pytest
import torch

from engine.common.errors import UserError
from engine.run.trained import require_weights_of_result
from model_zoo.training.progress import save_atomically

from ...support.command_line import ROOT

KEPT = ROOT / "tests" / "kept" / "results" / "TWIN_MoS_mine_seed1.json"


def test_weights_of_another_run_than_the_result_are_no_start(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.model"
    digest = save_atomically({"w": torch.ones(2)}, checkpoint)
    require_weights_of_result(checkpoint)  # without a result nothing is known
    result = json.loads(KEPT.read_text()) | {"weights": digest}
    (tmp_path / "a.json").write_text(json.dumps(result))
    require_weights_of_result(checkpoint)
    save_atomically({"w": torch.zeros(2)}, checkpoint)
    with pytest.raises(UserError, match=r"init_from: .*a\.model has weights of another run"):
        require_weights_of_result(checkpoint)
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 3] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(UserError, match=r"init_from: .*a\.model is damaged"):
        require_weights_of_result(checkpoint)
