"""Attention, and the block of which transformers consist.

No layer stores a width: all sizes but that of a head are those of the weights, so that whole heads,
hidden units of the feed-forward layers and features of the residual stream can be removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import RequestError

Positions = Literal["learned", "rotary"]
"""How a transformer knows the order of its inputs.

``learned``: a vector for each position is added to the input. ``rotary``: queries and keys are
turned by angles that grow with their position (Su et al. 2021, arXiv:2104.09864).
"""

SLOWEST = 10_000.0
"""About how many positions the slowest of the rotary angles needs for one radian."""

DEVIATION = 0.02
"""Standard deviation of embeddings of words and positions, as in GPT-2."""


@dataclass(frozen=True)
class Sizes:
    """The sizes with which a transformer is built.

    Raises:
        RequestError: the heads do not share keys and values equally, or rotary positions meet an
            odd width.
    """

    head_width: int
    """Features of a query, key or value."""
    heads: int
    blocks: int
    expansion: int = 4
    """Hidden units of a feed-forward layer, as a multiple of the width."""
    key_heads: int = 0
    """Heads of keys and values, each shared by equally many heads of queries: grouped-query
    attention (Ainslie et al. 2023, arXiv:2305.13245). 0: as many as heads of queries."""
    positions: Positions = "learned"

    def __post_init__(self) -> None:
        if self.key_heads and self.heads % self.key_heads:
            raise RequestError(
                f"key_heads={self.key_heads} does not divide heads={self.heads}: "
                "each head of keys and values serves equally many heads of queries"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise RequestError(
                f"positions=rotary turns pairs of features, and a head has {self.head_width}"
            )

    @property
    def width(self) -> int:
        """Features of the residual stream, as many as all heads have together."""
        return self.heads * self.head_width


class Attention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762), without biases.

    Only the width of a head is a given number, so heads can be removed, but only as a whole: with
    their queries, keys, values and inputs of the output layer. Heads of queries that share keys
    are removed together.

    Args:
        sizes: see `Sizes`.
        is_causal: whether each position sees itself and earlier ones only.
    """

    def __init__(self, sizes: Sizes, *, is_causal: bool) -> None:
        super().__init__()
        width, of_keys = sizes.width, (sizes.key_heads or sizes.heads) * sizes.head_width
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, of_keys, bias=False)
        self.value = nn.Linear(width, of_keys, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self._sizes = sizes
        self._is_causal = is_causal

    def forward(self, x: Tensor) -> Tensor:
        """Return what each position reads from those that it sees.

        Args:
            x: features (batch, length, width).

        Returns:
            Features (batch, length, width).
        """
        query, key, value = (
            layer(x).unflatten(-1, (-1, self._sizes.head_width)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self._sizes.positions == "rotary":
            query, key = rotated(query), rotated(key)
        # Versions of torch before 2.5 do not know the argument.
        shared: Any = {"enable_gqa": True} if self._sizes.key_heads else {}
        read = F.scaled_dot_product_attention(
            query, key, value, is_causal=self._is_causal, **shared
        )
        mixed: Tensor = self.output(read.transpose(1, 2).flatten(2))
        return mixed


def rotated(heads: Tensor) -> Tensor:
    """Turn the pairs of features of queries or keys by angles that grow with the position.

    The product of a turned query and a turned key depends on the distance of their positions only.
    Feature ``i`` is paired with ``i + features / 2``.

    Args:
        heads: queries or keys (batch, heads, length, features).
    """
    length, features = heads.shape[-2:]
    halves = torch.arange(0, features, 2, device=heads.device, dtype=heads.dtype) / features
    places = torch.arange(length, device=heads.device, dtype=heads.dtype)
    angles = places[:, None] * SLOWEST**-halves
    cosine, sine = angles.cos(), angles.sin()
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to the residual stream.

    Both read a normalised stream (pre-norm, Xiong et al. 2020, arXiv:2002.04745).

    Args:
        sizes: see `Sizes`.
        is_causal: see `Attention`.
        dropout: probability of dropping a feature of what is added, in training.
    """

    def __init__(self, sizes: Sizes, *, is_causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        width, hidden = sizes.width, sizes.expansion * sizes.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(sizes, is_causal=is_causal)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden, bias=False)
        self.contract = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream (batch, length, width) after the block."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        hidden = F.gelu(self.expand(self.feed_forward_norm(x)))
        after: Tensor = x + self.dropout(self.contract(hidden))
        return after


def blocks(sizes: Sizes, *, is_causal: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Return the blocks of a transformer, newly initialised.

    Weights are those of Glorot and Bengio 2010. What blocks add to the stream is smaller by the
    root of their number, as in GPT-2, so that the stream has about the same size in all networks.

    Args:
        sizes: see `Sizes`.
        is_causal: see `Attention`.
        dropout: see `Block`.
    """
    stack = [Block(sizes, is_causal=is_causal, dropout=dropout) for _ in range(sizes.blocks)]
    for block in stack:
        adding = block.attention.output, block.contract
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                gain = (2 * sizes.blocks) ** -0.5 if layer in adding else 1.0
                nn.init.xavier_uniform_(layer.weight, gain)
    return nn.Sequential(*stack)
