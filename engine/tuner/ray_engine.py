"""Trials on a Ray cluster. Each trial is a task, which runs the command line as a process.

The output folder, the repository, the data and the virtual environment must have the same paths on
all machines, as on a shared file system.
"""

import os
import socket
import time

from ..common.errors import UserError
from ..common.ray_cluster import OutOfMemoryError, RayError, RayTaskError, connect, ray
from .engines import CPU, Exit, Job, end, launch


class RayEngine:
    """Runs jobs as tasks of a Ray cluster.

    The cluster is that of ``connect``. If a machine is lost or a worker dies, its jobs end with the
    code None.

    Args:
        gpu: whether trials run on the GPUs of the cluster.
        per_device: how many trials run at a time on each GPU, or on each machine without GPUs.
    """

    def __init__(self, gpu: bool, per_device: int) -> None:
        self._gpu, self._per_device = gpu, per_device
        self._running: dict[str, tuple[ray.ObjectRef, Job]] = {}
        connect()
        if not self._places():
            raise UserError("--gpu: the Ray cluster has no GPU; write --gpu -1 for its CPUs")

    def free(self) -> bool:
        return len(self._running) < len(self._places()) * self._per_device

    def start(self, job: Job) -> str:
        if self._gpu:
            task = _run.options(num_cpus=0, num_gpus=1 / self._per_device)
        else:  # Ray lets a task use as many threads as it has cores
            cores = max(1, int(min(self._places(), default=1) // self._per_device))
            task = _run.options(num_cpus=cores, scheduling_strategy="SPREAD")
        gpu = 0 if self._gpu else CPU  # a task sees its own GPU alone
        self._running[job.name] = task.remote(job, gpu), job
        return "ray"

    def poll(self) -> list[Exit]:
        refs = {ref: name for name, (ref, _) in self._running.items()}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0) if refs else ([], [])
        return [self._exit(refs[ref]) for ref in ready]

    def stop(self, name: str) -> None:
        ref, _ = self._running.pop(name)
        ray.cancel(ref)  # raises KeyboardInterrupt in the task, which ends its process
        ray.wait([ref])

    def close(self) -> None:
        for ref, _ in self._running.values():
            ray.cancel(ref)
        for name in list(self._running):
            self.stop(name)
        ray.shutdown()

    def _places(self) -> list[float]:
        """A list with an entry for each GPU, or with the number of cores of each machine."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self._gpu:
            return [1.0] * sum(int(node.get("GPU", 0)) for node in nodes)
        return [node["CPU"] for node in nodes if node.get("CPU")]

    def _exit(self, name: str) -> Exit:
        ref, job = self._running.pop(name)
        try:
            return Exit(name, *ray.get(ref))
        except OutOfMemoryError:  # Ray kills a task that takes too much of a machine's memory
            reason = "out of memory, on another machine"
        except RayTaskError as error:
            reason = f"could not be started on another machine: {error.cause}"
        except RayError:
            return Exit(name, None, "a machine")
        with open(job.log, "a") as log:  # since the run could not do so itself
            log.write(f"error: {reason}\n")
        return Exit(name, 1, "ray")


@ray.remote(max_retries=0)
def _run(job: Job, gpu: int) -> tuple[int, str]:
    """Run a job to its end, and return its exit code and its device."""
    process = launch(job, gpu, dict(os.environ))
    try:
        while process.poll() is None:  # during ``wait``, Ray could not cancel the task
            time.sleep(0.1)
    finally:
        end(process)
    return process.returncode, socket.gethostname()
