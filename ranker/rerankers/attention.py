"""Attention of a list over itself, and the block of PRM and SetRank around it.

Projections have no bias, as in the papers (a bias of the keys would cancel in the softmax), and there is no dropout: KAR's
default. No position is read here, so moving the items of a list moves the rows of the result.

Shapes: L lists, K places, d_in input, d output, n heads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., arXiv 1706.03762, section 3.2) of each list over itself.

    Args:
        d_in: Size of an input vector.
        d: Size of an output vector, all heads together.
        n_heads: How many heads share it.
    """

    def __init__(self, d_in: int, d: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(d_in, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """(L, K, d_in) -> (L, K, d); places that are not ``present`` (L, K) are not attended to."""
        keys = present | ~present.any(dim=1, keepdim=True)  # an empty list attends to all its places: no NaN in the gradient
        split = self.query_key_value(x).unflatten(2, (3, self.n_heads, -1))  # (L, K, 3, n, d / n)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (L, n, K, d / n) each
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys[:, None, None, :])
        joined: Tensor = self.out(attended.transpose(1, 2).flatten(2))  # (L, K, d)
        return joined


class AttentionBlock(nn.Module):
    """LN(b + FFN(b)) with b = LN(x + attention(x)): PRM's transformer block, SetRank's MSAB.

    Args:
        d: Size of a vector.
        n_heads: Attention heads.
        d_hidden: Hidden units of the feed-forward network.
    """

    def __init__(self, d: int, n_heads: int, d_hidden: int) -> None:
        super().__init__()
        self.attention = SelfAttention(d, d, n_heads)
        self.attention_norm = nn.LayerNorm(d)
        self.feed_forward = nn.Sequential(nn.Linear(d, d_hidden), nn.ReLU(), nn.Linear(d_hidden, d))
        self.feed_forward_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """(L, K, d) -> (L, K, d)."""
        b = self.attention_norm(x + self.attention(x, present))  # (L, K, d)
        result: Tensor = self.feed_forward_norm(b + self.feed_forward(b))  # (L, K, d)
        return result
