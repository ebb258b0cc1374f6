"""Which weights still matter: those on a path from the input to the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from harness.prunable import copied, make_plain, prunable_weights

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
_AVERAGES: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
    nn.MaxPool3d: nn.AvgPool3d,
}
_FREE_PARAMETER = 1e-3


def effective_masks(
    flow: Callable[[nn.Module], Tensor], model: nn.Module, masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return which of the kept weights lie on a path from the input to the output.

    Vysogorets & Kempe, "Connectivity Matters: Neural Network Pruning Through the Lens of
    Effective Sparsity" (arXiv:2107.02306). On a copy with positive weights, no biases and no
    norms, everything that flows is positive and nothing cancels: the gradient of a weight is
    then positive exactly if a path from the input reaches it and continues to the output.

    Every unit averages its remaining inputs. So in a network of any width and depth no layer
    outputs more than its input (activations grow only where branches are added): nothing
    overflows or vanishes, and neither tanh nor sigmoid saturates (a saturated gate would have
    gradient 0 although it is connected).

    The weights of a gate count only if something reaches what it gates: those of an LSTM's input
    gate count as disconnected if nothing reaches the cell.

    Args:
        flow: returns the model's summed outputs, before any softmax, for an input of ones, as
            `harness.task.Task.flow` does.
        model: not changed.
        masks: the kept weights, boolean, by name; a weight without a mask is kept whole.

    Returns:
        A mask for each of `harness.prunable.prunable_weights`.
    """
    kept = {
        name: masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        for name, weight in prunable_weights(model).items()
    }
    positive, names = _positive_copy(model, kept)
    weights = prunable_weights(positive)
    # cuDNN's recurrent layers have no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        gradients = torch.autograd.grad(
            flow(positive),
            [weights[names.get(name, name)] for name in kept],
            allow_unused=True,
            materialize_grads=True,
        )
    pairs = zip(kept.items(), gradients, strict=True)
    return {name: mask & (gradient > 0) for (name, mask), gradient in pairs}


def emptied_layers(masks: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights that are removed completely."""
    return [name for name, mask in masks.items() if mask.numel() > 0 and not mask.any()]


def _positive_copy(
    model: nn.Module, kept: Mapping[str, Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    """Return the masked network with positive weights, no biases and no norms.

    In it computed weights are plain parameters; their names are returned, too.
    """
    positive = copied(model)
    names = make_plain(positive)
    masks = {names.get(name, name): mask for name, mask in kept.items()}
    positive.double().eval().requires_grad_(True)
    _replace_norms_and_maxima(positive)
    with torch.no_grad():
        for name, parameter in positive.named_parameters():
            parameter.fill_(0 if "bias" in name.rpartition(".")[2] else _FREE_PARAMETER)
        for name, weight in prunable_weights(positive).items():
            layer = positive.get_submodule(name.rpartition(".")[0])
            weight.copy_(_averaging(masks[name], isinstance(layer, _ConvTransposeNd)))
    return positive, names


def _averaging(kept: Tensor, transposed: bool) -> Tensor:
    """Return weights that sum to 1 for each output unit, or to 0 if none of them is kept."""
    output = 1 if transposed else 0
    inputs = [dimension for dimension in range(kept.dim()) if dimension != output]
    return kept.double() / kept.sum(inputs, keepdim=True).clamp(min=1)


def _replace_norms_and_maxima(model: nn.Module) -> None:
    """Replace norms by identities, and maximum pooling by average pooling.

    A norm subtracts, and a maximum follows only one of the possible paths.
    """
    for name, module in list(model.named_modules(remove_duplicate=False)):
        replacement = _replacement(module)
        if name and replacement is not None:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, replacement)


def _replacement(module: nn.Module) -> nn.Module | None:
    if isinstance(module, _NORMS):
        return nn.Identity()
    for maximum, average in _AVERAGES.items():
        if isinstance(module, maximum):
            return average(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    return None
