"""Read a ``Mapping`` from flags, from a YAML file, or from one that comes with the project."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ...common.errors import UserError, did_you_mean
from ...config.convert import WRONG, convert, describe
from ...config.read import read_yaml
from .mapping import WITHOUT_TIMES, Mapping
from .mapping_keys import ROW_ORDER

if TYPE_CHECKING:
    from ..writing.like import Prepared

READY = Path(__file__).parent / "ready"  # a mapping for each public log that is known by name
FEATURES = ("item_features", "user_features", "sample_features")
PATHS = ("input", "test_input", "exposures", "items", "users")
# Keys that are of one log alone.
ONE_LOG = (*PATHS[:3], "partitioned", "source", "time_range", "sample_users")


def typed(where: str, given: dict[str, Any], form: type) -> dict[str, Any]:
    """Values for the fields of a dataclass, each as the type of its field, and no value that is None.

    A text for a list holds its entries with commas between them.

    Raises:
        UserError: a key is no field, or a value is of another kind.
    """
    hints, values = get_type_hints(form), {}
    for name, value in given.items():
        if name not in hints:
            raise UserError(f"{where}: the key {name!r} is unknown{did_you_mean(name, hints)}")
        if value is None:
            continue
        kinds = [get_origin(hint) for hint in (hints[name], *get_args(hints[name]))]
        if isinstance(value, str) and tuple in kinds:
            value = [entry.strip() for entry in value.split(",") if entry.strip()]
        try:
            values[name] = convert(value, hints[name])
        except WRONG:
            raise UserError(
                f"{where}: {name} is {value!r}; write {describe(hints[name])}"
            ) from None
    return values


def as_entry(feature: Any) -> dict[str, Any]:
    """Fields of ``features.Feature``, of which there is a ``name``, a ``column`` and maybe others.

    Args:
        feature: ``name``, ``name:kind`` or a mapping with ``name``.

    Raises:
        UserError: there is no name.
    """
    if isinstance(feature, str):
        name, _, kind = feature.partition(":")
        feature = {"name": name} | ({"kind": kind} if kind else {})
    if not isinstance(feature, dict) or not isinstance(feature.get("name"), str):
        raise UserError(
            f"feature {feature!r} has no name; write a column, column:kind, or "
            "{name: ..., kind: ...}"
        )
    # A dot cannot be in the name of a torch module, and each feature has a module.
    return {"column": feature["name"]} | feature | {"name": feature["name"].replace(".", "_")}


def read_mapping(
    file: str | Path | None, flags: dict[str, Any], like: dict[str, Any] | None = None
) -> Mapping:
    """The mapping of a YAML file and of flags; a flag beats the file.

    Paths in the file start at its folder. In a file of ``READY`` they start at the folder that the flag
    ``input`` names; if it names a file or a pattern instead, that is the input.

    Args:
        like: what holds unless the file or a flag says otherwise.

    Raises:
        UserError: a key is unknown or missing, or two keys contradict each other.
    """
    given = typed("the card", like or {}, Mapping)
    flags = typed("the command line", flags, Mapping)
    if file is not None:
        said, root = typed(str(file), read_yaml(Path(file)), Mapping), Path(file).parent
        if root == READY:
            root = Path(flags.get("input", "."))
            if root.is_dir():
                del flags["input"]
            else:
                root = root.parent
        given |= said | {name: str(root / said[name]) for name in PATHS if name in said}
    given |= flags
    for name in ("input", "user", "item"):
        if name not in given and (name != "item" or "candidates" not in given):
            raise UserError(f"--{name} is missing; the command needs input, user and item")
    if "time" not in given:
        given = WITHOUT_TIMES | given
        if "events_in_row" in given:
            given = {"order": ROW_ORDER} | given
    return Mapping(**given)


def mapping_like(like: "Prepared") -> dict[str, Any]:
    """What columns mean in any log like a data set; features have the kinds that were guessed."""
    mapping = {key: value for key, value in like.card["mapping"].items() if key not in ONE_LOG}
    for key in mapping.keys() & FEATURES:
        entries = [as_entry(entry) for entry in mapping[key]]
        mapping[key] = [e | {"kind": like.kinds.get(e["name"], (0, None))[1]} for e in entries]
    return mapping


def ready_names() -> list[str]:
    """The public logs whose mapping comes with the project."""
    return sorted(file.stem for file in READY.glob("*.yaml"))
