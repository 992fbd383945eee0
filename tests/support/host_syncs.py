"""Find what would make the host wait for a GPU, on a machine without one.

On CUDA the host runs ahead of the device until it needs a number from it: a value (``item``,
``tolist``) or the size of a result (``nonzero``, a bool mask as index). Both show on CPU tensors too.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Their results' sizes depend on values, or they hand a value over.
WAITING = {
    "aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_dim", "aten._unique",
    "aten.unique_consecutive", "aten.unique_dim_consecutive", "aten._local_scalar_dense",
    "aten.equal", "aten.is_nonzero", "aten.bincount", "aten.argwhere",
}  # fmt: skip
# On CPU tensors these are no operation at all: seen as Python calls.
READING = {"tolist", "cpu", "numpy", "__array__"}
MAKING = {"tensor", "as_tensor", "from_numpy"}  # copies from pageable memory


class HostSyncs:
    """``with HostSyncs() as syncs: ...``; then ``syncs.found`` names each, in order."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self) -> "HostSyncs":
        self.modes = (_Calls(self.found), _Operations(self.found))
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*error)


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = str(operation.overloadpacket)
        if (
            name in WAITING
            or (name == "aten.repeat_interleave" and kwargs.get("output_size") is None)
            or (name.startswith(("aten.index", "aten._index_put")) and _masks(name, args))
        ):
            self.found.append(name)
        return operation(*args, **kwargs)


def _masks(name: str, args: tuple) -> bool:
    """Whether a bool mask selects; filling with one value needs no sizes."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    masks = [i for i in indices if isinstance(i, torch.Tensor) and i.dtype == torch.bool]
    fills = "put" in name and args[2].numel() == 1
    return bool(masks) and not fills


class _Calls(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in READING or (
            name in MAKING and "torch" in str(getattr(function, "__module__", ""))
        ):
            self.found.append(name)
        return function(*args, **(kwargs or {}))
