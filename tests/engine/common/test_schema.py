"""Files that someone or something has damaged are refused by name, key and value, never with a traceback."""

import copy
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from engine.analysis.catalogue import TABLES
from engine.analysis.results import read_results
from engine.baseline import record
from engine.common.errors import UserError
from engine.common.files import LARGEST, read_json
from engine.common.schema import check
from engine.config.feature_map import build_feature_map
from engine.config.load import load
from engine.config.options import RunOptions
from engine.config.read import describe_experiments, read_yaml
from engine.datasets.forms.mapping_file import as_entry, read_mapping
from engine.datasets.prepared import card, ready_config
from engine.datasets.writing import encoders
from engine.report.groups import embedded, groups
from engine.run.artifacts import RunFiles
from engine.study.experiments import calls, widest
from engine.tuner.folder import Folder
from engine.tuner.leaderboard import Monitor, ranked
from engine.tuner.space import read_space
from engine.tuner.trial import Trial

from ...support.command_line import ROOT
from ...support.fake_results import write_study

KEPT, STUDIED = ROOT / "tests" / "kept", ROOT / "benchmark_results" / "movielens_100k"
FEATURE = {"separator": None, "max_len": 5, "min_count": 1, "column": "", "missing": None}
PRICE = {"source": "item", "name": "price", "kind": "numeric", "mean": 0.5, "deviation": 0.25}
NEGATIVES = {"per_positive": 4, "from": "time", "rate": 0.01, "in_history": [0.1, 0.2]}
TUNER = {"base_config": str(KEPT / "mine" / "config"), "base_expid": "TWIN_mine"}
TUNER |= {"tuner_space": {"learning_rate": [1e-3, 1e-4], "topk": [5, 10]}}
MAPPING = {"input": "log.csv", "user": "u", "item": "i", "time": "t", "label": "l", "train": 0.8}
MAPPING |= {"item_features": ["a", "b:sequence", {"name": "c", "kind": "numeric"}]}
PARAMS = {"seed": 1, "batch_size": 64, "dataset_id": "mine", "model_id": "x", "monitor": "AUC"}


class Kept(NamedTuple):
    """A whole file of one kind, and what reads it."""

    file: Path
    read: Callable[[], Any]


def result(folder: Path) -> Kept:
    shutil.copytree(KEPT / "results", folder / "results")
    return Kept(folder / "results" / "TWIN_MoS_mine_seed1.json", lambda: report(folder / "results"))


def study(folder: Path) -> Kept:
    return Kept(
        write_study(folder, only=("alphas",), seeds=(1,)) / "study.json", lambda: report(folder)
    )


def report(folder: Path) -> None:
    everything = read_results(folder)
    for make in TABLES.values():
        make(everything)
    embedded([group for results in everything for group in groups(results)], folder)
    for results in everything:
        assert all(call.command for call in widest(calls(results)))


def prepared(folder: Path, name: str) -> Kept:
    shutil.copytree(KEPT / "mine", home := folder / "mine")
    options = RunOptions(home / "config", data_root=folder)

    def read() -> None:
        found = card.card_beside(home / "train.parquet")
        card.longest_history(found), ready_config.start(found)
        if {"dataset_id", "splits", "users", "items", "interactions", "hash"} <= found.keys():
            card.describe(found)
        build_feature_map(ready_config.described(home))
        describe_experiments(home / "config")
        for expid in ("TWIN_mine", "TWIN_MoS_mine"):
            params = load(expid, options).params
            build_feature_map(params), RunFiles(params)

    return Kept(home / name, read)


def card_of(folder: Path) -> Kept:
    kept = prepared(folder, "dataset_card.json")
    more = {
        "negatives": NEGATIVES,
        "time_unit": "s",
        "event_cols": [{"name": "a", "vocab_size": 3}],
    }
    kept.file.write_text(json.dumps(json.loads(kept.file.read_text()) | more))
    return kept


def baseline(folder: Path) -> Kept:
    known = json.loads((STUDIED / record.FILE).read_text())
    (folder / record.FILE).write_text(json.dumps(known))

    def read() -> None:
        for dataset_hash in known:
            for length in record.lengths(folder, dataset_hash):
                entry = record.of(folder, dataset_hash, length) or {}
                record.long_history(entry), record.rows(entry)

    return Kept(folder / record.FILE, read)


def trial() -> Trial:
    return Trial("TWIN_x_0123", dict(PARAMS), {"batch_size": 64})


def status(folder: Path) -> Kept:
    done, home = trial(), Folder(folder)
    done.status, done.metrics = "done", {"valid": {"AUC": 0.7}, "test": {"AUC": 0.7}}
    done.changes = {"batch_size": 32, "accumulation_steps": 2}
    (folder / "trials").mkdir()
    home.save(done)

    def read() -> None:
        home.restore(found := trial())
        ranked([found], Monitor(PARAMS))
        found.run_name, found.halve_batch()

    return Kept(folder / "trials" / "TWIN_x_0123.json", read)


def progress(folder: Path) -> Kept:
    files = RunFiles(PARAMS | {"model_root": str(folder / "runs")})
    files.folder.mkdir(parents=True)
    log = json.loads((KEPT / "results" / "TWIN_mine_seed1.json").read_text())["stage_log"]
    files.progress.write_text(json.dumps({"stage_log": log, "fit_seconds": 3.5}))
    own = Trial("x", PARAMS, {})

    def read() -> None:
        assert files.fit_seconds() >= 0
        assert all(f"{entry['epoch']:g}" for entry in Folder(folder).evaluations(own))

    return Kept(files.progress, read)


def encoded(folder: Path) -> Kept:
    spec = {"price": {"source": "item", "type": "numeric"}}
    content = {"features": [spec], "labels": ["label"]}
    (folder / "feature_map.json").write_text(json.dumps(content))
    (folder / "encoders").mkdir()
    (file := folder / "encoders" / "encoders.json").write_text(json.dumps([FEATURE | PRICE]))
    return Kept(file, lambda: encoders.load(folder))


def tuner(folder: Path) -> Kept:
    (file := folder / "tuner.yaml").write_text(yaml.safe_dump(TUNER))
    return Kept(file, lambda: [*read_space(file, RunOptions()).grid()])


def mapping(folder: Path) -> Kept:
    (file := folder / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    return Kept(file, lambda: [as_entry(f) for f in read_mapping(file, {}).item_features])


KINDS: dict[str, Callable[[Path], Kept]] = {
    "result": result,
    "study": study,
    "card": card_of,
    "feature_map": lambda folder: prepared(folder, "feature_map.json"),
    "baseline": baseline,
    "status": status,
    "progress": progress,
    "encoders": encoded,
    "model_config": lambda folder: prepared(folder, "config/model_config.yaml"),
    "dataset_config": lambda folder: prepared(folder, "config/dataset_config.yaml"),
    "tuner": tuner,
    "mapping": mapping,
}
GONE = object()  # in place of a value: the key is deleted
CASES = [
    ("result", "metrics.test.AUC", 1.7, "is 1.7, not a number from 0 to 1"),
    ("result", "metrics.valid.logloss", -0.5, "is -0.5, not a number not below 0"),
    ("result", "metrics.test.gAUC", "0.5", "is '0.5', not a number"),
    ("result", "metrics.test", GONE, "is missing"),
    ("result", "params.max_len", 0, "is 0, not a whole number above 0"),
    ("result", "params.batch_size", 1.5, "is 1.5, not a whole number"),
    ("result", "seed", 2**32, "is 4294967296, not a whole number from 0 to 2**32 - 1"),
    ("result", "seed", True, "is True, not a whole number"),
    ("result", "dataset_id", "../up", "is '../up', not a name without slashes"),
    ("result", "command", "python", "is 'python', not a list"),
    ("result", "command.0", 3, "is 3, not a text"),
    ("result", "versions", GONE, "is missing"),
    ("result", "flops_per_sample", math.inf, "is inf, not a number"),
    ("result", "stage_log", [], "is [], not a list of 1 or more"),
    ("result", "stage_log.1.best", "yes", "is 'yes', not true or false"),
    ("result", "routing.item.item_share", {}, "is {}, not a list"),
    ("result", "bayes", [0] * 99, "is [0, 0, 0, 0, 0, 0, ...], not a mapping"),
    ("study", "cells.0.seeds", GONE, "is missing"),
    ("study", "cells.2.varied.alpha_item", 3, "is 3, not a number from 0 to 1"),
    ("study", "tuning.1.valid.AUC", -1, "is -1, not a number from 0 to 1"),
    ("study", "studies.0.colour", "red", "is no known key"),
    ("card", "splits.test.rows", "many", "is 'many', not a whole number"),
    ("card", "negatives.rate", 0, "is 0, not a number above 0"),
    ("card", "negatives.from", None, "is None, not a text"),
    ("card", "negatives.in_history", [0.1], "is [0.1], not a list of 2 or more"),
    ("card", "event_cols.0.vocab_size", GONE, "is missing"),
    ("feature_map", "features.3.item_id.type", "categoric", "did you mean `categorical`?"),
    ("feature_map", "features.3.item_id.vocab_size", 0, "is 0, not a whole number above 0"),
    ("feature_map", "labels", GONE, "is missing"),
    ("baseline", "8431947040393917.50.metrics.all events", GONE, "is missing"),
    ("baseline", "8431947040393917.50.metrics.all events.test.AUC", 71, "not a number from 0 to 1"),
    ("baseline", "8431947040393917.long", {}, "is 'long', not a length in digits"),
    ("status", "status", "dun", "is 'dun', not one of queued, running, done"),
    ("status", "changes.batch_size", "x" * 99, "...xxxxxxxxxxxxx', not a whole number"),
    ("status", "metrics.valid.AUC", GONE, "lacks AUC of TWIN_x_0123"),
    ("encoders", "0.kind", "numbers", "is 'numbers', not 'categorical'"),
    ("encoders", "0.mean", GONE, "an entry lacks 'mean'"),
    ("tuner", "base_expid", 3, "is 3; write an experiment id"),
    ("mapping", "train", "most", "is 'most'; write a number"),
]  # fmt: skip


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


@pytest.mark.parametrize(("kind", "key", "value", "said"), CASES)
def test_a_damaged_value_is_named(
    kind: str, key: str, value: Any, said: str, tmp_path: Path
) -> None:
    kept = KINDS[kind](tmp_path)
    content = parsed(kept.file.read_text())
    node, (*outer, last) = content, key.split(".")
    for part in outer:
        node = node[int(part) if isinstance(node, list) else part]
    last = int(last) if isinstance(node, list) else last
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    kept.file.write_text(json.dumps(content))  # which is YAML, too
    with pytest.raises(UserError) as raised:
        kept.read()
    message = str(raised.value)
    assert kept.file.name in message and said in message and "\n" not in message
    if "lacks" not in said:
        assert str(last) in message


TEXTS = {
    "torn": '{"seed": 1, "par',
    "empty": "",
    "two": "{}{}",
    "deep list": "[" * 100_000,
    "deep mapping": '{"a":' * 50_000,
    "digits": '{"seed": ' + "9" * 5000 + "}",
    "zero byte": "\x00{}",
    "surrogate": '{"a": "\\ud800"}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_that_is_no_json_is_named_with_its_place(text: str, tmp_path: Path) -> None:
    (file := tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x.json: is no JSON at line 1 column \d+; delete or"):
        read_json(file)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
YAMLS = {
    "deep list": ("a: " + "[" * 100_000, "nested more than 100 deep"),
    "deep mapping": ("a: " + "{a: " * 50_000, "nested more than 100 deep"),
    "deep block": ("a:\n  " + "- " * 50_000 + "x", "nested more than 100 deep"),
    "a billion laughs": (LAUGHS, "more than 1,000,000 values"),
    "a chain of aliases": (CHAIN, "nested more than 100 deep"),
    "an alias inside itself": ("a: &a {<<: *a}", "no anchor 'a' before"),
    "digits": (f"a: {'9' * 5000}", "not valid YAML"),
    "no date": ("a: 2026-13-40", "not valid YAML"),
    "no tag": ("a: !!bool maybe", "a value that it does not fit"),
    "no text": (b"a: \xff", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "said"), YAMLS.values(), ids=YAMLS)
def test_a_text_that_would_end_the_process_is_no_yaml(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    (file := tmp_path / "x.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=r"x.yaml: not valid YAML") as raised:
        read_yaml(file)
    assert said in str(raised.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(LARGEST + 1)  # takes no room
    for read in (read_json, read_yaml):
        with pytest.raises(UserError, match=r"x.json: has 67,108,865 bytes, too many"):
            read(tmp_path / "x.json")


def test_a_value_is_shown_in_60_characters() -> None:
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep] * 9
    for value in ("x" * 999, [{"key": ["x" * 99] * 99}] * 99, 10**4000, deep):
        with pytest.raises(UserError) as raised:
            check("x.json", value, bool, "mend it")
        shown = str(raised.value).removeprefix("x.json: is ").partition(", not true or false")[0]
        assert 20 < len(shown) <= 60


def test_a_metric_may_be_undefined(tmp_path: Path) -> None:
    kept = result(tmp_path)
    content = json.loads(kept.file.read_text())
    content["metrics"]["test"] |= {"AUC": math.nan, "gAUC": 1}
    kept.file.write_text(json.dumps(content))
    kept.read()


WRONG = [
    [], {}, [1], {"a": 1}, "", "x", "a/b", "../up", None, True, 0, -1, 1, 1.5, -0.5, math.nan, math.inf,
    1e308, 10**30, "nan", "[", "l2(1e)", "nn.Linear(3, 4)", "type", "train", {"a": {"b": None}},
]  # fmt: skip


def places(node: Any, at: tuple = ()) -> Iterator[tuple]:
    yield from [at] if at else []
    keys = list(node) if isinstance(node, dict) else range(min(len(node), 3))
    for key in keys if isinstance(node, dict | list) else ():
        yield from (
            places(node[key], (*at, key)) if isinstance(node[key], dict | list) else [(*at, key)]
        )


def mutated(rng: random.Random, text: str) -> str:
    """A text with one or two values gone, changed or under another name, or cut off."""
    if rng.random() < 0.1:
        return text[: rng.randrange(len(text))]
    content = parsed(text)
    for _ in range(rng.choice([1, 1, 2])):
        if not (known := list(places(content))):
            break
        *outer, last = rng.choices(known, [1 / len(place) ** 2 for place in known])[0]
        node = content
        for part in outer:
            node = node[part]
        if (what := rng.random()) < 0.2:
            del node[last]
        elif what < 0.3 and isinstance(node, dict):
            node[rng.choice(["type", "forward", "x", ""])] = node.pop(last)
        else:
            node[last] = copy.deepcopy(rng.choice(WRONG))
    return json.dumps(content)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_gives_a_traceback(kind: str, tmp_path: Path) -> None:
    kept = KINDS[kind](tmp_path)
    kept.read()
    whole, refused = kept.file.read_text(), 0
    for number in range(17):
        kept.file.write_text(mutated(random.Random(f"{kind} {number}"), whole))
        try:
            kept.read()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and "pydantic" not in str(error)
    assert refused or kind == "progress"  # whose reader starts again
