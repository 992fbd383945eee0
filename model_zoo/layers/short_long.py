"""The base of blocks with two parts: target attention over recent items, and a long part."""

from .attention import ShortTargetAttention, TargetAttention
from .block import SequenceBlock


class ShortLongBlock(SequenceBlock):
    """Base of blocks that join attention over recent items with a long part, as in LongCTR.

    A subclass adds the long part. The output concatenates both parts and has width 2 * D.

    Args:
        item_dim: D, width of an item.
        attention_dim: total width of the heads.
        num_heads: number of attention heads.
        attention_dropout: dropout rate of the attention weights.
        use_scale: divide scores by the square root of a head's width.
        use_qkvo: project queries, keys, values and outputs.
        short_seq_len: length of the recent part, counting the target.
        longctr_compat: use LongCTR's mask of the recent part; see ``ShortTargetAttention``.

    Attributes:
        attention: arguments for a ``TargetAttention`` with these hyper-parameters.
    """

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
        longctr_compat: bool = False,
    ) -> None:
        super().__init__()
        shape = (item_dim, attention_dim, num_heads)
        self.attention = (*shape, attention_dropout, use_scale, use_qkvo)
        self.short_attention = ShortTargetAttention(
            *self.attention, short_seq_len=short_seq_len, longctr_compat=longctr_compat
        )
        self.longctr_compat = longctr_compat
        self.output_dim = 2 * item_dim

    def read_events(self, sizes: list[int]) -> None:
        """Every target attention of the block reads the features of events."""
        for part in self.children():
            if isinstance(part, TargetAttention):
                part.read_events(sizes)
