"""Language models of other libraries and of a user's own files, as this task uses them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError
from tasks.ptb.model import FLOW_STEPS


class ForeignLanguageModel(nn.Module):
    """A network that maps words to logits; it sees the words of its window, and nothing before it.

    Args:
        network: maps word numbers (batch, length) to logits (batch, length, vocabulary), or to an
            object whose attribute ``logits`` has them, as those of transformers do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Return log p(w) for every position and word.

        Args:
            tokens: word numbers (batch, length); each prediction follows its token.
            state: nothing; a recurrent model of this project has one.

        Returns:
            Log-probabilities (batch, length, vocabulary), and no state.
        """
        return F.log_softmax(self.logits(tokens), dim=-1), None

    def target_log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: None = None
    ) -> tuple[Tensor, None]:
        """Return log p(target) for every position (batch, length), and no state.

        Args:
            tokens: word numbers (batch, length).
            targets: the word after each token (batch, length).
            state: nothing; a recurrent model of this project has one.
        """
        logits = self.logits(tokens).transpose(1, 2)
        return -F.cross_entropy(logits, targets, reduction="none"), None

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of -log p(target), the training loss, in nats per word."""
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten())

    def logits(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocabulary) for word numbers (batch, length)."""
        outputs: Any = self.network(tokens)
        logits: Tensor = getattr(outputs, "logits", outputs)
        return logits

    def flow(self) -> Tensor:
        """Return the summed logits for a window of `FLOW_STEPS` times the mean word.

        It is the objective of SynFlow for weights without signs: the one-hot input of ones, divided
        by the number of words.

        Raises:
            RequestError: the network has no embedding.
        """
        embedding = next((m for m in self.network.modules() if isinstance(m, nn.Embedding)), None)
        if embedding is None:
            raise RequestError("the network has no torch.nn.Embedding, through which words flow")
        mean = embedding.weight.mean(0)
        handle = embedding.register_forward_hook(lambda *_: mean.expand(1, FLOW_STEPS, -1))
        try:
            tokens = torch.zeros(1, FLOW_STEPS, dtype=torch.long, device=mean.device)
            return self.logits(tokens).sum()
        finally:
            handle.remove()
