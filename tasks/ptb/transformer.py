"""A decoder-only transformer, which reads a window and predicts the word after each of its words.

It is a pre-norm decoder like GPT-2, without biases in its blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks.attention import DEVIATION, Sizes, blocks
from tasks.ptb.logits import LogitsModel


class Transformer(LogitsModel):
    """A language model that sees the words of its window, and nothing before it.

    Words have one vector, by which they are read and predicted (tied output, Press and Wolf 2017,
    arXiv:1608.05859). All functions are made of plain operations and can be differentiated any
    number of times, if attention has no fused kernel.

    The vectors of words have a length of about one at first, so that logits have a variance of one.

    Args:
        vocabulary: number of words.
        sizes: of the blocks.
        length: the longest window that is read, in words; learned positions have no more vectors.
        dropout: probability of dropping a feature of the embedding, and of what blocks add.
    """

    def __init__(self, vocabulary: int, sizes: Sizes, length: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, sizes.width)
        learned = sizes.positions == "learned"
        self.positions = nn.Embedding(length, sizes.width) if learned else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks(sizes, is_causal=True, dropout=dropout)
        self.norm = nn.LayerNorm(sizes.width)
        self.vocabulary = nn.Linear(sizes.width, vocabulary)
        self.vocabulary.weight = self.embedding.weight
        nn.init.zeros_(self.vocabulary.bias)
        # Smaller vectors of words would be lost in the stream under what the blocks add to it.
        nn.init.normal_(self.embedding.weight, std=sizes.width**-0.5)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=DEVIATION)

    def flow(self) -> Tensor:
        """Return the summed logits for the mean word.

        It is the objective of SynFlow for weights without signs, in the network as
        `harness.scoring.WithoutBarriers` leaves it: attention adds up what it reads, and nothing
        is normalised. The input is the one-hot input of ones, divided by the number of words, at
        the mean of the learned positions. There is a single word, because rotary positions turn
        those after the first.
        """
        x = self.embedding.weight.mean(0)
        if self.positions is not None:
            x = x + self.positions.weight.mean(0)
        return self._read(x.expand(1, 1, -1)).sum()

    def logits(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocabulary) for word numbers (batch, length)."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self._read(self.dropout(x))

    def _read(self, x: Tensor) -> Tensor:
        """Return logits (batch, length, vocabulary) for features (batch, length, width)."""
        logits: Tensor = self.vocabulary(self.norm(self.blocks(x)))
        return logits
