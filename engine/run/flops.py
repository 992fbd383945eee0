"""Parameters and FLOPs per sample: ``python -m engine.flops --expid TWIN_session_hopping ...``.

Each sample is scored as a batch of its own, so that only its own items and experts are counted, and
no padding. Torch has formulas for matrix products; where it has none, own ones count. A multiplication
with an addition counts as two. Moving data (indexing, gathering) counts nothing. Operations that are
cheap beside the products (activations, norms, softmax) count nothing either.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from model_zoo.batch import Batch
from model_zoo.layers.mamba import Mamba
from model_zoo.ops.scan import mamba_kernel
from model_zoo.registry import backbone_of
from model_zoo.sequence_model import SequenceModel
from model_zoo.training.base_model import StagedModel

from ..common.text_table import text_table
from ..config.command_line import CommandLine, positive
from ..config.feature_map import build_feature_map
from ..config.load import load
from ..config.models import build
from ..config.options import RunOptions
from ..config.read import Params
from ..datasets import ensure_generated
from ..loader.loader import SequenceLoader
from ..loader.random_batch import one_sample, random_batch, random_events

aten = torch.ops.aten
SAMPLES = 256  # samples to average over, since FLOPs depend on a sample's length and experts
RANDOM_SAMPLES = 32  # random samples to average over, which all have the same length
ITEMS = 2_000  # size of the random catalogue


def count_flops(function: Callable[[], object]) -> float:
    """The FLOPs of one call of ``function``, including its backward pass if it has one."""
    with FlopCounter() as counter:
        function()
    return counter.flops


class FlopCounter(TorchDispatchMode):
    """Adds up the FLOPs of every operation inside the context, in ``flops``.

    It uses the formulas of ``torch.utils.flop_counter.FlopCounterMode``, but is faster. torch's class
    imports the compiler when it is entered, which takes two seconds. It also finds the module of each
    operation, which takes longer than the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self._inside = ExitStack()

    def __enter__(self) -> "FlopCounter":
        self._inside.callback(register_module_forward_hook(self._add_scan).remove)
        # Fused attention has no formula on a CPU.
        self._inside.enter_context(sdpa_kernel(SDPBackend.MATH))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._inside.close()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch imports its compiler to skip this class

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out

    def _add_scan(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """A forward hook that adds the FLOPs of ``Mamba`` outside matrix products."""
        if isinstance(module, Mamba):
            self.flops += scan_flops(module, *inputs)


def scan_flops(mamba: Mamba, x_BLW: Tensor, real: Any, last: bool = False) -> float:
    """The FLOPs of the convolution and the selective scan in one call of ``Mamba``.

    At each position, a channel needs 2 FLOPs for each tap. Each number of the state needs 4 if only
    the last state is read, and otherwise 7, with 2 more for reading it. These 2 are not added here
    where torch's operations for them are counted.
    """
    channels, taps = len(mamba.D), mamba.conv1d.kernel_size[0]
    read = 2 if x_BLW.is_cuda and mamba_kernel() else 0  # a kernel that the counter does not see
    of_state = 4 if last else 7 + read
    return x_BLW[..., 0].numel() * (2 * taps * channels + of_state * mamba.A_log.numel())


@register_flop_formula(aten.sparse_sampled_addmm, get_raw=True)
def sampled_product(pattern: Tensor, left: Tensor, *others: Any, **options: Any) -> int:
    """Dot products of width D at the places of a sparse pattern."""
    return 2 * pattern.values().numel() * left.shape[1]


@register_flop_formula([aten._embedding_bag, aten._embedding_bag_forward_only], get_raw=True)
def weighted_sum(weight: Tensor, index: Tensor, *others: Any, **options: Any) -> int:
    """Weighted sums of rows: a sparse matrix times a dense one."""
    return 2 * index.numel() * weight.shape[1]


@register_flop_formula([aten._fft_r2c, aten._fft_c2r, aten._fft_c2c], get_raw=True)
def transform(x: Tensor, dim: list[int], *others: Any, out_val: Tensor, **options: Any) -> float:
    """Fourier transforms: ``5 N log2 N`` for N complex numbers, half as many for real ones."""
    length = math.prod(max(x.shape[d], out_val.shape[d]) for d in dim)
    each = 5.0 if x.is_complex() and out_val.is_complex() else 2.5
    return each * max(x.numel(), out_val.numel()) * math.log2(length)


class Flops(NamedTuple):
    """FLOPs of the forward pass of one sample.

    Attributes:
        mean: mean over the samples that were counted.
        error: standard error of the mean; None if samples were not counted one by one.
    """

    mean: float
    error: float | None


def num_parameters(model: nn.Module) -> int:
    """The total size of all parameters of a model."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def flops_per_sample(model: StagedModel, batch: Batch) -> Flops:
    """Count the FLOPs of each sample of a batch in evaluation mode.

    A foreign model scores the whole batch at once, since some of LongCTR's models fail on a history
    that is shorter than their window.
    """
    model.eval()
    size = len(batch[2])
    if not isinstance(model, SequenceModel):
        return Flops(count_flops(lambda: model(batch)) / size, None)
    totals = [0.0]
    with FlopCounter() as counter:
        for sample in range(size):
            model(one_sample(batch, sample))
            totals.append(counter.flops)
    counts = np.diff(totals)
    error = float(counts.std(ddof=1)) / math.sqrt(size) if size > 1 else None
    return Flops(float(counts.mean()), error)


def spread_batch(loader: SequenceLoader, size: int = SAMPLES) -> Batch:
    """A batch of samples that are evenly spread over the whole split."""
    chosen = np.linspace(0, loader.num_samples - 1, min(size, loader.num_samples)).astype(int)
    start, parts = 0, []
    for columns in loader.samples.batches(loader.batch_size, rng=None):
        stop = start + len(columns["user_index"])
        rows = chosen[(start <= chosen) & (chosen < stop)] - start
        parts.append({name: column[rows] for name, column in columns.items()})
        start = stop
    whole = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    return loader.collate(whole)


def describe(params: Params, model_class: type[SequenceModel], length: int) -> tuple[int, Flops]:
    """The parameters and FLOPs of an untrained model, on random histories of one length.

    Routers with a codebook start from k-means, as they do in training.
    """
    torch.manual_seed(params["seed"])
    feature_map = build_feature_map(params)
    model = build(model_class, feature_map, {**params, "verbose": 0}, params["model_id"])
    for module in model.modules():  # embeddings are almost equal at first, which misleads routers
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    batch = random_batch(feature_map, [length] * RANDOM_SAMPLES, length, max(ITEMS, length + 2))
    batch[1].events = random_events(params.get("event_cols") or [], batch[2])
    if model.matches is not None:  # the loader counts them
        batch[1].matches = torch.zeros(RANDOM_SAMPLES, model.matches.counted)
    if model.branches:
        model.before_experts([batch], params["seed"])
    return num_parameters(model), flops_per_sample(model, batch)


def main() -> int:
    about = "Parameters and FLOPs per sample of models."
    parser = CommandLine(prog="python -m engine.flops", description=about)
    parser.add_places()
    parser.add_argument("--expid", nargs="+", required=True, help="experiment ids")
    parser.add_argument("--length", type=positive, help="items of the history; default: max_len")
    args = parser.parse_args()
    options = RunOptions(args.config, model_zoo=args.model_zoo, data_root=args.data_root)
    counted = []
    for expid in args.expid:
        experiment = load(expid, options)
        params = experiment.params
        ensure_generated(params)
        length = args.length or params["max_len"]
        counted.append((params, *describe(params, experiment.model_class, length)))
    vanilla = {(params["dataset_id"], params["model"]): flops.mean for params, _, flops in counted}
    rows = []
    for params, parameters, flops in counted:
        backbone = vanilla.get((params["dataset_id"], backbone_of(params["model"])))
        error = "" if flops.error is None else f"{flops.error / 1e6:.3f}"
        ratio = f"{flops.mean / backbone:.2f}" if backbone else ""
        mean = f"{flops.mean / 1e6:.3f}"
        rows.append([params["model_id"], f"{parameters:,}", mean, error, ratio])
    print("Parameters, and FLOPs of one sample in millions with the standard error of their mean")
    print(text_table(["expid", "parameters", "MFLOPs", "error", "/ vanilla"], rows))
    return 0
