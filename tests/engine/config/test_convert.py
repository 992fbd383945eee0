"""Values of a configuration, as YAML gives them, become what a signature asks for."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, Union

import pytest

from engine.config.convert import WRONG, convert, describe

RIGHT: list[tuple[Any, Any, Any]] = [
    (float, 1, 1.0),
    (float, "1e-3", 0.001),
    (int, "1e2", 100),
    (int, 3.0, 3),
    (float | None, 1, 1.0),
    (Optional[float], 1, 1.0),  # noqa: UP045
    (Optional[float], None, None),  # noqa: UP045
    (Union[float, str], "l2(1e-4)", "l2(1e-4)"),  # noqa: UP007
    (Literal["sum", "mean"], "mean", "mean"),
    (Literal[1, 2], "2", 2),
    (Literal["off", 1] | None, None, None),
    (list[int], ["64", 32.0], [64, 32]),
    (Sequence[float], [1, 2], [1.0, 2.0]),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (tuple[int, float], [1, 2], (1, 2.0)),
    (tuple[int, ...], [], ()),
    (dict[str, int], {"a": "1e2"}, {"a": 100}),
    (Mapping[str, float], {"a": 1}, {"a": 1.0}),
    (list[Literal["relu"] | None], ["relu", None], ["relu", None]),
    (type[int], "anything", "anything"),  # cannot be checked
    (Any, [1], [1]),
]


@pytest.mark.parametrize(("hint", "value", "expected"), RIGHT, ids=str)
def test_a_value_is_converted(hint: Any, value: Any, expected: Any) -> None:
    found = convert(value, hint)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (Optional[float], "much", "a number, such as 1.e-3 or null"),  # noqa: UP045
        (Literal["sum", "mean"], "max", "sum or mean"),
        (Literal[1, 2], True, "1 or 2"),
        (tuple[int, float], [1], "a list of 2: a whole number, a number, such as 1.e-3"),
        (tuple[int, ...], 3, "a list, each entry a whole number"),
        (dict[str, int], {"a": "b"}, "a mapping, each value a whole number"),
        (dict[str, int], [1], "a mapping, each value a whole number"),
        (int, True, "a whole number"),
        (float, "nan", "a number, such as 1.e-3"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_what_to_write(hint: Any, value: Any, words: str) -> None:
    with pytest.raises(WRONG):
        convert(value, hint)
    assert describe(hint) == words
