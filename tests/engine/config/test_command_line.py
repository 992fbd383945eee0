"""``--set KEY=VALUE``."""

import pytest

from engine.common.errors import UserError
from engine.config.command_line import parse_changes


def test_values_are_yaml() -> None:
    words = ["max_len=100", "dnn_hidden_units=[64, 32]", "amp=null", "optimizer=SGD", "loss="]
    assert parse_changes(words, {}) == {
        "max_len": 100,
        "dnn_hidden_units": [64, 32],
        "amp": None,
        "optimizer": "SGD",
        "loss": None,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["max_len"], "write KEY=VALUE"),
        (["=3"], "write KEY=VALUE"),
        (["max_len=1", "max_len=2"], "max_len is set twice"),
        (["metrics=[AUC"], r"--set metrics=\[AUC: not valid YAML"),
        (["seed=1"], "cannot be set; write --seed"),
    ],
)
def test_a_word_that_sets_nothing_is_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_changes(words, {"seed": "write --seed"})
    assert words[-1].removesuffix("=1") in str(error.value)
