"""One copy of the data for the processes of a machine."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from engine.loader.one_copy import one_copy


def _rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    os.environ["LOCAL_RANK"], tempfile.tempdir = str(rank), str(folder)

    def make() -> dict[str, np.ndarray]:
        assert rank == 0
        return {"b": np.arange(6).reshape(2, 3), "a/b": np.zeros(0, np.int32)}

    arrays = one_copy(make)
    maps = Path("/proc/self/maps").read_text()
    assert f"{folder}/" in maps and "0.npy" in maps  # of a file that is gone
    dist.barrier()  # the first process removes them once the second has mapped them
    assert not [*folder.glob("*/*.npy")]
    assert [*arrays] == ["b", "a/b"] and arrays["a/b"].dtype == np.int32
    arrays["b"] += rank  # which the other does not see
    dist.barrier()
    assert (arrays["b"] == np.arange(6).reshape(2, 3) + rank).all()
    with pytest.raises(ValueError if rank == 0 else SystemExit):
        one_copy(lambda: {}[0] if rank else {"c": np.array(["x" * int("y")])})
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_map_what_the_first_makes(tmp_path: Path) -> None:
    mp.spawn(_rank, (tmp_path,), nprocs=2)


def test_one_process_keeps_what_it_makes() -> None:
    made = {"a": np.arange(3)}
    assert one_copy(lambda: made) is made
