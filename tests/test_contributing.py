"""Every page of CONTRIBUTING.md works: it is followed word by word in a copy of the project.

A block with a ``title`` is the content of that file. A title that ends with "at the end" or "at the end
of NAME" adds the block to a file that is there: at the end of the file, or of that list or section. A
block of ``sh`` is run line by line.
"""

import csv
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .support.command_line import ROOT, Workspace, environment, run_module, run_script

PARTS = ("model_zoo", "engine", "config", "data", "run_expid.py", "run_param_tuner.py")
PAGES = ("A backbone", "A router", "A data set")
#: Where an added block goes: before what closes the list or section.
CLOSES = {"BACKBONES": r"\n\)", "MIXTURES": r"\n\)", ".datasets": r"\n\n", "end": r"\Z"}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str
    after: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The blocks below a heading of CONTRIBUTING.md."""
    _, _, text = (ROOT / "CONTRIBUTING.md").read_text().partition(f"\n## {page}\n")
    text, _, _ = text.partition("\n## ")
    for language, options, content in re.findall(r"^```(\w+)(.*)\n([\s\S]*?)^```$", text, re.M):
        named = dict(re.findall(r'(\w+)="(.*?)"', options))
        title, _, place = named.get("title", "").partition(", at the ")
        yield Block(language, title, place.removeprefix("end of "), content)


def follow(page: str, project: Path) -> str:
    """Do what a page says; returns the output of its commands."""
    output = ""
    for block in blocks(page):
        if block.title:
            write(block, project / block.title)
            continue
        for line in block.text.splitlines():
            words = [sys.executable if word == "python" else word for word in shlex.split(line)]
            done = subprocess.run(
                words, cwd=project, env=environment(), capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            output += done.stdout
    return output


def write(block: Block, file: Path) -> None:
    """Write the file of a block, or add the block to it."""
    if not block.after:
        assert not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        return
    text = file.read_text()
    start = 0 if block.after == "end" else text.index(f"\n{block.after}")
    closes = re.compile(CLOSES[block.after]).search(text, start + 1)
    assert closes is not None
    file.write_text(f"{text[: closes.start()].rstrip()}\n{block.text}{text[closes.start() + 1 :]}")


def write_own_backbone(zoo: Path) -> None:
    """Write the page's backbone as the file of a folder of one's own."""
    block = next(blocks("A backbone"))
    (zoo / "MeanPool.py").write_text(block.text.replace("from ..", "from model_zoo."))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, without what git ignores or a run has left."""
    left = shutil.ignore_patterns("__pycache__", "*.parquet", "checkpoints", "results")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tmp_path / part, ignore=left)
        else:
            shutil.copy(ROOT / part, tmp_path)
    return tmp_path


def leaderboard(project: Path, expid: str) -> list[dict[str, str]]:
    with open(project / "checkpoints" / "tuner" / expid / "leaderboard.csv") as file:
        return [row for row in csv.DictReader(file) if row["status"] == "done"]


def artefacts(project: Path) -> str:
    """What a study has drawn and written: the texts of its first table and of its figures."""
    files = [*(project / "results").rglob("table1.md"), *(project / "results").rglob("*.svg")]
    assert any(file.suffix == ".svg" for file in files)
    return "\n".join(file.read_text() for file in files)


@pytest.mark.slow
def test_a_backbone_gets_to_the_leaderboard_and_the_figures(project: Path) -> None:
    (project / "mine").mkdir()
    write_own_backbone(project / "mine")
    output = follow("A backbone", project)
    assert output.count("MeanPool_MoS_session_hopping_tiny - MeanPool_session_hopping_tiny") == 2
    own = project / "checkpoints" / "mine" / "session_hopping_tiny"
    assert len(list(own.glob("MeanPool*.json"))) == 2
    assert len(leaderboard(project, "MeanPool_session_hopping_tiny")) == 6
    assert artefacts(project).count("Mean pooling") >= 2
    assert "Mean pooling" in (project / "results" / "index.html").read_text()


@pytest.mark.slow
def test_a_backbone_in_a_folder_of_its_own_works_in_every_command(
    tiny_data: Path, tmp_path: Path
) -> None:
    zoo, space = tmp_path / "mine", Workspace(tmp_path, tiny_data)
    zoo.mkdir()
    write_own_backbone(zoo)
    for variant in ("", "_MoS"):
        keys = space.models[f"TWIN{variant}_tiny"] | {"model": f"MeanPool{variant}", "epochs": 1}
        for key in ("attention_dim", "num_heads", "attention_dropout", "topk", "short_seq_len"):
            del keys[key]
        space.models[f"MeanPool{variant}_tiny"] = keys
    space.save()
    where = ("--config", str(space.config), "--model-zoo", str(zoo))
    both = ("--expid", "MeanPool_tiny", "MeanPool_MoS_tiny")
    done = space.run_expid(*where, *both)
    assert done.code == 0 and "MeanPool_MoS_tiny - MeanPool_tiny" in done.stdout, done.stderr
    assert space.result("MeanPool_MoS_tiny", 2024)["routing"].keys() == {"item", "window"}
    done = run_module("engine.flops", *where, *both)
    assert done.code == 0 and "MeanPool_MoS_tiny" in done.stdout, done.stderr
    output = ("--output", str(tmp_path / "tuned"))
    one = ("--expid", "MeanPool_MoS_tiny", "--tag", "_001_")
    done = run_script("run_param_tuner.py", *where, *one, *output, cwd=space.cwd)
    assert done.code == 0 and "best: MeanPool_MoS_tiny" in done.stdout, done.stderr
    best = shlex.split(done.stdout.splitlines()[-1])
    assert best[-2:] == ["--model-zoo", str(zoo)]
    plainly = ("--dataset", "tiny", "--seeds", "1", "--budget", "1", "--backbones", "MeanPool")
    folders = ("--output", str(tmp_path / "results"), "--queue", str(tmp_path / "queue"))
    variants = ("--variants", "vanilla", "MoS")
    done = run_module("engine.study", "table1", *where, *plainly, *variants, *folders)
    assert done.code == 0, done.stdout + done.stderr
    assert "MeanPool" in (tmp_path / "results" / "tables" / "table1.md").read_text()


@pytest.mark.slow
def test_a_router_gets_to_the_leaderboard_and_the_figures(project: Path) -> None:
    output = follow("A router", project)
    assert "TWIN_Cosine_session_hopping_tiny" in output
    assert len(leaderboard(project, "TWIN_SoftSlots_session_hopping_tiny")) == 1
    assert artefacts(project).count("Soft slots") >= 2
    assert "Soft slots" in (project / "results" / "index.html").read_text()


@pytest.mark.slow
def test_a_data_set_is_trained_on(project: Path) -> None:
    rng, raw = random.Random(1), project / "raw"
    raw.mkdir()
    plays = [
        f"{user},{rng.randrange(40)},{second},{rng.randrange(2)}"
        for user in range(60)
        for second in range(30)
    ]
    (raw / "plays.csv").write_text("\n".join(["user,song,second,finished", *plays]))
    songs = [f"{song},{song % 7}" for song in range(40)]
    (raw / "songs.csv").write_text("\n".join(["song,artist", *songs]))
    output = follow("A data set", project)
    assert "TWIN_MoS_plays - TWIN_plays" in output
    assert "TWIN" in artefacts(project)


def test_every_page_has_a_file_and_commands() -> None:
    for page in PAGES:
        found = list(blocks(page))
        assert found[0].title and not found[0].after, page
        assert [block.language for block in found].count("sh") >= 1, page
