"""Downloads from a hub on loopback, in a process of their own, because the hub's client reads its
environment when it is imported."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from engine.datasets import paper
from engine.datasets.prepared import layout
from engine.datasets.prepared.card import CARD, FILES, fingerprint

from ...support import stand_ins
from ...support.command_line import ROOT, environment
from ...support.fake_hub import FakeHub

NAME = "Ebnerd_small_x1"
RUN = """
import json, sys
from pathlib import Path
from huggingface_hub import constants
from engine.datasets.hub import download
from engine.datasets.prepared.layout import new_folder
from engine.common.errors import UserError

for line in sys.stdin:
    constants.HF_HUB_CACHE, name, output, offline, overwrite = json.loads(line)
    try:
        with new_folder(Path(output), overwrite) as folder:
            result = download(name, folder, offline)
    except UserError as error:
        result = str(error)
    print(json.dumps(result), flush=True)
"""
NOBODY = "http://127.0.0.1:9"  # where nothing listens


@contextmanager
def downloading(url: str, folder: Path) -> Iterator[subprocess.Popen]:
    """A process that downloads on demand."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        env=environment() | {"HF_ENDPOINT": url, "HF_HOME": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate(timeout=60)


class Client:
    """Downloads with a cache of its own.

    Attributes:
        data: data sets go to ``data / name``.
    """

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process, self.data, self.cache = process, folder / "data", folder / "cache"

    def __call__(self, name: str, offline: bool = False, overwrite: bool = False) -> dict | str:
        """The card, or the message of the error."""
        job = [str(self.cache), name, str(self.data / name), offline, overwrite]
        print(json.dumps(job), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def left_behind(self) -> list[str]:
        return [path.name for path in self.data.glob("*")]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[FakeHub, subprocess.Popen]]:
    """A hub, and a process that downloads from it."""
    with (
        FakeHub().serve() as hub,
        downloading(hub.url, tmp_path_factory.mktemp("home")) as process,
    ):
        yield hub, process


@pytest.fixture
def hub(served: tuple[FakeHub, subprocess.Popen]) -> FakeHub:
    """The hub, with nothing in it."""
    served[0].clear()
    return served[0]


@pytest.fixture
def client(served: tuple[FakeHub, subprocess.Popen], tmp_path: Path) -> Client:
    return Client(served[1], tmp_path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The five files of a tiny stand-in of each data set, by repository."""
    folder = tmp_path_factory.mktemp("published")
    for name in paper.NAMES:
        layout.write(stand_ins.generate(name, 1e-4), folder / name)
    return {
        f"reczoo/{name}": {file: (folder / name / file).read_bytes() for file in FILES}
        for name in paper.NAMES
    }


def zipped(content: dict[str, bytes], folder: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, data in content.items():
            archive.writestr(folder + file, data)
    return buffer.getvalue()


def test_loose_files_a_folder_and_a_zip(client: Client, hub: FakeHub, files: dict) -> None:
    """All three forms arrive whole, with a card; offline is enough after."""
    micro, kuai, ebnerd = (f"reczoo/{name}" for name in paper.NAMES)
    hub.repositories[micro] = files[micro] | {"README.md": b"# Data"}
    hub.repositories[kuai] = {f"KuaiVideo_x2/{k}": v for k, v in files[kuai].items()}
    hub.repositories[ebnerd] = {f"{NAME}.zip": zipped(files[ebnerd], f"{NAME}/")}
    cards = [client(name) for name in paper.NAMES]
    for name, card in zip(paper.NAMES, cards, strict=True):
        folder = client.data / name
        assert {f: (folder / f).read_bytes() for f in FILES} == files[f"reczoo/{name}"]
        assert sorted(os.listdir(folder)) == sorted([*FILES, CARD, "feature_map.json"])
        assert card == json.loads((folder / CARD).read_text())
        assert card["hash"] == fingerprint(folder / file for file in FILES)
        assert hub.revision(f"reczoo/{name}") in card["source"]
        assert card["splits"]["test"]["rows"] == len(pl.read_parquet(folder / "test.parquet"))
    assert "README.md" not in [file for _, file in hub.requests]

    asked = len(hub.requests)
    again = [client(name, offline=True, overwrite=True) for name in paper.NAMES]
    assert again == cards and len(hub.requests) == asked


def test_a_cut_connection_is_taken_up_again(client: Client, hub: FakeHub, files: dict) -> None:
    hub.repositories[f"reczoo/{NAME}"] = files[f"reczoo/{NAME}"]
    hub.cuts["train.parquet"] = 1
    assert client(NAME)["dataset_id"] == NAME
    assert hub.requests.count(("GET", "train.parquet")) == 2
    assert hub.requests.count(("GET", "test.parquet")) == 1


@pytest.mark.slow  # for the hub's client waits before it tries again
def test_a_transfer_that_breaks_off_goes_on_next_time(
    client: Client, hub: FakeHub, files: dict
) -> None:
    hub.repositories[f"reczoo/{NAME}"] = files[f"reczoo/{NAME}"]
    hub.cuts["train.parquet"] = 99
    message = client(NAME)
    assert "broke off" in message and "run the command again to go on" in message
    assert client.left_behind() == []
    hub.cuts.clear()
    came = {file for method, file in hub.requests if method == "GET"} - {"train.parquet"}
    hub.requests.clear()
    assert "is not wholly in the hub's cache" in client(NAME, offline=True)
    assert client(NAME)["dataset_id"] == NAME
    assert came.isdisjoint(file for method, file in hub.requests if method == "GET")


def test_bad_content_is_named_and_replaces_nothing(
    client: Client, hub: FakeHub, files: dict
) -> None:
    kept = client.data / NAME / "train.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"older data")
    (kept.parent / CARD).write_text("{}")
    good = files[f"reczoo/{NAME}"]
    archive = zipped(good)
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(good["train.parquet"])).drop("topics").write_parquet(buffer)
    published = [
        (
            good | {"test.parquet": good["test.parquet"][:-9]},
            "x1/test.parquet is not a whole parquet",
        ),
        (
            {k: v for k, v in good.items() if k != "valid.parquet"},
            "holds no valid.parquet",
        ),
        (
            good | {"train.parquet": buffer.getvalue()},
            "x1/train.parquet: column 'topics' is missing",
        ),
        ({f"{NAME}.zip": archive[: len(archive) // 2]}, f"{NAME}.zip is not a whole zip file"),
        ({f"{NAME}.zip": zipped({"train.parquet": b""})}, f"{NAME}.zip holds no valid.parquet"),
        ({"notes.txt": b""}, f"holds no {FILES[0]}"),
    ]
    for content, expected in published:
        hub.repositories[f"reczoo/{NAME}"] = content
        assert expected in client(NAME, overwrite=True)
        assert client.left_behind() == [NAME] and kept.read_bytes() == b"older data"


def test_refusals(client: Client, hub: FakeHub, files: dict) -> None:
    """An unknown and a gated repository, and an existing folder."""
    hub.repositories["reczoo/KuaiVideo_x2"] = files["reczoo/KuaiVideo_x2"]
    hub.gated.add("reczoo/KuaiVideo_x2")
    taken = client.data / "MicroVideo1.7M_x2" / "notes.txt"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    for name in (NAME, "KuaiVideo_x2"):
        message = client(name)
        assert (
            f"{hub.url}/datasets/reczoo/{name} is unknown there" in message
            and "HF_TOKEN" in message
        )
    assert "exists already" in client("MicroVideo1.7M_x2")
    assert client.left_behind() == ["MicroVideo1.7M_x2"] and taken.read_text() == "mine"


def test_no_network(tmp_path: Path) -> None:
    with downloading(NOBODY, tmp_path / "home") as process:
        client = Client(process, tmp_path)
        message = client(NAME)
        assert message.startswith(f"{NOBODY} could not be reached")
        assert f"to data/{NAME} by hand" in message
        message = client(NAME, offline=True)
        assert "is not wholly in the hub's cache" in message and str(client.cache) in message
        assert client.left_behind() == []
