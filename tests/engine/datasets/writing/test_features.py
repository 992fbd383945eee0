"""Encoders of raw columns: ids, sequences, numbers and vectors, learned from training data."""

import numpy as np
import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.writing.encoders import Encoders
from engine.datasets.writing.features import Feature


def encoded(
    feature: Feature, values: list, times: list[int] | None = None, dtype=None
) -> tuple[list, dict]:
    """The written values without the padding row, and the specification."""
    column = pl.Series(feature.name, values, dtype=dtype)
    times_N = np.array(times or [1] * len(values))
    table, specs = Encoders().item_table(pl.DataFrame([column]), [feature], times_N)
    assert table["item_index"].to_list() == list(range(len(values) + 1))
    padding = table[feature.name][0]
    assert np.all(np.asarray(padding) == 0)
    return table[feature.name].to_list()[1:], specs[feature.name]


@pytest.mark.parametrize(
    "values", [["b", "a", None, "b", "c"], [7, 3, None, 7, 9], [True, False, None, True, True]]
)
def test_categories_known_rare_and_missing(values: list) -> None:
    ids, spec = encoded(Feature("x", "categorical"), values, [1, 1, 1, 1, 0])
    assert ids[:4] == [3, 2, 1, 3]
    assert ids[4] == (3 if values[4] == values[0] else 1)  # "c" and 9 are not in the training data
    assert spec["vocab_size"] == 4 and spec["type"] == "categorical" and spec["padding_idx"] == 0
    rare, _ = encoded(Feature("x", "categorical", min_count=2), values, [1, 1, 1, 1, 0])
    assert rare[:4] == [2, 1, 1, 2]


def test_a_column_without_any_value_is_unknown() -> None:
    ids, spec = encoded(Feature("x", "categorical"), [None, None], dtype=pl.String)
    assert ids == [1, 1] and spec["vocab_size"] == 2


def test_sequences_are_padded_and_cut() -> None:
    values = [["a", "b"], [], None, ["c", "a", "b", "d"]]
    ids, spec = encoded(Feature("x", "sequence", max_len=3), values)
    assert ids == [[2, 3, 0], [0, 0, 0], [0, 0, 0], [4, 2, 3]]
    assert spec["max_len"] == 3 and spec["vocab_size"] == 6
    short, spec = encoded(Feature("x", "sequence", max_len=9), values[:3])
    assert short == [[2, 3], [0, 0], [0, 0]] and spec["max_len"] == 2


def test_numbers_are_scaled_by_the_training_data() -> None:
    values = [1.0, 5.0, None, 9.0, float("nan")]
    scaled, spec = encoded(Feature("x", "numeric"), values, [3, 1, 5, 0, 2])
    seen = np.array([1.0, 1.0, 1.0, 5.0])
    expected = (np.array([1.0, 5.0, 9.0]) - seen.mean()) / seen.std()
    assert np.allclose([scaled[0], scaled[1], scaled[3]], expected)
    assert scaled[2] == scaled[4] == 0 and spec == {"source": "item", "type": "numeric"}
    constant, _ = encoded(Feature("x", "numeric"), [4.0, 4.0])
    assert constant == [0, 0]
    infinite, _ = encoded(Feature("x", "numeric"), [1.0, float("inf"), 3.0])
    assert infinite == [-1, 0, 1]


def test_large_numbers_are_scaled_as_small_ones_in_one_part_or_many() -> None:
    rng = np.random.default_rng(0)
    values, times = 1.6e12 + rng.normal(scale=3e3, size=1000), rng.integers(0, 5, size=1000)
    mean = np.average(values, weights=times)
    expected = (values - mean) / np.average((values - mean) ** 2, weights=times) ** 0.5
    encoder = Feature("x", "numeric").encoder()
    for part in np.array_split(np.arange(1000), 7):
        encoder.observe(pl.Series(values[part]), times[part])
    assert np.allclose(encoder.encode(pl.Series(values)), expected, atol=1e-5)


def test_vectors_keep_their_values() -> None:
    values, spec = encoded(Feature("x", "embedding"), [[1.0, 2.5], None, [3.0, 4.0]])
    assert values == [[1.0, 2.5], [0.0, 0.0], [3.0, 4.0]] and spec["embedding_dim"] == 2
    empty, _ = encoded(Feature("x", "embedding"), [[1.0], [], None])
    assert empty == [[1.0], [0.0], [0.0]]
    for bad in ([1.0, float("nan")], [1.0, None]):
        with pytest.raises(UserError, match="missing or infinite"):
            encoded(Feature("x", "embedding"), [[1.0, 2.0], bad])
    with pytest.raises(UserError, match="holds no vector"):
        encoded(Feature("x", "embedding"), [[], None], dtype=pl.List(pl.Float32))
    with pytest.raises(UserError, match="vectors of 3 and of 2"):
        encoded(Feature("x", "embedding"), [[1.0, 2.0], [1.0, 2.0, 3.0]])
