"""Language models of other libraries and of a user's own files, as this task uses them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError
from tasks.ptb.logits import LogitsModel
from tasks.ptb.model import FLOW_STEPS


class ForeignLanguageModel(LogitsModel):
    """A network that maps words to logits; it sees the words of its window, and nothing before it.

    Args:
        network: maps word numbers (batch, length) to logits (batch, length, vocabulary), or to an
            object whose attribute ``logits`` has them, as those of transformers do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

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
