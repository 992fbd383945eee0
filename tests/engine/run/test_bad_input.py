"""Bad input of the command lines: exit code 2, one clear message, and nothing written.

Commands run in processes of their own. Most mistakes in parameters and data share one process
(``run_expid_often``), for importing torch takes longer than all of them; one of each kind is
repeated alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from engine.config.load import load
from engine.config.options import RunOptions
from engine.run.experiment import code_of
from model_zoo.training.progress import save_atomically

from ...support.command_line import ROOT, Outcome, Workspace, run_expid_often, snapshot

Spoil = Callable[[Workspace], None]
Frame = Callable[[pl.DataFrame], pl.DataFrame]
ONE_RUN = ("--expid", "TWIN_tiny", "--seed", "1")
EARLIER = {"json": '{"status": "done"}', "model": "weights", "log": "lines"}


class Case(NamedTuple):
    """A mistake, and what the message must say about it.

    Attributes:
        spoil: makes the mistake in a workspace.
        says: parts of the message.
        arguments: of ``run_expid.py``.
    """

    spoil: Spoil
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ONE_RUN


# ---------------------------------------------------------------- ways to spoil a workspace


def nothing(space: Workspace) -> None:
    """The mistake is in the arguments."""


def keys(expid: str = "TWIN_tiny", **changes: Any) -> Spoil:
    """Give an experiment other keys."""
    return lambda space: space.change_model(expid, **changes)


def dataset(**changes: Any) -> Spoil:
    """Give the data set other keys."""
    return lambda space: space.change_dataset(**changes)


def no_key(*names: str) -> Spoil:
    """Take keys away, wherever they are."""

    def spoil(space: Workspace) -> None:
        for entry in (*space.models.values(), *space.datasets.values()):
            for name in names:
                entry.pop(name, None)
        space.save()

    return spoil


def entry(name: str, value: Any) -> Spoil:
    """Replace all keys of an experiment, of ``Base`` or of the data set."""

    def spoil(space: Workspace) -> None:
        (space.models if name in space.models else space.datasets)[name] = value
        space.save()

    return spoil


def feature(name: str, **changes: Any) -> Spoil:
    """Describe a feature of the data set in another way."""

    def spoil(space: Workspace) -> None:
        columns = space.datasets["tiny"]["feature_cols"]
        changed = [c | changes if c["name"] == name else c for c in columns]
        space.change_dataset(feature_cols=changed)

    return spoil


def frame(file: str, edit: Frame, **options: Any) -> Spoil:
    """Write a file of the data set again, edited."""

    def spoil(space: Workspace) -> None:
        path = space.data / f"{file}.parquet"
        edit(pl.read_parquet(path)).write_parquet(path, **options)
        space.renew_card()

    return spoil


def cell(file: str, column: str, row: int, value: Any) -> Spoil:
    """Replace one value; a function gets the old one."""

    def edit(table: pl.DataFrame) -> pl.DataFrame:
        values = table[column].to_list()
        values[row] = value(values[row]) if callable(value) else value
        return table.with_columns(pl.Series(column, values, table[column].dtype))

    return frame(file, edit)


def without(file: str, column: str) -> Spoil:
    """Drop a column."""
    return frame(file, lambda table: table.drop(column))


def content(file: str, edit: Callable[[bytes], bytes]) -> Spoil:
    """Edit the bytes of a file of the data set."""

    def spoil(space: Workspace) -> None:
        path = space.data / file
        path.write_bytes(edit(path.read_bytes()))

    return spoil


def missing(file: str) -> Spoil:
    """Delete a file of the data set."""
    return lambda space: (space.data / file).unlink()


def started_with(**changes: Any) -> Spoil:
    """Leave a killed run that began with other parameters."""

    def spoil(space: Workspace) -> None:
        params = load("TWIN_tiny", RunOptions(space.config, seed=1)).params
        identity = json.dumps(params | code_of() | changes)
        save_atomically({"identity": identity}, space.file("TWIN_tiny", 1, "resume"))

    return spoil


def finished_with(**changes: Any) -> Spoil:
    """Leave a finished run of other parameters."""

    def spoil(space: Workspace) -> None:
        params = load("TWIN_tiny", RunOptions(space.config, seed=1)).params
        result = json.loads((ROOT / "tests/kept/results/TWIN_mine_seed1.json").read_text())
        result["params"] = params | changes
        space.file("TWIN_tiny", 1, "json").write_text(json.dumps(result))

    return spoil


def checkpoints_below_a_file(space: Workspace) -> None:
    (space.folder / "a_file").write_text("")
    space.change_model("TWIN_tiny", model_root=str(space.folder / "a_file" / "checkpoints"))


def yaml(text: str | bytes) -> Spoil:
    """Append to model_config.yaml, or replace it by bytes."""

    def spoil(space: Workspace) -> None:
        path = space.config / "model_config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else path.read_bytes() + text.encode())

    return spoil


# ---------------------------------------------------------------- mistakes

MODEL_CONFIG = "model_config.yaml: not valid YAML"
# Told without torch, and so at once: each of these runs in a process of its own.
TEXTS = {
    "duplicate key": Case(
        yaml("X: {model: TWIN, topk: 1, topk: 2}\n"), (MODEL_CONFIG, "duplicate key 'topk'", "line")
    ),
    "duplicate expid": Case(
        yaml("TWIN_tiny: {model: TWIN}\n"), (MODEL_CONFIG, "duplicate key 'TWIN_tiny'", "line")
    ),
    "broken YAML": Case(yaml("X: {model: TWIN\n"), (MODEL_CONFIG, "expected ',' or '}'", "line")),
    "number as key": Case(
        yaml("3: {model: TWIN}\n"), (MODEL_CONFIG, "write a number in quotes", "line")
    ),
    "list as key": Case(yaml("? [a, b]\n: 1\n"), (MODEL_CONFIG, "a key must be a text", "line")),
    "object that runs code": Case(
        yaml("X: !!python/object/apply:os.mkdir [pwned]\n"), (MODEL_CONFIG, "os.mkdir", "line")
    ),
    "not a text file": Case(yaml(b"\xff\xfe\x00"), (MODEL_CONFIG, "utf-8")),
    "empty file": Case(yaml(b""), ("model_config.yaml: must map keys to values",)),
    "no such configuration": Case(
        nothing,
        ("--config nowhere: has no model_config.yaml", "name a configuration directory"),
        ("--config", "nowhere", *ONE_RUN),
    ),
}
ENTRIES = {
    "unknown expid": Case(
        nothing,
        (
            "--expid TWIN_tinny: is not in ",
            "did you mean `TWIN_tiny`?",
            "run_expid.py --config ",
            "--list shows all",
        ),
        ("--expid", "TWIN_tinny"),
    ),
    "expid without keys": Case(entry("TWIN_tiny", None), ("TWIN_tiny: is None", "map keys")),
    "Base is a text": Case(entry("Base", "x"), ("Base: is 'x'", "map keys to values")),
    "unknown dataset_id": Case(
        keys(dataset_id="tinny"),
        ("TWIN_tiny: dataset_id 'tinny' is not in dataset_config.yaml", "did you mean `tiny`?"),
    ),
    "dataset_id is a list": Case(keys(dataset_id=["tiny"]), ("TWIN_tiny: dataset_id",)),
    "dataset_id is missing": Case(no_key("dataset_id"), ("TWIN_tiny: dataset_id is missing",)),
    "data set without keys": Case(entry("tiny", None), ("tiny: is None", "map keys to values")),
}
PARAMETERS = {
    "unknown key": Case(
        keys(lerning_rate=1e-3),
        ("TWIN_tiny: unknown key `lerning_rate` for TWIN", "did you mean `learning_rate`?"),
    ),
    "key of the mixture": Case(
        keys(num_experts=5), ("unknown key `num_experts` for TWIN", "it is a key of TWIN_MoS")
    ),
    "unknown key of the data set": Case(
        dataset(trian_data="x"), ("unknown key `trian_data`", "did you mean `train_data`?")
    ),
    "unknown model": Case(
        keys(model="TWIN_MOS"), ("TWIN_tiny, model: 'TWIN_MOS'", "did you mean TWIN_MoS?")
    ),
    "model is a number": Case(keys(model=5), ("TWIN_tiny, model: '5'", "There are: Mamba4Rec, ")),
    "text for a number": Case(
        keys(learning_rate="fast"), ("TWIN_tiny, learning_rate: is 'fast'; write a number",)
    ),
    "not a number": Case(
        keys(learning_rate=float("nan")), ("TWIN_tiny, learning_rate: is nan; write a number",)
    ),
    "infinite": Case(
        keys(max_gradient_norm="inf"), ("TWIN_tiny, max_gradient_norm: is 'inf'; write a number",)
    ),
    "dropout of everything": Case(
        keys(attention_dropout=1), ("TWIN_tiny, attention_dropout: is 1.0", "from 0 to below 1")
    ),
    "text for a whole number": Case(
        keys(topk="many"), ("TWIN_tiny, topk: is 'many'; write a whole number",)
    ),
    "fraction for a whole number": Case(
        keys(topk=2.5), ("TWIN_tiny, topk: is 2.5; write a whole number",)
    ),
    "number for a list": Case(
        keys(dnn_hidden_units=32), ("TWIN_tiny, dnn_hidden_units: is 32; write a list",)
    ),
    "missing keys": Case(
        no_key("model_root", "valid_data", "batch_size", "learning_rate", "group_id"),
        (
            "TWIN_tiny: these keys are missing: `model_root`, `valid_data`, `batch_size`, `learning_rate`, "
            "`group_id` (gAUC needs it, write user_index)\n",
        ),
    ),
    "another folder for results is no other missing key": Case(
        no_key("model_root", "seed"),
        ("TWIN_tiny: these keys are missing: `seed`\n",),
        ("--expid", "TWIN_tiny", "--model-root", "out"),
    ),
    "metric in another case": Case(
        keys(metrics=["auc"]), ("TWIN_tiny, metrics: 'auc'", "did you mean `AUC`?")
    ),
    "monitor in another case": Case(
        keys(monitor="auc"), ("TWIN_tiny, monitor: 'auc' is not one of", "did you mean `AUC`?")
    ),
    "weight of the monitor": Case(
        keys(monitor={"AUC": "one"}), ("monitor: is {'AUC': 'one'}; write a text or a mapping",)
    ),
    "calibration as monitor": Case(
        keys(metrics=["calibration"], monitor="calibration"), ("calibration is best at 1",)
    ),
    "a loss that is to grow": Case(
        keys(monitor={"AUC": 1, "logloss": 1}),
        ("TWIN_tiny, monitor: mode max would keep the worst logloss; change its sign",),
    ),
    "rate of negatives": Case(
        keys(negative_sampling_rate=0), ("negative_sampling_rate: is 0.0; write a number above 0",)
    ),
    "unknown span of matches": Case(
        keys(match_span="long"), ("TWIN_tiny, match_span: is 'long'; write",)
    ),
    "window of no time": Case(
        keys(match_windows=[60, 0]), ("match_windows: is [60.0, 0.0]; write a number above 0",)
    ),
    "start that runs code": Case(
        keys(embedding_initializer="open('pwned', 'w')"), ("embedding_initializer: is", "nn.init.")
    ),
    "empty monitor": Case(keys(monitor={}), ("TWIN_tiny, monitor: is empty",)),
    "monitor without weight": Case(keys(monitor={"AUC": 0}), ("TWIN_tiny, monitor: is empty or",)),
    "gAUC without group_id": Case(keys(group_id=None), ("group_id", "gAUC", "write user_index")),
    "unknown group_id": Case(keys(group_id="user"), ("group_id: 'user'", "features of tiny")),
    "nothing groups samples": Case(
        keys(group_id="group_index"),
        ("group_id: 'group_index' is not one of the features of tiny", "name it in feature_cols"),
    ),
    "loss that runs code": Case(keys(loss="open('pwned', 'w')"), ("TWIN_tiny, loss: is ",)),
    "metric that runs code": Case(keys(metrics=["open('pwned', 'w')"]), ("TWIN_tiny, metrics: ",)),
    "regularizer that runs code": Case(
        keys(net_regularizer="open('pwned', 'w')"), ("net_regularizer: is", "write a number, l1(x)")
    ),
    "encoder that runs code": Case(
        feature("image_emb_dim64", feature_encoder="open('pwned', 'w')"),
        ("tiny, feature_cols, 'image_emb_dim64': feature_encoder is", "write one of nn.Identity()"),
    ),
    "encoder is a number": Case(
        feature("image_emb_dim64", feature_encoder=5), ("'image_emb_dim64': feature_encoder is 5",)
    ),
    "type of a feature": Case(
        feature("item_id", type="categorial"), ("'item_id': type is 'categorial'", "categorical")
    ),
    "key of a feature": Case(
        feature("image_emb_dim64", embeding_dim=64),
        ("tiny, feature_cols, 'image_emb_dim64': unknown key `embeding_dim`", "`embedding_dim`?"),
    ),
    "features to use": Case(
        keys(use_features=["item_id"]), ("use_features: is ['item_id']", "null")
    ),
    "format of the data": Case(dataset(data_format="csv"), ("data_format: is 'csv'", "prepare.py")),
    "feature without name": Case(
        dataset(feature_cols=["item_id"]),
        ("TWIN_tiny, feature_cols: is ['item_id']; write a list, each entry a mapping",),
    ),
    "label without name": Case(
        dataset(label_col={"dtype": "float"}), ("tiny, label_col: ", "has no name")
    ),
    "vocab_size is a text": Case(
        feature("item_id", vocab_size="all"), ("'item_id': vocab_size is 'all'", "whole number")
    ),
    "optimizer": Case(keys(optimizer="adamm"), ("TWIN_tiny, optimizer: is 'adamm'", "adam")),
    "activation": Case(keys(dnn_activations="relo"), ("dnn_activations: is 'relo'", "relu")),
    "task": Case(keys(task="regression"), ("task: is 'regression'", "binary_classification")),
    "padding": Case(keys(padding="post"), ("padding is 'post'", "write pre")),
    "topk 0": Case(keys(topk=0), ("TWIN_tiny, topk=0 is too small",)),
    "heads": Case(
        keys(attention_dim=64, num_heads=3),
        ("TWIN_tiny, attention_dim=64 is not divisible by num_heads=3; write a multiple",),
    ),
    "short_seq_len 1": Case(keys(short_seq_len=1), ("TWIN_tiny, short_seq_len=1", "write 2")),
    "router_topk beyond num_experts": Case(
        keys("TWIN_MoS_tiny", router_topk=6),
        ("TWIN_MoS_tiny, router_topk=6 is not possible with num_experts=5; write 1 to 5",),
        ("--expid", "TWIN_MoS_tiny"),
    ),
    "window_stride 0": Case(
        keys("TWIN_MoS_tiny", window_stride=0),
        ("TWIN_MoS_tiny, ", "window_stride=0"),
        ("--expid", "TWIN_MoS_tiny"),
    ),
    "negative warm-up": Case(
        keys("TWIN_MoS_tiny", backbone_warmup_epochs=-1),
        ("TWIN_MoS_tiny, backbone_warmup_epochs: is -1.0; write a number not below 0",),
        ("--expid", "TWIN_MoS_tiny"),
    ),
    "negative seed": Case(
        nothing, ("TWIN_tiny, seed: is -1; write",), ("--expid", "TWIN_tiny", "--seed", "-1")
    ),
    "second expid": Case(
        keys("TWIN_MoS_tiny", num_expert=5),
        ("TWIN_MoS_tiny: unknown key `num_expert`", "did you mean `num_experts`?"),
        ("--expid", "TWIN_tiny", "TWIN_MoS_tiny", "--seed", "1"),
    ),
    "no CUDA": Case(nothing, ("--gpu 0", "0 CUDA devices", "--gpu -1"), (*ONE_RUN, "--gpu", "0")),
    "model_root": Case(
        checkpoints_below_a_file, ("model_root: ", "a_file/checkpoints/tiny cannot be written")
    ),
    "resume with another parameter": Case(
        started_with(learning_rate=0.5),
        ("--resume: learning_rate was 0.5", "is 0.001 now", "without --resume"),
        (*ONE_RUN, "--resume"),
    ),
    "resume of a finished run with another parameter": Case(
        finished_with(learning_rate=0.5),
        ("--resume: learning_rate was 0.5", "is 0.001 now", "without --resume"),
        (*ONE_RUN, "--resume"),
    ),
} | {
    f"{key} {value}": Case(keys(**{key: value}), (f"TWIN_tiny, {key}: is ", "a number above 0"))
    for key, value in (
        ("batch_size", 0),
        ("max_len", 0),
        ("epochs", 0),
        ("early_stop_patience", 0),
        ("eval_steps", -1),
        ("learning_rate", -1),
        ("accumulation_steps", 0),
        ("max_gradient_norm", 0),
        ("embedding_dim", 0),
        ("dnn_hidden_units", [8, -8]),
        ("attention_dim", -64),
        ("num_heads", 0),
    )
}
DATA = {
    "missing file": Case(missing("valid.parquet"), ("valid.parquet does not exist", "prepare")),
    "missing feature map": Case(
        missing("feature_map.json"),
        ("tiny, feature_cols, 'item_id': vocab_size", "feature_map.json"),
    ),
    "broken feature map": Case(
        content("feature_map.json", lambda old: b"[]"),
        ("feature_map.json: is [], not a mapping; prepare the data again",),
    ),
    "broken card": Case(
        content("dataset_card.json", lambda old: old[:20]),
        ("dataset_card.json: is no JSON at line 2",),
    ),
    "changed file": Case(
        lambda space: (
            pl.read_parquet(file := space.data / "valid.parquet").reverse().write_parquet(file)
        ),
        ("data/tiny: the files have the hash", "damaged or edited", "check", "--renew"),
    ),
    "file cut in half": Case(
        content("user_info.parquet", lambda old: old[: len(old) // 2]),
        ("user_info.parquet is not a whole parquet file", "copy it again"),
    ),
    "column of train": Case(
        without("train", "seq_len"),
        ("train.parquet: column 'seq_len' is missing; there are user_index, item_index",),
    ),
    "label": Case(without("test", "is_click"), ("test.parquet: column 'is_click' is missing",)),
    "column of user_info": Case(
        without("user_info", "full_item_seq"),
        ("user_info.parquet: column 'full_item_seq' is missing",),
    ),
    "column of item_info": Case(
        frame("item_info", lambda table: table.rename({"cate_id": "cat_id"})),
        ("item_info.parquet: column 'cate_id' is missing", "did you mean `cat_id`?"),
    ),
    "no samples": Case(
        frame("valid", lambda table: table.head(0)), ("valid.parquet: has no samples",)
    ),
    "item of a sample": Case(
        cell("train", "item_index", 7, 9999),
        ("train.parquet, column item_index, row 7: the value is 9999, which is outside 1 to 300",),
    ),
    "padding as target": Case(
        cell("train", "item_index", 8, 0),
        ("train.parquet, column item_index, row 8: the value is 0",),
    ),
    "item of a history": Case(
        cell("user_info", "full_item_seq", 30, lambda old: [*old, 9999]),
        ("user_info.parquet, column full_item_seq, row 30: the item index 9999", "1 and 300"),
    ),
    "user": Case(
        cell("valid", "user_index", 3, 60),
        ("valid.parquet, column user_index, row 3: the value is 60, which is outside 0 to 59",),
    ),
    "label 2": Case(
        cell("test", "is_click", 5, 2), ("test.parquet, column is_click, row 5: the label is 2",)
    ),
    "label is missing": Case(
        cell("test", "is_click", 6, None), ("test.parquet, column is_click, row 6", "write 0 or 1")
    ),
    "seq_len": Case(
        cell("train", "seq_len", 11, 5000),
        (
            "train.parquet, column seq_len, row 11: the value is 5000, but in ",
            "items",
        ),
    ),
    "negative seq_len": Case(
        cell("train", "seq_len", 12, -1),
        ("train.parquet, column seq_len, row 12: the value is -1",),
    ),
    "seq_len is missing": Case(
        cell("train", "seq_len", 13, None),
        ("train.parquet, column seq_len, row 13: the value is missing",),
    ),
    "NaN": Case(
        cell("item_info", "image_emb_dim64", 12, lambda old: [*old[:-1], float("nan")]),
        ("item_info.parquet, column image_emb_dim64, row 12: the value is nan", "fill it in"),
    ),
    "width": Case(
        cell("item_info", "image_emb_dim64", 13, lambda old: old[:-1]),
        ("column image_emb_dim64, row 13: the list has 63 values, but embedding_dim is 64",),
    ),
    "width in the configuration": Case(
        feature("image_emb_dim64", embedding_dim=32),
        ("column image_emb_dim64, row 0: the list has 64 values, but embedding_dim is 32",),
    ),
    "vocabulary": Case(
        cell("item_info", "item_id", 20, 301),
        (
            "item_info.parquet, column item_id, row 20: the value is 301, which is outside 0 to 300",
            "vocab_size",
        ),
    ),
    "padding row": Case(
        cell("item_info", "cate_id", 0, 1),
        ("item_info.parquet, column cate_id, row 0: the value is [1]", "must be zero"),
    ),
    "order of items": Case(
        cell("item_info", "item_index", 9, 10),
        ("item_info.parquet, column item_index, row 9: the value is 10", "numbered 0, 1, 2"),
    ),
    "order of users": Case(
        cell("user_info", "user_index", 4, 9),
        ("user_info.parquet, column user_index, row 4: the value is 9", "numbered 0, 1, 2"),
    ),
    "user_index is missing": Case(
        cell("user_info", "user_index", 5, None),
        ("user_info.parquet, column user_index, row 5: the value is missing",),
    ),
    "text for an index": Case(
        frame("train", lambda table: table.cast({"user_index": pl.String})),
        ("train.parquet, column user_index is ", "it must hold whole numbers"),
    ),
} | {
    f"damaged {file}": Case(
        content(f"{file}.parquet", lambda old: old[:40] + b"\xff" * 160 + old[200:]),
        (f"{file}.parquet is not a whole parquet file", "copy it again"),
    )
    for file in ("train", "user_info", "item_info")
}
# Found only while training runs: log and state are there then, but no result.
LATE = {
    "streamed label": Case(
        lambda space: (
            keys(streaming=True)(space),
            cell("train", "is_click", 250, 2)(space),
            frame("train", lambda table: table, row_group_size=100)(space),
        )[0],
        ("train.parquet, column is_click, row 250: the label is 2",),
    ),
    "divergence": Case(
        keys(learning_rate=1e30, max_gradient_norm=1e30),
        ("TWIN_tiny, seed 1: the training loss became", "lower learning_rate"),
    ),
    "labels of one kind": Case(
        frame("valid", lambda table: table.with_columns(is_click=pl.lit(1))),
        ("TWIN_tiny, seed 1: validation in stage joint", "all labels are the same"),
    ),
}
RUN = ENTRIES | PARAMETERS | DATA
ALONE = ("unknown expid", "unknown key", "text for a number", "item of a sample", "model_root")
ACCEPTED = {
    "text as number": (keys(learning_rate="1e-3", epochs="1", topk="20", eval_steps=None), ONE_RUN),
    "preset of presets": (
        yaml("a: &a {topk: 1}\nb: &b {<<: *a, topk: 2}\nc: {<<: *b, topk: 3}\n"),
        ("--list",),
    ),
}


# ---------------------------------------------------------------- run_expid.py


def prepared(folder: Path, data: Path, spoil: Spoil) -> Workspace:
    """A spoiled workspace with an earlier finished run of ``TWIN_tiny``."""
    space = Workspace(folder, data)
    space.file("TWIN_tiny", 1, "json").parent.mkdir(parents=True)
    for suffix, text in EARLIER.items():
        space.file("TWIN_tiny", 1, suffix).write_text(text)
    spoil(space)
    return space


def is_one_error(outcome: Outcome, says: tuple[str, ...]) -> None:
    """Assert exit code 2 and one line on stderr, with all parts."""
    assert "Traceback" not in outcome.stdout + outcome.stderr
    assert outcome.code == 2, outcome
    assert outcome.stderr.startswith("error: ")
    assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
    for part in says:
        assert part in outcome.stderr


class Finished(NamedTuple):
    """A run, and the files before and after it."""

    space: Workspace
    outcome: Outcome
    before: dict[str, bytes | None]
    after: dict[str, bytes | None]


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """All cases that share a process."""
    todo = {name: (case.spoil, case.arguments) for name, case in (RUN | LATE).items()} | ACCEPTED
    jobs = [
        (prepared(tmp_path_factory.mktemp("run"), tiny_data, spoil), arguments)
        for spoil, arguments in todo.values()
    ]
    before = [snapshot(space.folder) for space, _ in jobs]
    outcomes = run_expid_often(jobs)
    return {
        name: Finished(space, outcome, files, snapshot(space.folder))
        for name, (space, _), outcome, files in zip(todo, jobs, outcomes, before, strict=True)
    }


@pytest.mark.parametrize("name", RUN)
def test_mistake_is_one_message_and_writes_nothing(name: str, runs: dict[str, Finished]) -> None:
    is_one_error(runs[name].outcome, RUN[name].says)
    assert runs[name].after == runs[name].before


@pytest.mark.parametrize("name", LATE)
def test_late_failure_keeps_the_earlier_result(name: str, runs: dict[str, Finished]) -> None:
    is_one_error(runs[name].outcome, LATE[name].says)
    new = set(runs[name].after) - set(runs[name].before)
    state = "checkpoints/tiny/TWIN_tiny_seed1.resume"
    assert new <= {state, f"{state}.before"}
    for suffix in ("json", "model"):
        assert runs[name].space.file("TWIN_tiny", 1, suffix).read_text() == EARLIER[suffix]


def test_text_is_accepted_for_a_number(runs: dict[str, Finished]) -> None:
    run = runs["text as number"]
    assert run.outcome.code == 0, run.outcome.stderr
    params = run.space.result("TWIN_tiny", 1)["params"]
    assert (params["learning_rate"], params["epochs"], params["topk"]) == (1e-3, 1, 20)
    assert isinstance(params["learning_rate"], float) and isinstance(params["topk"], int)


def test_key_that_overrides_a_preset_is_no_duplicate(runs: dict[str, Finished]) -> None:
    run = runs["preset of presets"]
    assert run.outcome.code == 0, run.outcome.stderr
    assert "TWIN_tiny" in run.outcome.stdout


@pytest.mark.parametrize(
    "name", [*TEXTS, *(pytest.param(name, marks=pytest.mark.slow) for name in ALONE)]
)
def test_mistake_in_a_process_of_its_own(name: str, tiny_data: Path, tmp_path: Path) -> None:
    case = (TEXTS | RUN)[name]
    space = prepared(tmp_path, tiny_data, case.spoil)
    before = snapshot(tmp_path)
    is_one_error(space.run_expid(*case.arguments), case.says)
    assert snapshot(tmp_path) == before
