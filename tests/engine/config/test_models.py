"""``--model-zoo``: FuxiCTR models of a folder, one package each, as LongCTR's checkout has them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import model_zoo
from engine.common.errors import UserError
from engine.config.models import find_model

from ...support.command_line import Outcome, Workspace, run_expid_often

POOLED = """
import torch
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel


class NAME(BaseModel):
    \"\"\"Target and mean of the history; it writes into its batch, as LongCTR's models do.\"\"\"

    def __init__(self, feature_map, model_id="NAME", gpu=-1, learning_rate=1e-3, embedding_dim=10,
                 hidden=8, scale=1.0, **kwargs):
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        self.width, self.scale = feature_map.sum_emb_out_dim(), scale
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.dnn = MLP_Block(input_dim=2 * self.width, output_dim=1, hidden_units=[hidden],
                             output_activation=self.output_activation)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        _, items, mask = inputs
        for name in items:
            items[name] = items[name].to(self.device)
        x = self.embedding_layer(items, flatten_emb=True).view(len(mask), -1, self.width)
        mask = mask.to(self.device).unsqueeze(-1)
        mean = (x[:, :-1] * mask).sum(1) / mask.sum(1).clamp(min=1)
        return {"y_pred": self.dnn(torch.cat([x[:, -1], self.scale * mean], dim=-1))}
"""
WIDTH = 8 + 8 + 64  # of an item: item_id, cate_id and the image
TABLES = 8 * (301 + 41)


def add_package(folder: Path, name: str, source: str) -> Path:
    """A package as LongCTR's: ``name/name.py``, and an ``__init__.py`` that imports from it."""
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.py").write_text(source)
    (folder / name / "__init__.py").write_text(f"from .{name} import *\n")
    return folder


def parameters(hidden: int) -> int:
    """Of the model ``POOLED``."""
    return TABLES + 2 * WIDTH * hidden + hidden + hidden + 1


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets what other tests have imported by the names here and, afterwards, what this one does."""
    others = [p for p in sys.path if (Path(p) / "TWIN" / "__init__.py").exists()]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in others])
    for name in [n for n in sys.modules if n.split(".")[0] == "TWIN"]:
        monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model ``Pooled``, and the same under the name of one of ours."""
    folder = tmp_path_factory.mktemp("zoo")
    for name in ("Pooled", "TWIN"):
        add_package(folder, name, POOLED.replace("NAME", name))
    return folder


@pytest.fixture(scope="module")
def runs(
    zoo: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, list[Outcome]]:
    """All command lines of this file."""
    space = Workspace(tmp_path_factory.mktemp("runs"), tiny_data)
    pooled = {
        key: space.models["TWIN_tiny"][key] for key in ("dataset_id", "batch_size", "max_len")
    }
    pooled |= {"model": "Pooled", "embedding_dim": 8, "epochs": 1, "hidden": 4}
    space.models["Pooled_tiny"] = pooled | {"note": "free text"}
    space.models["Pooled_wrong"] = pooled | {"scale": "much"}
    space.models["Pooled_odd"] = pooled | {"hidden": "many"}
    space.models["Nothing_tiny"] = pooled | {"model": "Pooled_MoS"}
    for expid in ("TWIN_tiny", "TWIN_MoS_tiny"):
        space.change_model(expid, epochs=1)
    empty = tmp_path_factory.mktemp("empty")
    ours = ("Pooled_tiny", "TWIN_tiny", "TWIN_MoS_tiny")
    jobs = [
        ("--model-zoo", str(zoo), "--expid", *ours),
        ("--model-zoo", str(zoo), "--resume", "--expid", "Pooled_tiny"),
        ("--model-zoo", str(zoo), "--expid", "Pooled_wrong"),
        ("--model-zoo", str(zoo), "--expid", "Nothing_tiny"),
        ("--expid", "Nothing_tiny"),
        ("--model-zoo", str(empty), "--expid", "Pooled_tiny"),
        ("--model-zoo", str(empty / "missing"), "--expid", "Pooled_tiny"),
        ("--resume", "--expid", "TWIN_tiny"),
        ("--model-zoo", str(zoo), "--expid", "Pooled_odd"),
    ]
    return space, run_expid_often([(space, job) for job in jobs])


def test_a_foreign_model_trains(runs: tuple[Workspace, list[Outcome]]) -> None:
    space, (outcome, resumed, *_) = runs
    assert outcome.code == 0, outcome.stderr
    result = space.result("Pooled_tiny", 2024)
    assert result["model"] == "Pooled" and result["num_parameters"] == parameters(hidden=4)
    assert set(result["metrics"]["test"]) == {"AUC", "gAUC", "logloss"}
    assert result["flops_per_sample"] > 0 and result["routing"] == {}
    assert [entry["stage"] for entry in result["stage_log"]] == ["joint"]
    assert "Pooled does not name `note`, which is passed on as it is" in outcome.stderr
    assert "`hidden`" not in outcome.stderr
    assert resumed.code == 0 and "finished already" in resumed.stdout


def test_it_comes_before_ours_of_the_same_name(runs: tuple[Workspace, list[Outcome]]) -> None:
    space, _ = runs
    assert space.result("TWIN_tiny", 2024)["num_parameters"] == parameters(hidden=8)
    assert space.result("TWIN_MoS_tiny", 2024)["routing"]  # not in the folder: ours


@pytest.mark.parametrize(
    ("job", "messages"),
    [
        (2, ("Pooled_wrong, scale: is 'much'", "write a number")),
        (3, ("Nothing_tiny, model: 'Pooled_MoS' is not a model", "Pooled, TWIN", "`Pooled`?")),
        (4, ("Nothing_tiny, model: 'Pooled_MoS' is not a model", "There are: Mamba4Rec, ")),
        (7, ("--resume: model_zoo was '", "is None now")),
        (8, ("Pooled_odd: Pooled's own code fails (TypeError",)),
        (5, ("--model-zoo", "is no folder with a package")),
        (6, ("--model-zoo", "missing: is no folder")),
    ],
)
def test_errors_are_one_line(
    job: int, messages: tuple[str, ...], runs: tuple[Workspace, list[Outcome]]
) -> None:
    code, _, stderr = runs[1][job]
    assert code == 2 and stderr.startswith("error: ") and len(stderr.splitlines()) == 1
    assert all(message in stderr for message in messages), stderr


def test_find_model_looks_in_the_folder_first(zoo: Path, imports: None) -> None:
    foreign = find_model("TWIN", zoo)
    assert foreign.origin.__module__ == "TWIN.TWIN" and foreign.__name__ == "TWIN"
    assert find_model("SDIM", zoo) is model_zoo.SDIM
    assert find_model("TWIN") is model_zoo.TWIN


def test_a_mixture_of_the_user_is_a_model_file(tmp_path: Path, imports: None) -> None:
    code = "from model_zoo.moe.gshard import GShard as Mine\nfrom model_zoo import TWIN\n"
    name = "TWIN_Mine"
    (tmp_path / f"{name}.py").write_text(f"{code}class {name}(TWIN):\n    mixture = Mine\n")
    found = find_model(name, tmp_path)
    assert found.__name__ == name and found.mixture is model_zoo.TWIN_GShard.mixture


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("Broken1", "import no_such_package", r"ModuleNotFoundError: .*no_such_package"),
        ("Broken2", "def f(:", "Broken2 cannot be imported .SyntaxError"),
        ("Broken3", "raise OSError('first line\\nsecond line')", "OSError: first line second line"),
        ("Empty", "", "Empty.Empty is not a FuxiCTR BaseModel"),
        ("Other", "class Other: pass", "Other.Other is not a FuxiCTR BaseModel"),
        ("Value", "Value = 3", "Value.Value is not a FuxiCTR BaseModel"),
    ],
)
def test_a_bad_package_is_named(
    name: str, source: str, message: str, tmp_path: Path, imports: None
) -> None:
    add_package(tmp_path, name, source)
    with pytest.raises(UserError, match=message) as error:
        find_model(name, tmp_path)
    assert str(error.value).startswith(f"--model-zoo {tmp_path}: ")
    assert "\n" not in str(error.value)
