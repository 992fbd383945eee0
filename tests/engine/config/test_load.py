"""An experiment learns from the card of its data how negatives were sampled."""

from __future__ import annotations

import json
from pathlib import Path

from engine.config.load import load
from engine.config.options import RunOptions

from ...support.command_line import Workspace


def test_the_rate_of_negatives_comes_from_the_card_unless_the_configuration_has_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    space = Workspace(tmp_path, tiny_data)
    options = RunOptions(space.config)
    assert "negative_sampling_rate" not in load("TWIN_tiny", options).params
    card = space.data / "dataset_card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"negatives": {"rate": 0.002}}))
    assert load("TWIN_tiny", options).params["negative_sampling_rate"] == 0.002
    space.change_model("TWIN_tiny", negative_sampling_rate=0.5)
    assert load("TWIN_tiny", options).params["negative_sampling_rate"] == 0.5
