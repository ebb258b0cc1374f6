"""2:4 sparsity: of four neighboring weights of a row two at most survive, for tensor cores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.sparse_kernels.layers import Forward

FIRST_CAPABILITY = (8, 0)
"""Ampere was the first generation of NVIDIA's GPUs with these kernels."""
DTYPES = (torch.float16, torch.bfloat16)


def is_two_of_four(mask: Tensor) -> bool:
    """Return whether of each four neighboring weights of a row at most two survive."""
    if mask.dim() != 2 or mask.shape[1] % 4:
        return False
    return bool((mask.view(mask.shape[0], -1, 4).sum(2) <= 2).all())


def semi_structured_reason(module: nn.Module, masks: Mapping[str, Tensor]) -> str:
    """Return why a layer on a GPU has no 2:4 kernel; nothing where it has one."""
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return f"{type(module).__name__} has no sparse kernel on a GPU"
    if not is_two_of_four(masks["weight"]):
        return "its mask is not 2:4, and a GPU has no other sparse kernel that pays"
    weight = module.weight
    if weight.dtype not in DTYPES:
        return f"2:4 kernels are for half precision, not {weight.dtype}"
    if weight.device.type != "cuda" or (
        torch.cuda.get_device_capability(weight.device) < FIRST_CAPABILITY
    ):
        return "this device has no 2:4 kernel"
    try:
        _compressed(weight.detach())
    except (RuntimeError, ValueError) as error:
        return f"2:4 kernels refuse it: {str(error).splitlines()[0]}"
    return ""


def semi_structured_forward(module: nn.Linear, masks: Mapping[str, Tensor]) -> Forward:
    """Return the forward pass of a linear layer for inference; training is dense."""
    mask = masks["weight"]
    compressed: Tensor | None = None
    version = -1

    def forward(input: Tensor) -> Tensor:  # noqa: A002
        nonlocal compressed, version
        weight = module.weight
        learning = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        if learning or input.dtype != weight.dtype:
            return F.linear(input, weight, module.bias)
        now = -1 if weight.is_inference() else weight._version
        if compressed is None or now < 0 or now != version:
            with torch.inference_mode(False), torch.no_grad():
                compressed, version = _compressed(weight.detach() * mask), now
        return F.linear(input, compressed, module.bias)

    return forward


def _compressed(weight: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # The kernels are called a prototype, once in a process.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse.to_sparse_semi_structured(weight)
