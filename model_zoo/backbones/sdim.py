"""SDIM: target attention by hash collisions over a long history (Cao et al., CIKM 2022).

Shape suffixes: B samples, L history length, U rows, D item width, H hashes, T bits per hash.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..history.history import History
from ..layers.attention import ShortTargetAttention
from ..layers.block import SequenceBlock
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel


class SDIMBlock(SequenceBlock):
    """The block of SDIM: attention over recent items, and a sum of items with the target's hash.

    It follows LongCTR, with the mask of the short window corrected and hashes fixed in evaluation.
    Each expert has hashes of its own. The output is ``[long, short]``, of width 2 * D.

    Args:
        item_dim: D, width of an item.
        attention_dim, num_heads, attention_dropout, use_scale, use_qkvo, short_seq_len: see
            ``ShortTargetAttention``.
        num_hashes: H, hashes per item.
        hash_bits: T, bits of a hash; two items of angle a collide with probability (1 - a/pi)^T.
        reuse_hash: keep the same rotations; otherwise each training step draws new ones.
        l2_norm: normalise the sum of each hash, as in the paper. Otherwise it grows with the number
            of collisions, as by default in LongCTR.
        longctr_compat: use LongCTR's short mask. Without ``reuse_hash``, also draw rotations for
            each sample, in evaluation too.
    """

    rotations_DHT: Tensor

    def __init__(
        self,
        item_dim: int,
        *,
        attention_dim: int = 64,
        num_heads: int = 1,
        attention_dropout: float = 0.0,
        use_scale: bool = True,
        use_qkvo: bool = True,
        short_seq_len: int = 50,
        num_hashes: int = 1,
        hash_bits: int = 4,
        reuse_hash: bool = True,
        l2_norm: bool = False,
        longctr_compat: bool = False,
    ) -> None:
        super().__init__()
        if num_hashes < 1 or not 1 <= hash_bits <= 62:
            raise ValueError(
                f"num_hashes={num_hashes}, hash_bits={hash_bits} are impossible; "
                "write 1 or more hashes of 1 to 62 bits"
            )
        self.short_attention = ShortTargetAttention(
            item_dim,
            attention_dim,
            num_heads,
            attention_dropout,
            use_scale,
            use_qkvo,
            short_seq_len=short_seq_len,
            longctr_compat=longctr_compat,
        )
        self.register_buffer("rotations_DHT", torch.randn(item_dim, num_hashes, hash_bits))
        self.reuse_hash = reuse_hash
        self.l2_norm = l2_norm
        self.longctr_compat = longctr_compat
        self.output_dim = 2 * item_dim

    def init_weights(self) -> None:
        """Draw random rotations; FuxiCTR calls this."""
        nn.init.normal_(self.rotations_DHT)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        short_BD = self.short_attention(history, target_BD)
        with unrounded(target_BD):
            long_BD = self._long_interest(history, target_BD)
        return torch.cat([long_BD, short_BD], dim=-1)

    def _long_interest(self, history: History, target_BD: Tensor) -> Tensor:
        """The mean over the hashes of the sum of the items that collide with the target."""
        collide_BLH = (self._collisions(history, target_BD) & history.mask_BL[:, :, None]).to(
            target_BD.dtype
        )
        if not self.l2_norm:
            return history.weighted_sum(collide_BLH.mean(-1)[:, None, :])[:, 0]
        sums_BHD = history.weighted_sum(collide_BLH.transpose(1, 2))
        return F.normalize(sums_BHD, dim=-1).mean(1)

    @torch.no_grad()
    def _collisions(self, history: History, target_BD: Tensor) -> Tensor:
        """Whether item and target have the same hash: ``(B, L, H)``."""
        if not self.reuse_hash and self.longctr_compat:
            shape = (len(target_BD), *self.rotations_DHT.shape)
            rotations_BDHT = torch.randn(shape, dtype=target_BD.dtype, device=target_BD.device)
            item_BLH = hashes(
                torch.einsum("bld,bdht->blht", history.embed_detached(), rotations_BDHT)
            )
            return (
                item_BLH == hashes(torch.einsum("bd,bdht->bht", target_BD, rotations_BDHT))[:, None]
            )
        rotations_DHT = self.rotations_DHT
        if not self.reuse_hash and self.training:
            rotations_DHT = torch.randn_like(rotations_DHT)
        item_BLH = history.project(
            lambda x: hashes(torch.einsum("...d,dht->...ht", x, rotations_DHT))
        )
        return item_BLH == hashes(torch.einsum("bd,dht->bht", target_BD, rotations_DHT))[:, None]

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = {k: v for k, v in weights.items() if k not in ("random_rotations", "powers_of_two")}
        if "random_rotations" in weights:
            kept["rotations_DHT"] = weights["random_rotations"][0]
        return kept


def hashes(rotated_T: Tensor) -> Tensor:
    """The hash of each vector: its signs as bits, the first bit lowest; 0 counts as -."""
    bits = torch.arange(rotated_T.shape[-1], device=rotated_T.device)
    return ((rotated_T > 0).long() << bits).sum(-1)


class SDIM(SequenceModel):
    """SDIM without experts."""

    block = SDIMBlock
