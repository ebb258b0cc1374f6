"""The normalisation layers of a model, whose scales some methods take for gates."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from harness.errors import Skip

NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def norm_scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the learned scales by name.

    Raises:
        Skip: there are none.
    """
    scales = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, NORMALISATIONS) and module.weight is not None
    }
    if not scales:
        raise Skip("the network has no normalisation layers with scales that could be its gates")
    return scales
