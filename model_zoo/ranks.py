"""Ranks: processes that train one model together, each on its share of every batch.

``torchrun`` starts them and numbers them from 0. Rank 0 alone writes files and speaks. All ranks take the
same decisions, and call the functions here in the same order. In a process that was started alone, every
function gives back what it was given.

Shape suffixes: N rows of a tensor.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def size() -> int:
    """The number of ranks; 1 in a process that was started alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def share() -> slice:
    """The rows of each batch that this rank reads. The shares differ by one row at most."""
    return slice(rank(), None, size())


def start(gpu: int) -> None:
    """Join the other ranks, if torchrun has started this process as one of several.

    Tensors on GPUs travel by NCCL, all others by gloo. On CPUs, the ranks of a machine share its cores.

    Args:
        gpu: the CUDA device of this rank, or -1 for the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return
    if gpu >= 0:
        torch.cuda.set_device(gpu)
    elif os.environ.get("OMP_NUM_THREADS") == "1":  # which torchrun sets where nobody has
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("gloo" if gpu < 0 else "cpu:gloo,cuda:nccl")
    if rank():
        logging.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stop() -> None:
    """Part from the other ranks."""
    if size() > 1:
        dist.destroy_process_group()


# ---------------------------------------------------------------- what all ranks know


def on_first(action: Callable[[], T]) -> T:
    """What an action of rank 0 gives, on all ranks; they wait for it.

    Raises:
        SystemExit: on all others, if the action fails on rank 0, which says why.
    """
    if size() == 1:
        return action()
    found: list[Any] = [False, None]
    try:
        if not rank():
            found = [True, action()]
    finally:
        dist.broadcast_object_list(found)
    if not found[0]:
        raise SystemExit(2)
    return found[1]


def all_of(thing: Any) -> list[Any]:
    """A small thing of each rank."""
    found = [None] * size()
    dist.all_gather_object(found, thing)
    return found


def most(*numbers: int) -> list[int]:
    """The largest of each number over the ranks."""
    if size() == 1:
        return [*numbers]
    largest = torch.tensor(numbers, dtype=torch.long)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def total(x: Tensor) -> Tensor:
    """The sum of a tensor over the ranks."""
    if size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean of a tensor over the ranks."""
    return total(x) / size() if size() > 1 else x


def weighted(value: Tensor, count: Tensor | int) -> Tensor:
    """Weigh a mean of ``count`` things, so that the mean over ranks is that of the things of all ranks.

    Without gradients nothing is weighed, since ranks then need not do the same.
    """
    if size() == 1 or not torch.is_grad_enabled():
        return value
    count = torch.as_tensor(count, dtype=torch.float64, device=value.device)
    return value * (count * size() / total(count).clamp(min=1)).to(value.dtype)


def gathered(x: Tensor) -> Tensor:
    """The rows ``(N, ...)`` of all ranks, rank by rank; N may differ."""
    if size() == 1:
        return x
    lengths = torch.zeros(size(), dtype=torch.long)
    lengths[rank()] = len(x)
    lengths = total(lengths)
    padded = x.new_zeros(int(lengths.max()), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, lengths.tolist(), strict=True)])


def align(module: nn.Module) -> None:
    """Give all ranks the parameters and buffers of rank 0, without those that are divided."""
    if size() > 1:
        for x in (*module.parameters(), *module.buffers()):
            if not is_divided(x):
                dist.broadcast(x.detach(), 0)


# ---------------------------------------------------------------- gradients


def is_divided(x: Tensor) -> bool:
    """Whether each rank has rows of its own of a parameter; whoever divides it sets ``divided = True``.

    Its gradient must be the mean over the ranks already.
    """
    return getattr(x, "divided", False)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over the ranks; a gradient that a rank lacks counts as zero there.

    A parameter that no rank has read keeps no gradient, and one that is divided keeps its own. The dense
    gradients travel as one vector, of sparse ones the rows that a rank has.
    """
    if size() == 1:
        return
    parameters = [p for p in parameters if not is_divided(p)]
    held = [p.grad for p in parameters]
    kinds = most(*(0 if g is None else 1 + g.is_sparse for g in held))
    dense = [p for p, kind in zip(parameters, kinds, strict=True) if kind == 1]
    for parameter in dense:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if dense:
        flat = torch.cat([p.grad.flatten() for p in dense if p.grad is not None])
        dist.all_reduce(flat)
        flat /= size()
        for parameter, part in zip(dense, flat.split([p.numel() for p in dense]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
    for parameter in (p for p, kind in zip(parameters, kinds, strict=True) if kind == 2):
        gradient, shape = parameter.grad, parameter.shape
        place = torch.zeros(0, dtype=torch.long, device=parameter.device)
        rows = parameter.detach()[:0]
        if gradient is not None:
            place, rows = gradient._indices()[0], gradient._values()
        place, rows = gathered(place), gathered(rows) / size()
        parameter.grad = torch.sparse_coo_tensor(place[None], rows, shape, check_invariants=False)
