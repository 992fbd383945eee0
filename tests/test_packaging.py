"""What ``pip install`` brings: the packages, their files and the commands."""

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
PARTS = ("engine", "model_zoo", "config", "pyproject.toml", "README.md", "LICENSE")
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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that an installation is made of."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=BUILT)
        else:
            shutil.copy(ROOT / part, source / part)
    return source


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with the packages of this one, and without this project."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    (packages / "environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def pip(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, words)], check=True)


@pytest.mark.slow
def test_a_wheel_has_every_file_and_its_commands_work_in_an_empty_folder(
    source: Path, environment: Path, tmp_path: Path
) -> None:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    wheel = next(tmp_path.glob("*.whl"))
    held = set(zipfile.ZipFile(wheel).namelist())
    for package in ("engine", "model_zoo"):
        for file in (source / package).rglob("*"):
            assert file.is_dir() or file.suffix == ".md" or str(file.relative_to(source)) in held
    for file in (source / "config").rglob("*.yaml"):
        assert f"engine/shipped/{file.relative_to(source)}" in held

    pip("--python", environment, "install", "--no-deps", "--no-index", wheel)
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(command: str, *words: str) -> str:
        call = [str(environment / "bin" / command), *words]
        return subprocess.run(call, cwd=folder, check=True, capture_output=True, text=True).stdout

    assert "TWIN_MoS_movielens_1m" in run("mos-run", "--list")
    run("mos-run", "--expid", "TWIN_session_hopping_tiny")
    written = {path.name for path in folder.rglob("*")}
    assert {"TWIN_session_hopping_tiny_seed2024.json", "train.parquet", "config.csv"} <= written
    prepared = run("mos-prepare", "session_hopping", "--size", "tiny", "--output", "data/mine")
    assert "mos-run --config" in prepared
    tuned = run("mos-tune", "--expid", "TWIN_session_hopping_tiny", "--trials-per-gpu", "3")
    assert "6 of 6 done" in tuned


@pytest.mark.slow
def test_an_editable_installation_imports_the_checkout(
    source: Path, environment: Path, tmp_path: Path
) -> None:
    pip("--python", environment, "install", "--no-deps", "--no-build-isolation", "-e", source)
    call = "import engine.run.command, model_zoo; print(engine.__file__, model_zoo.__file__)"
    python = [str(environment / "bin" / "python"), "-c", call]
    found = subprocess.run(python, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert found.split() == [str(source / name / "__init__.py") for name in ("engine", "model_zoo")]
