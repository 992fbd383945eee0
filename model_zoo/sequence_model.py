"""The one model class: embedding, a mixture of sequence blocks, and a classifier head.

A backbone is a ``SequenceModel`` with a ``block``; a variant of it is the same with a ``mixture``.

Shape suffixes: B samples, L history length, U rows (distinct items), D item width, H block output.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

import torch
import torch.nn.functional as F
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from . import training
from .layers.history import History
from .layers.item_dict import ItemDict
from .layers.sequence import SequenceBlock
from .metrics import evaluate_metrics
from .moe.codebook import Codebook
from .moe.mixtures import Mixture, Single

Batch = tuple[dict[str, Tensor], Mapping[str, Tensor], Tensor]
"""LongCTR's batch: ``batch_dict`` (B rows each), ``item_dict`` (B * (L + 1) rows each, history
then target), ``mask`` (B, L), non-zero at real items, left padded."""

LOSSES = ("binary_crossentropy", "binary_cross_entropy", "bce")  # FuxiCTR's names of one loss


class SequenceModel(BaseModel):
    """CTR model over a user's history: ``sigmoid(head([context, target, encoder(history, target)]))``.

    Hyper-parameters are those named here, the keyword-only ones of ``block`` and of ``mixture``,
    and FuxiCTR's; ``hyper_parameters`` lists them.

    Args:
        feature_map: FuxiCTR's feature map; features with ``source: item`` describe items.
        model_id: names the checkpoint.
        gpu: CUDA device, -1 for the CPU.
        embedding_dim: width of a feature that does not say its own.
        dnn_hidden_units, dnn_activations, net_dropout, batch_norm: the classifier head.
        learning_rate, optimizer, loss: as in FuxiCTR; the loss is binary cross-entropy.
        accumulation_steps: batches per optimiser step.

    Attributes:
        stage_log: one entry per evaluation of the last ``fit``.
    """

    block: type[SequenceBlock]
    mixture: type[Mixture] = Single

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "SequenceModel",
        gpu: int = -1,
        embedding_dim: int = 10,
        dnn_hidden_units: list[int] = (512, 128, 64),
        dnn_activations: str = "ReLU",
        net_dropout: float = 0.0,
        batch_norm: bool = False,
        learning_rate: float = 1e-3,
        optimizer: str = "adam",
        loss: str = "binary_crossentropy",
        accumulation_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss: {loss!r} is not supported; write {LOSSES[0]}")
        rng = torch.get_rng_state()
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.accumulation_steps = accumulation_steps
        self.stage_log: list[dict[str, Any]] = []

        self.item_dim = sum(
            spec.get("emb_output_dim", spec.get("embedding_dim", embedding_dim))
            for spec in feature_map.features.values()
            if spec.get("source") == "item" and spec["type"] != "meta"
        )
        if not self.item_dim:
            raise ValueError(
                f"{feature_map.dataset_id}: no feature has `source: item`; "
                "mark the item's features so in dataset_config.yaml"
            )
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        block_config = _keywords(self.block, kwargs)
        self.encoder = self.mixture(
            lambda: self.block(self.item_dim, **block_config),
            self.item_dim,
            **_keywords(self.mixture, kwargs),
        )
        self.dnn = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim() + self.encoder.output_dim,
            output_dim=1,
            hidden_units=list(dnn_hidden_units),
            hidden_activations=dnn_activations,
            dropout_rates=net_dropout,
            batch_norm=batch_norm,
        )
        torch.set_rng_state(rng)
        self.reset_parameters()
        self.model_to_device()

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """Name and type of every configuration key that the model, its block, its mixture or
        training reads."""
        hints: dict[str, Any] = {}
        for reader in (SequenceModel.__init__, cls.__init__):
            hints |= get_type_hints(reader)
        for reader in (cls.block.__init__, cls.mixture.__init__, training.fit):
            all_hints = get_type_hints(
                reader, localns={"SequenceModel": SequenceModel, "Batch": Batch}
            )
            hints |= {name: all_hints[name] for name in _keyword_only(reader)}
        hints.pop("return", None)
        return hints

    def reset_parameters(self) -> None:
        """FuxiCTR's initialisation, backbone first: with the same random state, every variant of
        a backbone starts from the same embeddings, global block and head."""
        for part in (*self.backbone_parts(), *self.encoder.branches().values()):
            BaseModel.reset_parameters(part)  # it needs no more of a module than apply()

    def backbone_parts(self) -> tuple[nn.Module, ...]:
        """The parts that vanilla has too; the rest are the mixture's experts and routers."""
        return self.embedding_layer, self.dnn, self.encoder.global_block

    # ---------------------------------------------------------------- forward

    def forward(self, inputs: Batch) -> dict[str, Tensor]:
        """``y_pred (B, 1)`` in (0, 1), its ``logit``, and the routers' ``aux_loss``."""
        history, target_BD = self.embed_items(inputs)
        context = self.context_features(inputs[0])
        y_BH, aux_loss = self.encoder(history, target_BD)
        features = [target_BD, y_BH]
        if context:
            features.insert(0, self.embedding_layer(context, flatten_emb=True))
        logit = self.dnn(torch.cat(features, dim=-1))
        return {"y_pred": logit.sigmoid(), "logit": logit, "aux_loss": aux_loss}

    def embed_items(self, inputs: Batch) -> tuple[History, Tensor]:
        """The history, to be embedded where it is read, and the target's vector ``(B, D)``.

        Items known by index (``ItemDict``) are embedded once per distinct item of the batch; with
        a plain dictionary every position is a row of its own.
        """
        _, item_dict, mask = inputs
        mask_BL = mask.to(self.device) > 0
        if isinstance(item_dict, ItemDict):
            columns, row_BL1 = item_dict.distinct()
            columns = {name: rows.to(self.device) for name, rows in columns.items()}
            row_BL1 = row_BL1.to(self.device)
        else:
            columns = {name: rows.to(self.device) for name, rows in item_dict.items()}
            B, L = mask_BL.shape
            row_BL1 = torch.arange(B * (L + 1), device=self.device).view(B, L + 1)
        rows_UD = self.embedding_layer(columns, flatten_emb=True)
        history = History(rows_UD, row_BL1[:, :-1], mask_BL)
        return history, F.embedding(row_BL1[:, -1], rows_UD)

    def context_features(self, batch_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features of the sample itself (user, context), without labels, meta and item ones."""
        features = self.feature_map.features
        return {
            name: value.to(self.device)
            for name, value in batch_dict.items()
            if name in features
            and features[name]["type"] != "meta"
            and features[name].get("source") != "item"
        }

    def get_labels(self, inputs: Batch) -> Tensor:
        """Labels ``(B, 1)``, float32."""
        return inputs[0][self.feature_map.labels[0]].to(self.device).float().view(-1, 1)

    def get_group_id(self, inputs: Batch) -> Tensor:
        """The user of each sample, for gAUC."""
        return inputs[0][self.feature_map.group_id]

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """Cross-entropy plus the routers' auxiliary loss (FuxiCTR adds the regulariser).

        From logits: the same number, but a NaN stays a NaN that training can report, where the
        form on probabilities fails inside the kernel and on CUDA takes the process with it.
        """
        loss = F.binary_cross_entropy_with_logits(return_dict["logit"], y_true)
        return loss + return_dict["aux_loss"]

    # ---------------------------------------------------------------- training and evaluation

    def fit(
        self, data_generator: Iterable[Batch], validation_data: Iterable[Batch], **kwargs: Any
    ) -> None:
        """Train in the mixture's stages, then load the best checkpoint; see ``training.fit``."""
        training.fit(self, data_generator, validation_data, **_keywords(training.fit, kwargs))

    def after_step(self) -> None:
        """What follows an optimiser step: the codebooks move (eq. 4)."""
        for codebook in self.codebooks():
            codebook.step()

    def forget_observed(self) -> None:
        """Drop what the codebooks observed since the last step."""
        for codebook in self.codebooks():
            codebook.forget()

    def codebooks(self) -> list[Codebook]:
        """The codebooks of the routers that have one."""
        routers = [branch.router for branch in self.encoder.branches().values()]
        return [router.codebook for router in routers if hasattr(router, "codebook")]

    @torch.no_grad()
    def evaluate(
        self, data_generator: Iterable[Batch], metrics: list[str] | None = None
    ) -> dict[str, float]:
        """The metrics (default: those of the configuration) over all samples, in one pass."""
        self.eval()
        scores, labels, groups = [], [], []
        for batch in data_generator:
            scores.append(self.forward(batch)["y_pred"].flatten())
            labels.append(self.get_labels(batch).flatten())
            if self.feature_map.group_id is not None:
                groups.append(self.get_group_id(batch).flatten())
        y_pred, y_true = (torch.cat(part).cpu().numpy() for part in (scores, labels))
        group_id = torch.cat(groups).cpu().numpy() if groups else None
        results = self.evaluate_metrics(
            y_true, y_pred, metrics or self.validation_metrics, group_id
        )
        logging.info("[Metrics] " + " - ".join(f"{k}: {v:.6f}" for k, v in results.items()))
        return results

    def evaluate_metrics(self, y_true, y_pred, metrics, group_id=None) -> dict[str, float]:
        """See ``metrics.evaluate_metrics``."""
        return evaluate_metrics(y_true, y_pred, metrics, group_id)


def _keyword_only(reader: Callable) -> list[str]:
    parameters = inspect.signature(reader).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _keywords(reader: Callable, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a flat configuration that are keyword-only parameters of ``reader``."""
    return {name: config[name] for name in _keyword_only(reader) if name in config}
