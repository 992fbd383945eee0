"""The serving form of a model: one user's history and N candidates, without sizes that depend on data.

``torch.export`` can trace it for any number of candidates. What depends on the history alone, such as
the routing, is computed once for all candidates.

Shape suffixes: N candidates, L history length, T items or windows, R rows that are routed, E experts, k
experts of a history, D item width, H output width, M numbers on what matches.
"""

import copy
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from .batch import Batch
from .history.history import History
from .history.item_dict import ItemDict, first_equal
from .layers.block import SequenceBlock
from .moe.branch import Branch, Plan, compact
from .sequence_model import SequenceModel

EXAMPLE = 7  # candidates of the inputs that torch.export sees


def export_program(
    model: SequenceModel, batch: Batch, max_len: int
) -> torch.export.ExportedProgram:
    """The serving form of a model as a program, for 2 candidates or more.

    Args:
        model: the trained model.
        batch: any batch that the model can read.
        max_len: see ``ServedModel``.
    """
    sample_N = torch.zeros(EXAMPLE, dtype=torch.long)
    inputs = serving_inputs(batch, sample_N, model.context_features(batch[0]), max_len)
    history, _, events, candidates, context, matches_NM = inputs
    fixed, many = None, {0: torch.export.Dim("candidates", min=2)}
    shapes = (
        dict.fromkeys(history, fixed),
        fixed,
        dict.fromkeys(events, fixed),
        dict.fromkeys(candidates, many),
        dict.fromkeys(context, many),
        fixed if matches_NM is None else many,
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own parts
        return torch.export.export(ServedModel(model, max_len), inputs, dynamic_shapes=shapes)


def serving_inputs(
    batch: Batch, sample_N: Tensor, context: Iterable[str], max_len: int
) -> tuple[Any, ...]:
    """The arguments of ``ServedModel`` for some samples of a batch, which have one history.

    Args:
        batch: its ``item_dict`` is an ``ItemDict``.
        sample_N: the samples.
        context: the features of user and context that the model reads.
        max_len: see ``ServedModel``.
    """
    batch_dict, items, mask_BL = batch
    assert isinstance(items, ItemDict)
    first, index_NL1 = sample_N[0], items.index[sample_N]

    def padded(x_L: Tensor) -> Tensor:
        return F.pad(x_L, (max_len - len(x_L), 0))

    item_L, item_N = padded(index_NL1[0, :-1]), index_NL1[:, -1]
    return (
        {name: table[item_L] for name, table in items.tables.items()},
        padded(mask_BL[first] > 0),
        {name: padded(bucket_BL[first]) for name, bucket_BL in items.events.items()},
        {name: table[item_N] for name, table in items.tables.items()},
        {name: batch_dict[name][sample_N] for name in context},
        None if items.matches is None else items.matches[sample_N],
    )


class ServedModel(nn.Module):
    """A trained model that scores the candidates of one user.

    Args:
        model: the trained model, which is left as it is, and whose weights are shared.
        max_len: L.

    Attributes:
        max_len: L, to which a shorter history is padded on the left.
    """

    def __init__(self, model: SequenceModel, max_len: int) -> None:
        super().__init__()
        # The weights are the model's own: tables may be large.
        own = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
        self.model, self.max_len = copy.deepcopy(model, own).eval(), max_len
        self.model.amp = None  # float32 is at least as exact
        for module in self.model.modules():
            if isinstance(module, SequenceModel | SequenceBlock):
                module.compiled = False
            if callable(prepare := getattr(module, "for_serving", None)):
                prepare()
        for name, branch in self.model.branches.items():
            self.model.encoder.branches[name] = ServedBranch(branch)

    def forward(
        self,
        history: Mapping[str, Tensor],
        mask_L: Tensor,
        events: Mapping[str, Tensor],
        candidates: Mapping[str, Tensor],
        context: dict[str, Tensor],
        matches_NM: Tensor | None,
    ) -> Tensor:
        """The click probability of each candidate, ``(N,)``.

        Args:
            history: the item features of the history, ``(L, ...)`` each, the newest last.
            mask_L: True at real items, which are the last.
            events: the buckets of the events, ``(L,)`` each, if the model reads them.
            candidates: the item features of the candidates, ``(N, ...)`` each.
            context: the features of user and context, ``(N, ...)`` each.
            matches_NM: what candidates and history share, if the model reads it (see ``matches.py``).
        """
        model = self.model
        columns = {name: torch.cat([x, candidates[name]]) for name, x in history.items()}
        rows_UD = model.embedding_layer(columns, flatten_emb=True)
        row_U = torch.arange(rows_UD.shape[0], device=rows_UD.device)
        if model.unites_equal:
            row_U = first_equal(columns)
        row_L, row_N = row_U[: self.max_len], row_U[self.max_len :]
        N = row_N.shape[0]
        row_NL1 = torch.cat([row_L.expand(N, -1), row_N[:, None]], dim=1)
        shared = History(rows_UD, row_L[None], mask_L[None])
        buckets = {name: bucket_L[None] for name, bucket_L in events.items()}
        shared.events = model._event_columns(buckets, columns, row_NL1)
        numbers = []
        if model.matches is not None:
            mask_NL = mask_L.expand(N, -1)
            numbers = [model.matches.read(matches_NM, columns, row_NL1, mask_NL)]
            shared.matches_within = partial(model.matches.within, columns, row_N)
        scores = model.score(shared, rows_UD[self.max_len :], context, numbers)
        return scores["y_pred"][:, 0]


class ServedBranch(Branch):
    """A branch that runs the experts of one history, chosen by index from their stacked weights.

    Args:
        branch: the trained branch.
    """

    def __init__(self, branch: Branch) -> None:
        nn.Module.__init__(self)
        self.router, self.output_dim = branch.router, branch.output_dim
        self.match_EMH = branch.match_EMH
        parameters, buffers = stack_module_state(list(cast(nn.ModuleList, branch.experts)))
        self.names = [*parameters, *buffers]
        for name, stacked in (parameters | buffers).items():
            self.register_buffer(name.replace(".", "-"), stacked.detach())
        self.template = (copy.deepcopy(branch.experts[0]).to("meta"),)  # in a tuple, so as no part

    def plan(self, history: History) -> Plan:
        routed = self.router.route(history)
        gate_1k, expert_1k = routed.gates_BE.topk(self.router.max_experts, dim=-1)
        sent_kT = routed.sent_RE[routed.row_BT[0]][:, expert_1k[0]].mT
        # The newest item has chosen these experts; rounding must not undo that.
        sent_kT = torch.cat([sent_kT[:, :-1], torch.ones_like(sent_kT[:, -1:])], dim=1)
        columns = zip(*(x.split(1) for x in compact(sent_kT & history.mask_BL)), strict=True)
        parts = [history.take(index_1T, mask_1T) for index_1T, mask_1T in columns]

        def run(_: list[int], target_ND: Tensor) -> Tensor:
            outputs = []
            for index, gate, part in zip(expert_1k[0].split(1), gate_1k[0], parts, strict=True):
                y_NH = self._expert(index, part, target_ND)
                if self.match_EMH is not None and history.matches_within is not None:
                    sample_N = torch.arange(target_ND.shape[0], device=target_ND.device)
                    match_NM = history.matches_within(sample_N, part).to(y_NH)
                    y_NH = y_NH + match_NM @ self.match_EMH.index_select(0, index)[0]
                outputs.append(gate * y_NH)
            return sum(outputs[1:], start=outputs[0])

        return Plan(expert_1k.new_zeros(0), routed.aux_loss, run)

    def _expert(self, index: Tensor, part: History, target_ND: Tensor) -> Tensor:
        weights = {
            name: getattr(self, name.replace(".", "-")).index_select(0, index)[0]
            for name in self.names
        }
        return functional_call(self.template[0], weights, (part, target_ND))
