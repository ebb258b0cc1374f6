"""How the EarlyCroP repository initialises its networks."""

from __future__ import annotations

from torch import nn

NEGATIVE_SLOPE = 0.05
"""Of its leaky rectifiers."""


def initialise_orthogonally(model: nn.Module) -> None:
    """Make all weights orthogonal, in place; biases keep PyTorch's uniform distribution."""
    gain = nn.init.calculate_gain("leaky_relu", NEGATIVE_SLOPE)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gain)
