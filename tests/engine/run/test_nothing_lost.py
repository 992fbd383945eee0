"""A failure of one part loses nothing else: of a series, a metric, a line of a file, a last batch."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from engine.loader.loader import SequenceLoader
from engine.report import __main__ as report

from ...support.command_line import Outcome, Workspace, run_expid_in, run_here
from ...support.helpers import loader, tiny_params

EPOCH = ("--set", "epochs=1", "verbose=0")


@pytest.fixture
def space(tmp_path: Path, tiny_data: Path) -> Workspace:
    return Workspace(tmp_path / "space", tiny_data)


def run(space: Workspace, *arguments: str) -> Outcome:
    return run_expid_in(space.cwd, "--config", str(space.config), *EPOCH, *arguments)


def bars(space: Workspace) -> list[str]:
    return (space.cwd / "experiments.csv").read_text().splitlines()


def test_a_failing_run_does_not_end_the_others(space: Workspace) -> None:
    space.models["TWIN_nan_tiny"] = space.models["TWIN_tiny"] | {"learning_rate": 1e38}
    space.models["TWIN_nan_tiny"] |= {"max_gradient_norm": 1e38}
    space.save()
    done = run(space, "--expid", "TWIN_nan_tiny", "TWIN_tiny", "--seed", "1")
    assert done.code == 2 and done.stderr.count("error: TWIN_nan_tiny, seed 1: ") == 1
    assert "Traceback" not in done.stderr and "results and checkpoints" in done.stdout
    assert len(list(space.checkpoints.rglob("TWIN_tiny*seed1.json"))) == 1
    assert len(bars(space)) == 1


def test_a_line_for_bars_that_could_not_be_written_is_a_warning_and_comes_later(
    space: Workspace,
) -> None:
    file = space.cwd / "experiments.csv"
    file.mkdir()  # root may write to a read-only folder, but not to this
    one = ("--expid", "TWIN_tiny", "--seed", "1", "2")
    done = run(space, *one)
    assert (
        done.code == 0 and done.stderr.count(f"warning: {file}: cannot be written (Is a dir") == 2
    )
    file.rmdir()
    for _ in range(2):
        again = run(space, *one, "--resume")
        assert again.code == 0 and "finished already" in again.stdout
        assert len(bars(space)) == 2 and all("[exp_id] TWIN_tiny" in line for line in bars(space))


def test_a_metric_that_the_test_split_lacks_costs_no_result(space: Workspace) -> None:
    path = space.data / "test.parquet"
    pl.read_parquet(path).with_columns(is_click=pl.lit(0, pl.Int64)).write_parquet(path)
    space.renew_card()
    done = run(space, "--expid", "TWIN_tiny", "--seed", "1")
    assert done.code == 0, done.stderr
    assert "AUC is undefined: all labels are the same; it is left out" in done.stdout
    (result,) = space.checkpoints.rglob("*seed1.json")
    assert json.loads(result.read_text())["metrics"]["test"].keys() == {"logloss"}
    page = space.folder / "page.html"
    shown = run_here(report.main, str(result.parent), "-o", str(page))
    assert shown.code == 0 and page.exists(), shown.stderr


def test_a_last_batch_of_one_sample_trains_with_batch_norm(space: Workspace) -> None:
    path = space.data / "train.parquet"
    pl.read_parquet(path).head(129).write_parquet(path)
    space.renew_card()
    space.change_model("TWIN_tiny", batch_size=64, batch_norm=True)
    done = run(space, "--expid", "TWIN_tiny", "--seed", "1")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 64, 10_000, -1])
def test_only_a_single_sample_joins_the_batch_before(
    tiny_data: Path, batch_size: int, streaming: bool
) -> None:
    params = tiny_params(tiny_data, "TWIN")
    if batch_size < 0:
        batch_size += pl.read_parquet(params["train_data"]).height

    def batches(join: bool) -> list[torch.Tensor]:
        made: SequenceLoader = loader(
            params, shuffle=True, batch_size=batch_size, streaming=streaming
        )
        made.least = 1 + join
        found = [batch[1].index[:, -1] for batch in made]
        assert len(found) == len(made)
        return found

    plain, joined = batches(False), batches(True)
    assert torch.equal(torch.cat(plain), torch.cat(joined))
    single = batch_size > 1 and len(plain) > 1 and len(plain[-1]) == 1
    assert len(joined) == len(plain) - single
    assert all(torch.equal(a, b) for a, b in zip(plain[:-2], joined, strict=False))
