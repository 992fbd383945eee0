"""Imports go one way: commands -> engine -> model_zoo; backbones -> sequence_model -> moe -> layers.

Read from the source, so that a forbidden import inside a function is found too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .command_line import Workspace

ROOT = Path(__file__).parent.parent
FILES = sorted(p.relative_to(ROOT) for p in ROOT.glob("**/*.py") if ".venv" not in p.parts)
STANDARD = set(sys.stdlib_module_names) | {"__future__"}

# What a file may import beside the standard library, by the longest matching prefix.
ALLOWED = {
    "model_zoo/layers": {"torch", "model_zoo.layers"},
    "model_zoo/layers/mamba_kernel.py": {"torch", "mamba_ssm"},
    "model_zoo/layers/segment_kernels.py": {"triton"},
    "model_zoo/moe": {"torch", "model_zoo.layers", "model_zoo.moe"},
    "model_zoo/metrics.py": {"numpy", "fuxictr"},
    "model_zoo/compat.py": {"torch", "fuxictr"},
    "model_zoo/heads.py": {"torch", "fuxictr", "model_zoo.layers"},
    "model_zoo/checkpoints.py": {"torch", "model_zoo.sequence_model"},
    "model_zoo/codebook_init.py": {"torch", "sklearn", "model_zoo.sequence_model"},
    "model_zoo/optimization.py": {
        "torch", "fuxictr", "model_zoo.layers", "model_zoo.row_adam", "model_zoo.staged_model",
    },
    "model_zoo/row_adam.py": {"torch"},
    "model_zoo/routing_report.py": {
        "torch", "model_zoo.moe", "model_zoo.layers", "model_zoo.sequence_model",
        "model_zoo.staged_model",
    },
    "model_zoo/training.py": {
        "torch", "tqdm", "model_zoo.moe", "model_zoo.codebook_init", "model_zoo.optimization",
        "model_zoo.routing_report", "model_zoo.staged_model", "model_zoo.state_files",
    },
    "model_zoo/state_files.py": {"torch"},
    "model_zoo/staged_model.py": {
        "torch", "fuxictr", "model_zoo", "model_zoo.moe", "model_zoo.metrics",
    },
    "model_zoo/sequence_model.py": {
        "torch", "fuxictr", "model_zoo", "model_zoo.checkpoints", "model_zoo.heads",
        "model_zoo.moe", "model_zoo.layers", "model_zoo.optimization", "model_zoo.staged_model",
    },
    "model_zoo/backbones": {
        "torch", "model_zoo.sequence_model", "model_zoo.heads", "model_zoo.moe", "model_zoo.layers",
    },
    "model_zoo/baselines": {
        "torch", "model_zoo.sequence_model", "model_zoo.layers", "model_zoo.baselines",
    },
    "model_zoo": {"model_zoo"},
    "engine": {
        "torch", "numpy", "pyarrow", "polars", "yaml", "tqdm", "fuxictr", "sklearn", "model_zoo",
        "engine",
    },
    "engine/analysis": {"numpy", "polars", "torch", "scipy", "sklearn", "model_zoo", "engine"},
    "engine/analysis/figures": {"numpy", "matplotlib", "engine.analysis", "engine.errors"},
    "engine/analysis/artefacts.py": {"engine"},
    "engine/report": {"jinja2", "markupsafe", "yaml", "engine"},
    "engine/study": {"yaml", "engine"},
    "engine/datasets/hub.py": {"huggingface_hub", "fuxictr", "engine"},
    "engine/bench/growth.py": {"torch", "matplotlib", "model_zoo", "engine"},
    "engine/tuner": {"tqdm", "engine"},
    "engine/tuner/optuna_search.py": {"optuna", "sqlalchemy", "engine"},
    "engine/tuner/ray_engine.py": {"ray", "engine"},
    "data": {"engine"},
    "run_expid.py": {"engine"},
    "run_param_tuner.py": {"engine"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(path.parent.parts)
            base = base[: len(base) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return {name for name in names if name.split(".")[0] not in STANDARD}


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] != "tests"], ids=str)
def test_import_direction(path: Path) -> None:
    prefix = max((p for p in ALLOWED if str(path).startswith(p)), key=len)
    for name in imported(path):
        assert any(name == ok or name.startswith(f"{ok}.") for ok in ALLOWED[prefix]), (
            f"{path} imports {name}; {prefix} may import {sorted(ALLOWED[prefix])}"
        )


def test_the_zoo_needs_no_engine(tmp_path: Path) -> None:
    """``model_zoo`` alone, copied elsewhere, imports and finds its models by name."""
    (tmp_path / "model_zoo").symlink_to(ROOT / "model_zoo")
    code = (
        "from model_zoo import *; import model_zoo; print(eval('TWIN_MoS'), len(model_zoo.MODELS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "<class 'model_zoo.backbones.twin.TWIN_MoS'> 23\n"


def test_a_run_imports_nothing_slow_that_it_does_not_need(tmp_path: Path, tiny_data: Path) -> None:
    """Not torch's compiler (2 s), nor the clustering that only codebooks need."""
    Workspace(tmp_path, tiny_data)
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["run_expid.py", "--config", {str(tmp_path / "experiments")!r}, "--expid", "TWIN_tiny"]
import run_expid
run_expid.main()
print([name for name in ("torch._dynamo", "sklearn.cluster") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")


def test_every_model_is_a_fuxictr_model_found_by_its_name() -> None:
    from fuxictr.pytorch.models import BaseModel

    import model_zoo

    variants = ("", "_GShard", "_DSelectK", "_ExpertChoice", "_MoS")
    names = [b + v for b in ("Mamba4Rec", "TransAct", "TWIN", "SDIM") for v in variants]
    assert list(model_zoo.MODELS) == [*names, "MIRRN", "AttenMixer", "MiasRec"]
    for name, model in model_zoo.MODELS.items():
        assert getattr(model_zoo, name) is model and issubclass(model, BaseModel)


def test_an_unknown_model_names_the_nearest() -> None:
    from model_zoo import get_model

    with pytest.raises(ValueError, match="did you mean TWIN_MoS"):
        get_model("TWIN_Mos")
