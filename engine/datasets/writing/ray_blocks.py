"""Work on the blocks of a log as tasks of a Ray cluster, whose machines share their storage."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ...common.errors import UserError
from ...common.ray_cluster import RayError, RayTaskError, connect, ray
from .samples import Span

T = TypeVar("T")


def each_on_ray(work: Callable[[Span], T], spans: list[Span]) -> Iterator[T]:
    """``map`` with a task for each block; each takes one core.

    Results come in order. Few are waited for at a time, so that they do not fill the memory.

    Args:
        work: can be pickled, and does the same when it is done again.

    Raises:
        UserError: tasks are killed, or their machines are lost, more often than Ray tries.
    """
    if not ray.is_initialized():
        connect()
    started: deque[ray.ObjectRef] = deque()
    ahead = int(ray.cluster_resources().get("CPU", 1)) + 1
    try:
        for span in spans:
            started.append(_run.remote(work, span))
            if len(started) > ahead:
                yield ray.get(started.popleft())
        while started:
            yield ray.get(started.popleft())
    except RayTaskError as error:
        raise error.cause from None  # as in this process
    except RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--engine ray: a block could not be worked on ({reason}); if memory is short, write a "
            "smaller --memory"
        ) from None


# Polars would start a thread for each core, in each task. And a script's folder is all that tasks see.
PATHS = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = {"POLARS_MAX_THREADS": "1", "PYTHONPATH": PATHS}


@ray.remote(num_cpus=1, runtime_env={"env_vars": ENVIRONMENT})
def _run(work: Callable[[Span], Any], span: Span) -> Any:
    return work(span)
