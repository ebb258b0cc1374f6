"""Which weights count: the denominator of every sparsity."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

LAYERS = (_ConvNd, nn.Linear, nn.Embedding, nn.RNNBase, nn.RNNCellBase)
"""Convolutions (transposed ones too), linear, embedding and recurrent layers."""


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the prunable weights by name, tied ones once, in the order of the modules.

    First and last layers are included; biases, normalisation and free parameters never are.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, LAYERS):
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            is_weight = name.rpartition(".")[2].startswith("weight")
            if is_weight and id(parameter) not in seen:
                seen.add(id(parameter))
                found[name] = parameter
    return found
