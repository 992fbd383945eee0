"""SDIM: target attention by hash collisions over a long history (Cao et al., CIKM 2022).

Shape suffixes: B samples, L history length, U rows, D item width, H hashes, T bits per hash.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..history.history import History
from ..layers.events import EventInput
from ..layers.short_long import ShortLongBlock
from ..ops.functional import check_sizes, unit_length
from ..ops.precision import unrounded
from ..sequence_model import SequenceModel


class SDIMBlock(ShortLongBlock):
    """The block of SDIM: attention over recent items, and the sum of items with the target's hash.

    It follows LongCTR, but with the mask of the recent items corrected, and with the same hashes
    throughout evaluation. Each expert has its own hashes. The output is ``[long, short]``, of width
    2 * D. With event features, a colliding item adds ``x + sum_e v_e`` to the sum; the hash is that
    of the item x alone. Only the attention over recent items has biases.

    Args:
        item_dim: D, width of an item.
        num_hashes: H, number of hashes per item.
        hash_bits: T, bits per hash. Two vectors at an angle a have the same hash with probability
            (1 - a/pi)^T.
        reuse_hash: keep the same rotations. Otherwise each training step draws new ones.
        l2_norm: normalise the sum of each hash, as in the paper. Otherwise it grows with the number
            of collisions, as it does by default in LongCTR.
        attention: see ``ShortLongBlock``. With ``longctr_compat`` and without ``reuse_hash``,
            rotations are drawn for each sample, in evaluation too.
    """

    rotations_DHT: Tensor

    def __init__(
        self,
        item_dim: int,
        *,
        num_hashes: int = 1,
        hash_bits: int = 4,
        reuse_hash: bool = True,
        l2_norm: bool = False,
        **attention: Any,
    ) -> None:
        super().__init__(item_dim, **attention)
        check_sizes(num_hashes=num_hashes, hash_bits=hash_bits)
        if hash_bits > 62:
            raise ValueError(f"hash_bits={hash_bits} does not fit in 64 bits; write 1 to 62")
        self.register_buffer("rotations_DHT", torch.randn(item_dim, num_hashes, hash_bits))
        self.reuse_hash, self.l2_norm = reuse_hash, l2_norm
        self.events: EventInput | None = None

    def read_events(self, sizes: list[int]) -> None:
        super().read_events(sizes)
        self.events = EventInput(len(self.rotations_DHT), sizes)

    def init_weights(self) -> None:
        """Draw random rotations; FuxiCTR calls this."""
        nn.init.normal_(self.rotations_DHT)

    def forward(self, history: History, target_BD: Tensor) -> Tensor:
        short_BD = self.short_attention(history, target_BD)
        with unrounded(target_BD):
            long_BD = self._long_interest(history, target_BD)
        return torch.cat([long_BD, short_BD], dim=-1)

    def _long_interest(self, history: History, target_BD: Tensor) -> Tensor:
        """For each hash, sum the items that collide with the target; then average, ``(B, D)``."""
        collide_BLH = self._collisions(history, target_BD)
        if self.l2_norm:
            weights_BHL = collide_BLH.to(target_BD.dtype).transpose(1, 2)
        else:
            weights_BHL = collide_BLH.mean(-1, dtype=target_BD.dtype)[:, None]
        weights_BHL = weights_BHL * history.mask_BL[:, None]
        if self.events is None:
            sums_BHD = history.weighted_sum(weights_BHL)
        else:
            sums_BHD = self.events.fold(history.weighted_sum(weights_BHL, self.events.buckets))
        return (unit_length(sums_BHD) if self.l2_norm else sums_BHD).mean(1)

    @torch.no_grad()
    def _collisions(self, history: History, target_BD: Tensor) -> Tensor:
        """Whether each item has the same hash as the target, ``(B, L, H)``."""
        draw = not self.reuse_hash and (self.training or self.longctr_compat)
        if draw and self.longctr_compat:
            rotations = target_BD.new_empty(len(target_BD), *self.rotations_DHT.shape).normal_()
            item_BLH = hashes(history.embed_detached(), rotations[:, None])
        else:
            rotations = torch.randn_like(self.rotations_DHT) if draw else self.rotations_DHT
            item_BLH = history.project(lambda x: hashes(x, rotations))
        return item_BLH == hashes(target_BD, rotations)[:, None]

    @staticmethod
    def from_longctr(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = {k: v for k, v in weights.items() if k not in ("random_rotations", "powers_of_two")}
        if "random_rotations" in weights:
            kept["rotations_DHT"] = weights["random_rotations"][0]
        return kept


def hashes(x: Tensor, rotations: Tensor) -> Tensor:
    """The hashes ``(..., H)`` of vectors ``(..., D)`` by rotations ``(..., D, H, T)``.

    The bits of a hash are the signs of the rotated vector, the first one lowest. Zero counts as
    negative. Every position of a batch gets a hash, so it has few bytes. It is no single byte, because
    torch.compile computes with those one at a time.
    """
    positive = torch.einsum("...d,...dht->...ht", x, rotations) > 0
    found, *higher = positive.to(torch.int32 if positive.shape[-1] < 32 else torch.long).unbind(-1)
    for place, bit in enumerate(higher, start=1):
        found = found | bit << place
    return found


class SDIM(SequenceModel):
    """SDIM without experts."""

    block = SDIMBlock
