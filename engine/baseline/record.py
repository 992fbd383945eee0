"""What the counting baseline reached, kept beside the results of the same data set.

Runs, studies and reports read it, so this file imports nothing slow.
"""

from collections.abc import Iterable, Mapping
from os.path import relpath
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from pydantic import Field

from ..common.errors import UserError
from ..common.files import read_json, write_json
from ..common.schema import ABSENT, Metrics, Schema, Share, Size, rule

VERSION = 2  # of what is counted; 2 compares vectors, and tells the running theme
PAYS = 0.005  # the least gain that counts
FILE = "counting_baseline.json"
ALL, NEWEST, TIMES = "all events", "the newest 20 events", "all events and their times"
THEME = "all events, and those of the newest one's theme"
Entry = dict[str, Any]


class Counted(Metrics):
    """The metrics of counts on one split."""

    AUC: Share


class OnSplits(Schema):
    """The metrics of counts by split."""

    __pydantic_extra__: dict[str, Counted]
    valid: Counted
    test: Counted


class Kinds(Schema):
    """The metrics of each kind of counts."""

    __pydantic_extra__: dict[str, OnSplits]
    baseline: Annotated[OnSplits, Field(alias=ALL)]


class Theme(Schema):
    """The feature whose values are the themes, and how far users hop between them."""

    name: str
    kappa: Annotated[float, rule("a number up to 1", lambda kappa: kappa <= 1)]
    returns: Share


class Baseline(Schema):
    """The baseline of one length of histories."""

    metrics: Kinds
    theme: Theme = ABSENT
    version: Size = ABSENT  # 1 lacks it


Length = Annotated[str, rule("a length in digits", str.isdecimal)]
Baselines = dict[str, dict[Length, Baseline]]


def of(results: Path, dataset_hash: str, max_len: int) -> Entry | None:
    """The baseline of some data; None if it was not measured.

    Args:
        results: the folder of the data set's results.
        dataset_hash: the hash of its data.
        max_len: how many events of a history were read.

    Returns:
        ``metrics`` has, for each kind of counts, split and metric, a value; ``ALL`` is the baseline.

    Raises:
        UserError: the file is broken.
    """
    return _read(results / FILE).get(dataset_hash, {}).get(str(max_len))


def is_current(entry: Entry | None) -> bool:
    """Whether an entry is what would be measured today."""
    return entry is not None and entry.get("version", 1) == VERSION


def lengths(results: Path, dataset_hash: str) -> list[int]:
    """The values of ``max_len`` for which the baseline of some data was measured."""
    return sorted(map(int, _read(results / FILE).get(dataset_hash, {})))


def add(results: Path, dataset_hash: str, max_len: int, entry: Entry) -> Path:
    """Keep the baseline of some data; returns the file.

    Raises:
        UserError: the file is broken, or cannot be written.
    """
    path = results / FILE
    known = _read(path)
    known.setdefault(dataset_hash, {})[str(max_len)] = entry
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{results}: cannot be written ({error.strerror})") from None
    write_json(path, known)
    return path


def by_user(metric: str, runs: Iterable[Mapping[str, Any]]) -> bool:
    """Whether runs have a metric as baselines and bounds have it, which know gAUC by user alone."""
    return metric != "gAUC" or all(r["params"].get("group_id") != "group_index" for r in runs)


def rows(entry: Entry) -> dict[str, dict[str, dict[str, float]]]:
    """What tables show beside models: by label, the metrics by split."""
    kinds = {ALL: "counting baseline", TIMES: "counting baseline with times"}
    return {label: entry["metrics"][k] for k, label in kinds.items() if k in entry["metrics"]}


def command(data: Path, results: Path, max_len: int) -> str:
    """The command that measures what ``of`` reads.

    Args:
        data: the folder of the data set.
        results: the folder of its results.
        max_len: how many events of a history are read.
    """
    places = quote(relpath(data)), quote(relpath(results.parent))
    return (
        f"python -m engine.baseline --data {places[0]} --max-len {max_len} --model-root {places[1]}"
    )


def long_history(entry: Entry) -> str:
    """A sentence on what events older than the newest 20 tell; empty if this was not measured."""
    if NEWEST not in entry["metrics"]:
        return ""
    gains = {
        split: entry["metrics"][ALL][split]["AUC"] - entry["metrics"][NEWEST][split]["AUC"]
        for split in ("valid", "test")
    }
    pays = "can be expected to pay" if min(gains.values()) >= PAYS else "need not pay"
    return (
        f"Events older than the newest 20 are worth {gains['test']:+.4f} of test AUC to the counts "
        f"({gains['valid']:+.4f} in validation): as far as ids, categories and vectors tell, a long history "
        f"{pays}."
    )


def worth_of_theme(entry: Entry) -> float | None:
    """The test AUC that the counts gain by knowing which events have the newest one's theme.

    A mixture can gain what its router tells the experts; this is what trees gain from it. None if no
    themes are known.
    """
    if "theme" not in entry or THEME not in entry["metrics"]:
        return None
    found = {kind: entry["metrics"][kind]["test"]["AUC"] for kind in (ALL, THEME)}
    return found[THEME] - found[ALL]


def running_theme(entry: Entry) -> str:
    """A sentence on what the theme of the newest event tells; empty if no themes are known."""
    if (worth := worth_of_theme(entry)) is None:
        return ""
    return (
        f"To know which events have the {entry['theme']['name']} of the newest one is worth {worth:+.4f} of "
        f"test AUC to the counts (kappa {entry['theme']['kappa']:.2f})."
    )


def _read(path: Path) -> dict[str, dict[str, Entry]]:
    return read_json(path, Baselines) if path.exists() else {}
