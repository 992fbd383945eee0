"""What the documents say exists: experiment ids, commands with their flags, files and links."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from engine.config.read import list_experiments

ROOT = Path(__file__).parent.parent
# A test of its own follows CONTRIBUTING.md.
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
    "data/README.md",
    "model_zoo/README.md",
    "benchmark_results/README.md",
]
SCRIPTS = {
    "mos-run": "run_expid.py",
    "mos-tune": "run_param_tuner.py",
    "mos-prepare": "data/prepare.py",
}
# Files that a command or the reader writes, or that belong to another project.
ELSEWHERE = {"table.md", "__init__.py", "DIR/MeanPool.py"}
SUBCOMMANDS = ("data/prepare.py", "-m engine.bench")  # commands whose flags belong to a subcommand


def text(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def commands(document: str) -> list[list[str]]:
    """The command lines of a document's shell blocks, as words after ``python``."""
    found = []
    for block in re.findall(r"^```(?:ba)?sh\n(.*?)^```", text(document), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for call in line.split(" #")[0].split("&&"):
                words = re.sub(r"^.*/bin/", "", call.strip()).split()
                if words and words[0] in SCRIPTS:
                    found.append([SCRIPTS[words[0]], *words[1:]])
                elif words and words[0].startswith("python"):
                    found.append(words[1:])
    return [words for words in found if not words[0].startswith("-") or "engine" in words[1]]


@cache
def help_of(command: str) -> str:
    """What ``python <command> --help`` prints."""
    words = command.split()
    name = words[1] if words[0] == "-m" else words[0]
    arguments, output = words[2:] if words[0] == "-m" else words[1:], io.StringIO()
    before = sys.argv
    sys.argv = [name, *arguments, "--help"]
    try:
        with redirect_stdout(output), pytest.raises(SystemExit) as ended:
            if words[0] == "-m":
                runpy.run_module(name, run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(str(ROOT / name), run_name="__main__")
    finally:
        sys.argv = before
    assert ended.value.code in (0, None), command
    return output.getvalue()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_their_flags_exist(document: str) -> None:
    for words in commands(document):
        command = " ".join(words[: 2 if words[0] == "-m" else 1])
        given = words[len(command.split()) :]
        if command in SUBCOMMANDS and given and not given[0].startswith("-"):
            command = f"{command} {given[0]}"
        known = set(re.findall(r"(?<!\w)--[a-z][\w-]*", help_of(command)))
        for flag in (word for word in given if word.startswith("--")):
            assert flag in known, f"{command} {flag}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_experiment_ids_exist(document: str) -> None:
    known = list_experiments(ROOT / "config")
    for words in commands(document):
        if "--expid" in words and "--config" not in words:  # the shipped configuration
            for word in words[words.index("--expid") + 1 :]:
                if word.startswith("--"):
                    break
                assert word in known, word


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_modules_exist(document: str) -> None:
    for path in re.findall(
        r"`([\w.]+(?:/[\w.]+)*\.(?:py|yaml|yml|md|txt|toml|cff))`", text(document)
    ):
        assert (ROOT / path).exists() or path in ELSEWHERE, path
    for module in re.findall(r"python -m (engine[\w.]*)", text(document)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text(document)):
        if not re.match(r"https?:|#", link):
            assert ((ROOT / document).parent / link.split("#")[0]).exists(), link
    for file in re.findall(r'^--8<-- "(.+)"$', text(document), re.M):  # a page of the site
        assert (ROOT / file).exists(), file


def test_the_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 150


def test_the_first_screen_has_the_two_commands() -> None:
    first_screen = text("README.md")[:2500]
    assert len(re.findall(r"^python3 -m venv .*$", first_screen, re.M)) == 2
    assert re.search(r"^python3 -m venv .*pytest -n 2$", first_screen, re.M)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", text("README.md"), re.M | re.S)
    assert blocks
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 10
        exec(compile(block, "README.md", "exec"), {})
    assert re.search(r"^0\.\d+ ", capsys.readouterr().out, re.M)


def test_experiments_are_named_after_model_and_data_set() -> None:
    for expid, (model, dataset_id) in list_experiments(ROOT / "config").items():
        assert expid == f"{model}_{dataset_id}"
