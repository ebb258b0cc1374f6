"""What language models without a state have in common: their predictions, made of logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class LogitsModel(nn.Module, ABC):
    """A network that maps words to logits; it sees the words of its window, and nothing before it.

    `PSMM` has the same functions, a state, and no logits.
    """

    has_state: ClassVar[bool] = False
    """Evaluation gives it the words before as a part of its window."""

    @abstractmethod
    def logits(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocabulary) for word numbers (batch, length)."""

    @abstractmethod
    def flow(self) -> Tensor:
        """Return the summed logits for the mean word: the objective of SynFlow."""

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Return log p(w) for every position and word.

        Args:
            tokens: word numbers (batch, length); each prediction follows its token.
            state: nothing; a recurrent model has one.

        Returns:
            Log-probabilities (batch, length, vocabulary), and no state.
        """
        return F.log_softmax(self.logits(tokens), dim=-1), None

    def target_log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: None = None
    ) -> tuple[Tensor, None]:
        """Return log p(target) for every target (batch, targets), and no state.

        Args:
            tokens: word numbers (batch, length).
            targets: the words after the last tokens (batch, targets); earlier tokens are context.
            state: nothing; a recurrent model has one.
        """
        logits = self.logits(tokens)[:, -targets.shape[1] :].transpose(1, 2)
        return -F.cross_entropy(logits, targets, reduction="none"), None

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of -log p(target), the training loss, in nats per word."""
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten())
