"""Imports go one way and never in a circle: commands -> engine -> model_zoo, and within each.

Read from the source, so that an import inside a function or for typing only counts as well.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_zoo.registry import model_names

from .support.command_line import Workspace

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT)
    for top in ("model_zoo", "engine", "data", ".")
    for path in ROOT.glob(f"{top}/*.py" if top in ("data", ".") else f"{top}/**/*.py")
)

# The rooms of the zoo from the top floor down: a file imports from its own room and from lower ones.
FLOORS = (
    ("registry",),
    ("backbones", "baselines"),
    ("serving",),
    ("sequence_model",),
    ("training",),
    ("moe", "heads", "embedding"),
    ("layers",),
    ("history",),
    ("ops",),
    ("compat", "batch", "atomic", "ranks"),
)
# The folders of ``engine/datasets`` likewise.
DATA_FLOORS = ("command", "forms", "writing", "prepared", "raw")
# What a room may import beside the standard library, the project and torch, by the longest prefix.
ALLOWED = {
    "model_zoo": {"fuxictr"},
    "model_zoo/ops": {"triton", "mamba_ssm"},
    "model_zoo/history": set(),
    "model_zoo/layers": set(),
    "model_zoo/moe": set(),
    "model_zoo/moe/codebook.py": {"numpy", "sklearn"},
    "model_zoo/training": {"fuxictr", "numpy", "tqdm"},
    "engine": {"numpy", "pyarrow", "polars", "yaml", "tqdm", "fuxictr", "sklearn", "pydantic"},
    "engine/common": {"yaml", "pydantic", "pydantic_core"},
    "engine/analysis": {"numpy", "polars", "scipy", "sklearn", "pydantic"},
    "engine/run/vectors.py": {"numpy", "polars", "fuxictr", "h5py"},
    "engine/analysis/figures": {"numpy", "matplotlib"},
    "engine/analysis/tables": {"numpy", "scipy", "jinja2"},
    "engine/report": {"jinja2"},
    "engine/datasets": {
        "numpy",
        "pyarrow",
        "polars",
        "yaml",
        "tqdm",
        "fuxictr",
        "huggingface_hub",
        "pydantic",
    },
    "engine/bench": {"numpy", "polars", "matplotlib", "fuxictr"},
    "engine/tuner": {"tqdm", "yaml", "pydantic"},
    "engine/tuner/optuna_search.py": {"optuna"},
    "engine/common/ray_cluster.py": {"ray"},
    "data": set(),
    "run_expid.py": set(),
    "run_param_tuner.py": set(),
}


def module_name(path: Path) -> str:
    """The dotted name under which a file is imported."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports."""
    package = path.parent.parts
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                yield inner if inner in MODULES else ".".join(base)


def room(name: str) -> str:
    """The part of the zoo that a module belongs to."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    prefix = max((p for p in ALLOWED if str(path).startswith(p)), key=len)
    ours = {"model_zoo": ("model_zoo",)}.get(path.parts[0], ("model_zoo", "engine"))
    for name in imported(path):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top == "torch" or top in ours:
            continue
        assert top in ALLOWED[prefix], f"{path} imports {name}; {prefix} may not"


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] == "model_zoo"], ids=str)
def test_the_zoo_imports_downwards_and_relatively(path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    own = room(module_name(path))
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("model_zoo"), f"{path}: not relative"
    for name in imported(path):
        if own and name.startswith("model_zoo.") and room(name) != own:
            assert floor[room(name)] > floor[own], f"{path} imports {name}, which is above it"


def test_the_data_sets_import_downwards() -> None:
    floor = {f"engine.datasets.{name}": number for number, name in enumerate(DATA_FLOORS)}
    for module, path in MODULES.items():
        own = floor.get(".".join(module.split(".")[:3]), -1)
        for name in imported(path):
            below = floor.get(".".join(name.split(".")[:3]), len(floor))
            assert below >= own, f"{path} imports {name}, which is above it"


def test_there_is_no_circle() -> None:
    edges = {name: {n for n in imported(path) if n in MODULES} for name, path in MODULES.items()}
    # A package that lists what is in it is not imported by its own parts.
    edges = {a: {b for b in found if not a.startswith(f"{b}.")} for a, found in edges.items()}
    while free := [name for name, found in edges.items() if not found & edges.keys()]:
        for name in free:
            del edges[name]
    assert not edges, f"in a circle, or above one: {sorted(edges)}"


def test_no_two_files_share_a_name() -> None:
    meanings: dict[str, Path] = {}
    for path in FILES:
        if path.stem in ("__init__", "__main__", "command") or (  # a part's own command line
            len(path.parts) == 2 and path.parts[0] != "model_zoo"
        ):
            continue  # commands may be called like the part that they start
        assert path.stem not in meanings, f"{path} and {meanings.get(path.stem)}"
        assert path.stem not in sys.stdlib_module_names, f"{path} is called like a standard module"
        meanings[path.stem] = path


def test_the_zoo_needs_no_engine(tmp_path: Path) -> None:
    """``model_zoo`` alone, copied elsewhere, imports and finds its models by name."""
    (tmp_path / "model_zoo").symlink_to(ROOT / "model_zoo")
    code = (
        "from model_zoo import *; import model_zoo; print(eval('TWIN_MoS'), len(model_zoo.MODELS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"<class 'model_zoo.TWIN_MoS'> {len(model_names())}\n"


# What torch and FuxiCTR's BaseModel do not import by themselves takes time in every run.
SLOW = (
    "matplotlib", "pandas", "scipy", "sklearn", "h5py", "huggingface_hub", "jinja2", "optuna", "ray",
    "tensorboard", "torch._dynamo", "torch._inductor", "torch.utils.tensorboard",
)  # fmt: skip


def test_a_run_imports_nothing_slow_that_it_does_not_need(tmp_path: Path, tiny_data: Path) -> None:
    Workspace(tmp_path, tiny_data)
    code = f"""
import sys
import torch
from fuxictr.pytorch.models import BaseModel
floor = set(sys.modules)
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["run_expid.py", "--config", {str(tmp_path / "experiments")!r}, "--expid", "TWIN_tiny"]
import run_expid
try:
    run_expid.main()
except SystemExit as end:
    assert end.code == 0
new = set(sys.modules) - floor
print(sorted(name for name in new if any(f"{{name}}.".startswith(f"{{slow}}.") for slow in {SLOW})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n[]\n"), done.stdout.splitlines()[-1]


def test_plain_imports_do_nothing() -> None:
    """Neither the environment nor torch's switches change, and no package is loaded for a while."""
    code = """
import os, sys
before = dict(os.environ)
import engine, engine.run.cpu, engine.run.command, engine.config.options
assert dict(os.environ) == before
assert "torch" not in sys.modules and "numpy" not in sys.modules
from engine.run.cpu import set_up_threads
os.environ.pop("OMP_WAIT_POLICY", None)
set_up_threads()
assert os.environ["GOMP_SPINCOUNT"]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
