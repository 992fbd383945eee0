"""The base class of the models: an embedding, a mixture of sequence blocks, a classifier head.

A backbone is a ``SequenceModel`` with a ``block``. A variant of the backbone adds a ``mixture``.

Shape suffixes: B samples, L history length, U rows (distinct items), D item width, H width of a
block's output, F width of all features.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from fuxictr.features import FeatureMap
from torch import Tensor, nn

from . import compat, ranks
from .batch import Batch
from .embedding import feature_embedding
from .heads import MLPHead
from .history.buckets import one_numbering
from .history.history import History
from .history.item_dict import on, positions
from .history.matches import MatchReader, id_features
from .history.rare_ids import RareIds
from .layers.block import SequenceBlock, compile_blocks
from .moe.branch import Branch
from .moe.mixtures import Mixture
from .moe.stages import Stage, StageName
from .ops.compiled import call_compiled, require_compiler
from .ops.precision import bf16_products
from .training.base_model import StagedModel
from .training.checkpoints import load_backbone, load_grown
from .training.hyper_parameters import chosen, keywords
from .training.initializer import FUXICTR_START, parse_initializer
from .training.optimizer import require_sparse_optimizer
from .training.sparse_embedding import use_sparse_gradients

LOSSES = ("binary_crossentropy", "binary_cross_entropy", "bce")  # FuxiCTR's names of one loss


class SequenceModel(StagedModel):
    """A model that predicts clicks (CTR) from a user's history.

    It computes ``sigmoid(head([context, target, encoder(history, target), matches]))``.

    Its hyper-parameters are the ones below, the keyword-only parameters of ``block``, ``mixture``
    and ``head``, and FuxiCTR's. ``hyper_parameters`` lists them.

    Args:
        feature_map: FuxiCTR's feature map; features with ``source: item`` describe items.
        model_id: name of the checkpoint file.
        gpu: number of the CUDA device, or -1 for the CPU.
        embedding_dim: width of every feature that does not set its own.
        embedding_initializer: how embedding tables are drawn, in FuxiCTR's spelling (see
            ``training/initializer.py``). Rows of padding are zero. Pretrained vectors stay as they are.
        loss: one of FuxiCTR's names of binary cross-entropy.
        backbone_checkpoint: file of weights from which embeddings, global block and head start. The
            weights are the vanilla backbone's, or those of LongCTR's model of the same name. With
            them, the backbone needs no warm-up, and this stage is left out.
        init_from: file of a trained model's weights, from which all start; there is no warm-up then.
            Embedding tables may have more rows, as after ``prepare.py generic --like --grow``.
        amp: ``bf16`` rounds the matrix products of blocks and head to bf16, in training and
            evaluation. Weights, optimizer and loss stay float32 (see ``ops/precision.py``).
        compile: compile blocks and head with torch.compile, for a GPU (see ``ops/compiled.py``).
        sparse_embedding: update and regularise only the rows of large embedding tables that a batch
            reads. This is for tables of millions of rows. ``training/sparse_embedding.py`` says
            how close the results are to those with dense tables.
        match_features: give the head numbers that say what target and history share (see
            ``history/matches.py``).
        expert_match: give each item expert such numbers about its own part of the history, too.
        match_windows: their windows of time, in seconds before the sample; None if times are not
            known.
        rare_id_rate: hide an id from training with probability ``rate / (rate + n)``, if n training
            samples have it (see ``history/rare_ids.py``).
        event_cols: the features that events have of their own, ``{name, vocab_size}`` each. Batches
            have them in ``ItemDict.events``. Blocks that cannot read them run as without.
        kwargs: passed on to ``StagedModel``, block, mixture, head and FuxiCTR.

    Raises:
        ValueError: a hyper-parameter has an impossible value, or no feature describes items.
    """

    block: type[SequenceBlock]
    mixture: type[Mixture] = Mixture
    head: type[nn.Module] = MLPHead
    aux_weights = 1.0, 1.0  # of the losses of a block's auxiliary logit, and of the prediction

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "SequenceModel",
        gpu: int = -1,
        *,
        embedding_dim: int = 10,
        embedding_initializer: str = FUXICTR_START,
        loss: str = LOSSES[0],
        backbone_checkpoint: str | None = None,
        init_from: str | None = None,
        amp: str | None = None,
        compile: bool = False,
        sparse_embedding: bool = False,
        match_features: bool = False,
        expert_match: bool = False,
        match_windows: list[float] | None = None,
        rare_id_rate: float = 0.0,
        event_cols: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss: {loss!r} is not supported; write {LOSSES[0]!r}")
        if amp not in (None, "bf16"):
            raise ValueError(f"amp: {amp!r} is not supported; write bf16, or leave it out")
        if expert_match and not match_features:
            raise ValueError("expert_match: needs match_features: True, or leave it out")
        rng = torch.get_rng_state()
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        if sparse_embedding:  # asked before large tables are drawn
            require_sparse_optimizer(self.optimizer_name)
        self.item_dim = feature_map.sum_emb_out_dim(feature_source="item")
        if not self.item_dim:
            name = feature_map.dataset_id
            raise ValueError(
                f"{name}: no feature has `source: item`; add it in dataset_config.yaml"
            )
        initializer = parse_initializer(embedding_initializer)
        self.embedding_layer = feature_embedding(feature_map, embedding_dim, initializer)
        if sparse_embedding:
            use_sparse_gradients(self.embedding_layer)
        self.event_sizes = {column["name"]: column["vocab_size"] for column in event_cols or []}
        make_block = partial(self._block, **chosen(kwargs, self.block))
        parts = (self.block, *self.mixture.readers())
        self.unites_equal = any(getattr(part, "unites_equal", False) for part in parts)
        mixture_config = chosen(kwargs, *self.mixture.readers())
        self.encoder = self.mixture(make_block, self.item_dim, **mixture_config)
        given, self.aux_dim = feature_map.sum_emb_out_dim(), self.encoder.global_block.aux_dim
        width = given + self.encoder.output_dim - self.aux_dim
        self.rare_ids = RareIds(id_features(feature_map.features), rare_id_rate)
        self.matches: MatchReader | None = None
        if match_features:
            windows = None if match_windows is None else len(match_windows)
            self.matches = MatchReader(feature_map.features, windows, width)
            width += self.matches.width
        for name, branch in self.branches.items():
            if expert_match and name != "window":  # a window has no ids
                branch.read_matches(3 * len(id_features(feature_map.features)))
        widths = [width, given + self.aux_dim] if self.aux_dim else [width]
        self.classifier = self.head(*widths, **chosen(kwargs, self.head))
        torch.set_rng_state(rng)
        self.reset_parameters()
        self.amp = amp
        self.backbone_checkpoint, self.init_from = backbone_checkpoint, init_from
        if backbone_checkpoint is not None:
            load_backbone(self, backbone_checkpoint)
        if init_from is not None:
            load_grown(self, init_from)
        self.to(self.device)
        self.compiled = compile
        if compile:
            require_compiler(self.device)
            compile_blocks(self)

    def _block(self, **settings: Any) -> SequenceBlock:
        block = self.block(self.item_dim, **settings)
        if self.event_sizes:
            block.read_events(list(self.event_sizes.values()))
        return block

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """The name and type of every configuration key that the model or its training reads."""
        parts = (cls.block, *cls.mixture.readers(), cls.head)
        return super().hyper_parameters() | keywords(*parts)

    def reset_parameters(self) -> None:
        """Initialise all weights as FuxiCTR does, the backbone before the experts.

        So every variant of a backbone starts from the same embeddings, global block and head, if
        the random state is the same.
        """
        for part in (*self.backbone_parts(), *self.expert_parts()):
            compat.reset_parameters(part)

    # ---------------------------------------------------------------- stages and experts

    @property
    def branches(self) -> Mapping[str, Branch]:
        return self.encoder.branches

    def backbone_parts(self) -> tuple[nn.Module, ...]:
        return self.embedding_layer, self.classifier, self.encoder.global_block

    def expert_parts(self) -> tuple[nn.Module, ...]:
        return tuple(self.encoder.added())

    def stages(self, epochs: float) -> list[Stage]:
        """The stages of the mixture, without those that trained weights replace."""
        stages = self.encoder.stages(epochs)
        if self.init_from is not None:
            logging.info(f"no warm-up: all weights start from {self.init_from}")
            return stages[-1:]
        if self.backbone_checkpoint is not None:
            logging.info(f"no warm-up: the backbone starts from {self.backbone_checkpoint}")
            stages = [stage for stage in stages if stage.name is not StageName.BACKBONE]
        return stages

    def enter(self, stage: StageName) -> None:
        self.encoder.enter(stage)

    def before_training(self, batches: Iterable[Batch]) -> None:
        if unknown := self.rare_ids.unknown:
            features = self.feature_map.features
            sizes = {name: features[name]["vocab_size"] for name in unknown}
            self.rare_ids.count(map(self._candidates, batches), sizes)

    def _candidates(self, inputs: Batch) -> dict[str, Tensor]:
        """The item features of the target of each sample."""
        columns, row_BL1, _ = self._positions(inputs)
        return {name: rows.index_select(0, row_BL1[:, -1]) for name, rows in columns.items()}

    @torch.no_grad()
    def before_experts(self, batches: Iterable[Batch], seed: int) -> None:
        if self.init_from is not None:
            return  # the routers are trained, too
        self.eval()
        self.encoder.before_experts((self.embed_items(batch)[0] for batch in batches), seed)

    def routed(self, inputs: Batch) -> dict[str, History]:
        history, _ = self.embed_items(inputs)
        return {name: self.encoder.sequence(name, history) for name in self.branches}

    # ---------------------------------------------------------------- forward

    def forward(self, inputs: Batch) -> dict[str, Tensor]:
        """Predict a batch: ``y_pred (B, 1)`` in (0, 1), its ``logit``, and the ``aux_loss``.

        ``aux_loss`` is the routers' auxiliary loss, a scalar. In training, a block with ``aux_dim``
        also gives an ``aux_logit``.
        """
        if torch.jit.is_tracing():
            raise RuntimeError(
                "torch.jit.trace would keep sizes of the example, and score other users wrong; "
                "use `python -m engine.export`, or export_program of serving.py"
            )
        columns, row_BL1, mask_BL = self._positions(inputs)
        shown = self.rare_ids.hide(columns) if self.training else columns
        history, target_BD = self._embed(shown, row_BL1, mask_BL)
        events = getattr(inputs[1], "events", {})
        history.events = self._event_columns(events, columns, row_BL1)
        shared = []
        if self.matches is not None:
            counted_BM = getattr(inputs[1], "matches", None)
            shared = [self.matches.read(counted_BM, columns, row_BL1, mask_BL)]
            history.matches_within = partial(self.matches.within, columns, row_BL1[:, -1])
        return self.score(history, target_BD, self.context_features(inputs[0]), shared)

    def score(
        self,
        history: History,
        target_BD: Tensor,
        context: dict[str, Tensor],
        matches: Iterable[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Predict targets from what is embedded already, as ``forward``.

        Args:
            history: of each target, or one that all share.
            target_BD: embeddings of the targets.
            context: see ``context_features``.
            matches: what ``MatchReader`` reads, if the model has one.
        """
        features = [self.embedding_layer(context, flatten_emb=True)] if context else []
        features.append(target_BD)
        with bf16_products(self.device, enabled=self.amp == "bf16"):
            y_BH, aux_loss = self.encoder(history, target_BD)
            y_BH, aux_BA = y_BH.tensor_split([y_BH.shape[1] - self.aux_dim], dim=1)
            features_BF = torch.cat([*features, y_BH, *matches], dim=-1)
            if self.compiled and len(features_BF) > 1:  # a batch of one would need another graph
                logit = call_compiled(self.classifier, features_BF)
            else:
                logit = self.classifier(features_BF)
            found = {"y_pred": logit.sigmoid(), "logit": logit, "aux_loss": aux_loss}
            if self.aux_dim and self.training:
                found["aux_logit"] = cast(MLPHead, self.classifier).auxiliary(
                    torch.cat([*features, aux_BA], -1)
                )
        return found

    def embed_items(self, inputs: Batch) -> tuple[History, Tensor]:
        """The history of each sample, and the embedding of its target ``(B, D)``."""
        return self._embed(*self._positions(inputs))

    def _embed(
        self, columns: Mapping[str, Tensor], row_BL1: Tensor, mask_BL: Tensor
    ) -> tuple[History, Tensor]:
        rows_UD = self.embedding_layer(columns, flatten_emb=True)
        history = History(rows_UD, row_BL1[:, :-1], mask_BL)
        return history, history.lookup(row_BL1[:, -1])

    def _positions(self, inputs: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        _, item_dict, mask = inputs
        return positions(item_dict, mask, self.device, self.unites_equal)

    def _event_columns(
        self, events: Mapping[str, Tensor], columns: Mapping[str, Tensor], row_BL1: Tensor
    ) -> tuple[Tensor, ...]:
        """The buckets of the events; a subclass may add columns, from the features of all positions."""
        columns_BL = one_numbering(self.event_sizes, events)
        return tuple(on(self.device, column_BL) for column_BL in columns_BL)

    def context_features(self, batch_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features of the user and the context, without labels, meta columns and items."""
        features = self.feature_map.features
        return {
            name: on(self.device, value)
            for name, value in batch_dict.items()
            if name in features
            and features[name]["type"] != "meta"
            and features[name].get("source") != "item"
        }

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """The training loss: cross-entropy plus auxiliary losses, without regulariser.

        Where several processes train, the mean over them is the loss of the whole batch.

        It is computed from logits. The value equals FuxiCTR's, which is computed from
        probabilities. With a NaN among these, FuxiCTR's would fail inside the kernel and, on CUDA,
        end the process. Here a NaN gives a NaN, which training can report.
        """
        loss = F.binary_cross_entropy_with_logits(return_dict["logit"], y_true)
        if "aux_logit" in return_dict:
            aux = F.binary_cross_entropy_with_logits(return_dict["aux_logit"], y_true)
            loss = self.aux_weights[0] * aux + self.aux_weights[1] * loss
        return ranks.weighted(loss, len(y_true)) + return_dict["aux_loss"]
