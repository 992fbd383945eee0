"""What the files hold that are read: models of their keys, and errors in the project's words."""

import re
import reprlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import UserError, did_you_mean

ABSENT: Any = None
"""The default of a key that a file may leave out."""


class Schema(BaseModel):
    """A mapping in a file. Its fields are the keys that the code reads; a file may have others.

    A whole number may stand for a fraction, and no value for one of another type.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def rule(what: str, allowed: Callable[[Any], bool], known: Sequence[str] = ()) -> AfterValidator:
    """Allow only some of the values of a type; ``what`` says which in words, ``known`` are some."""

    def check(value: Any) -> Any:
        if not allowed(value):
            raise ValueError(what + did_you_mean(value, known))
        return value

    return AfterValidator(check)


def one_of(*names: str) -> AfterValidator:
    """Allow only these texts."""
    return rule(f"one of {', '.join(names)}", names.__contains__, names)


AnyFloat = Annotated[float, Field(allow_inf_nan=True)]
_of_share = rule("a number from 0 to 1", lambda number: not (number < 0 or number > 1))
_not_below_0 = rule("a number not below 0", lambda number: not number < 0)
Share = Annotated[float, _of_share]
NotBelow0 = Annotated[float, _not_below_0]
Above0 = Annotated[float, rule("a number above 0", lambda number: number > 0)]
Count = Annotated[int, rule("a whole number not below 0", lambda number: number >= 0)]
Size = Annotated[int, rule("a whole number above 0", lambda number: number > 0)]
Seed = Annotated[int, rule("a whole number from 0 to 2**32 - 1", lambda n: 0 <= n < 2**32)]
NAME = r"(?!\.\.?$)[^/\\\0]+"  # of a file or folder, which leads to no other folder
Name = Annotated[str, rule("a name without slashes", re.compile(NAME).fullmatch)]


class Measured(Schema):
    """The metrics whose range is known; one that is undefined is NaN."""

    AUC: Annotated[AnyFloat, _of_share] = ABSENT
    gAUC: Annotated[AnyFloat, _of_share] = ABSENT
    logloss: Annotated[AnyFloat, _not_below_0] = ABSENT


class Metrics(Measured):
    """Metrics and nothing else."""

    __pydantic_extra__: dict[str, AnyFloat]


class Splits(Schema):
    """The metrics on validation and on test data."""

    valid: Metrics
    test: Metrics


# What a value is not, by the kind of pydantic's error or its first word.
WORDS = {
    "model": "a mapping", "dataclass": "a mapping", "dict": "a mapping", "list": "a list", "string": "a text",
    "bool": "true or false", "int": "a whole number", "float": "a number", "finite": "a number",
    "literal": "{expected}", "value": "{error}",
    "too_short": "a list of {min_length} or more", "too_long": "a list of {max_length} or fewer",
}  # fmt: skip
_adapter = cache(TypeAdapter)


def check(file: object, content: Any, form: Any, advice: str) -> Any:
    """Compare the content of a file with what the code reads of it.

    Args:
        file: its name, for the message.
        form: a ``Schema``, or a type of several such as ``list[...]``.
        advice: how to mend a file that is damaged.

    Returns:
        The content as the form has it, such as dataclasses in place of mappings.

    Raises:
        UserError: says which key has which value, and what would be allowed.
    """
    try:
        return _adapter(form).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        kind, seen = first["type"], first["input"]
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        key = "".join(parts).removesuffix(".[key]").removeprefix(".")
        words = WORDS.get(kind) or WORDS.get(kind.partition("_")[0], "allowed")
        what = words.format(**first.get("ctx", {}))
        said = f"is {reprlib.repr(seen):.60}, not {what}"
        if kind in ("missing", "unexpected_keyword_argument"):
            said = "is missing" if kind == "missing" else "is no known key"
        elif kind == "value_error" and isinstance(seen, dict):  # a rule on several keys
            said = what
        where = f"{file}, {key}" if key else file
        raise UserError(f"{where}: {said}; {advice}") from None
