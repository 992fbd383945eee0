"""What ``pip install`` brings: the packages, their files and the commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PARTS = ("engine", "model_zoo", "config", "pyproject.toml", "setup.py", "README.md", "LICENSE")
BUILT = shutil.ignore_patterns("__pycache__", "*.egg-info")


def requirements(name: str) -> dict[str, str]:
    """The pins of a requirements file and of those that it includes: ``package -> version``."""
    pins = {}
    for line in (ROOT / name).read_text().splitlines():
        words = line.split("#")[0].strip()
        if words.startswith("-r "):
            pins |= requirements(words[3:].strip())
        elif words:
            package, version = words.split("==")
            pins[package] = version
    return pins


def test_the_tested_versions_are_within_the_ranges_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = [Requirement(line) for line in project["dependencies"]]
    optional = [
        Requirement(line) for extra in project["optional-dependencies"].values() for line in extra
    ]
    optional = [wanted for wanted in optional if wanted.name != project["name"]]
    assert {wanted.name for wanted in runtime} == set(requirements("requirements.txt"))
    pins = requirements("requirements-dev.txt")
    for wanted in runtime + optional:
        assert wanted.specifier.contains(pins[wanted.name]), wanted


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the files that it is made of."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=BUILT)
        else:
            shutil.copy(ROOT / part, source / part)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    return next(built.glob("*.whl"))


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True)


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for package in ("engine", "model_zoo"):
        for file in (ROOT / package).rglob("*"):
            if file.is_file() and file.suffix not in (".pyc", ".md"):
                assert file.relative_to(ROOT).as_posix() in held
    for file in (ROOT / "config").rglob("*.yaml"):
        assert f"engine/shipped_config/{file.relative_to(ROOT / 'config').as_posix()}" in held


@pytest.mark.slow
def test_the_commands_work_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, folder = tmp_path / "installed", tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(installed)], check=True)
    python = installed / "bin" / "python"
    packages = next((installed / "lib").glob("python*")) / "site-packages"
    (packages / "environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    folder.mkdir()

    def run(command: str, *words: str) -> str:
        call = [str(installed / "bin" / command), *words]
        return subprocess.run(call, cwd=folder, check=True, capture_output=True, text=True).stdout

    assert "TWIN_MoS_movielens_1m" in run("mos-run", "--list")
    assert "TWIN_session_hopping_tiny" in run("mos-run", "--expid", "TWIN_session_hopping_tiny")
    result = (
        folder / "checkpoints" / "session_hopping_tiny" / "TWIN_session_hopping_tiny_seed2024.json"
    )
    assert result.exists()
    assert (folder / "data" / "session_hopping_tiny" / "train.parquet").exists()
    assert "mos-run" in run(
        "mos-prepare", "session_hopping", "--size", "tiny", "--output", "data/mine"
    )
    grid = "base_expid: TWIN_session_hopping_tiny\ntuner_space: {learning_rate: [0.001], epochs: [1]}\n"
    (folder / "grid.yaml").write_text(grid)
    assert "1 of 1 done" in run("mos-tune", "--config", "grid.yaml")
