"""Lets the masked layers of a model compute on sparse kernels for a while."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MethodType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.sparse_kernels.layers import (
    FORWARDS,
    Forward,
    dropout_forward,
    normalization_forward,
)
from harness.sparse_kernels.semi_structured import semi_structured_forward, semi_structured_reason

SPARSE_CSR = "sparse csr"
SPARSE_2_4 = "sparse 2:4"
DENSE = "dense"

Masks = Mapping[str, Tensor]
"""For each masked weight, by its name in the model, a boolean tensor: what stays."""


class SparseExecution:
    """A context in which layers of a model compute on sparse kernels.

    Weights stay ordinary parameters. For finite inputs, outputs and gradients are those of dense
    layers to rounding, except that the gradient is zero where a weight was removed. Copies of the
    model compute densely.

    Args:
        model: whose parameters stay as they are.
        masks: what survives; removed weights take no part, whatever their value.
        layers: the names of the layers to execute sparsely; None for all that can be.
        contiguous: whether outputs are laid out as by dense layers. Otherwise they may be
            transposed in memory, which is faster, but which ``Tensor.view`` may refuse.

    Raises:
        ValueError: a mask has no weight or another shape, or a layer has no sparse kernel.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        layers: Collection[str] | None = None,
        contiguous: bool = False,
    ) -> None:
        self._model = model
        self._asked = None if layers is None else set(layers)
        self.contiguous = contiguous
        """Whether outputs are laid out as by dense layers."""
        self._active = False
        self.dense: dict[str, str] = {}
        """Why each other masked layer is dense, by name."""
        self.kernels: dict[str, str] = {}
        """The kernel of each layer that is executed sparsely, by name."""
        self._forwards: dict[nn.Module, Forward] = {}
        self.update(masks)

    def update(self, masks: Masks) -> None:
        """Follow new masks, as after a further pruning."""
        active = self._active
        self.__exit__()
        possible, self.dense = sparse_layers(self._model, masks)
        if self._asked is not None:
            if unknown := sorted(self._asked - set(possible)):
                reasons = "; ".join(
                    f"{name}: {self.dense.get(name, 'no masked layer')}" for name in unknown
                )
                raise ValueError(f"these layers have no sparse kernel: {reasons}")
            self.dense |= {name: "not chosen" for name in possible if name not in self._asked}
            possible = {name: layer for name, layer in possible.items() if name in self._asked}
        self.kernels = {name: layer.kernel for name, layer in possible.items()}
        self._forwards = {
            layer.module: self._laid_out(layer.build()) for layer in possible.values()
        }
        if SPARSE_CSR in self.kernels.values() and not self.contiguous:
            for module in self._model.modules():
                forward = getattr(module.forward, "__func__", None)
                if isinstance(module, _BatchNorm) and forward is _BatchNorm.forward:
                    self._forwards[module] = normalization_forward(module)
                elif isinstance(module, nn.Dropout) and forward is nn.Dropout.forward:
                    self._forwards[module] = dropout_forward(module)
        if active:
            self.__enter__()

    def __enter__(self) -> Self:
        """Let the layers compute sparsely from now on."""
        for module, forward in self._forwards.items():
            replaced = _Forward(forward)
            replaced.module = module
            module.forward = replaced
        self._active = True
        return self

    def __exit__(self, *_: object) -> None:
        """Let the layers compute as torch built them."""
        for module in self._forwards:
            if isinstance(vars(module).get("forward"), _Forward):
                del module.forward
        self._active = False

    def _laid_out(self, forward: Forward) -> Forward:
        def laid_out(*inputs: Any, **named: Any) -> Any:
            outputs = forward(*inputs, **named)
            return _contiguous(outputs) if self.contiguous else outputs

        return laid_out


class SparseLayer:
    """A masked layer for which there is a sparse kernel.

    Args:
        module: the layer.
        masks: of its weights, by their names in it.
        kernel: the kernel's name.
    """

    def __init__(self, module: nn.Module, masks: Masks, kernel: str) -> None:
        self.module = module
        self.masks = masks
        self.kernel = kernel

    def build(self) -> Forward:
        """Return a forward pass on that kernel."""
        if self.kernel == SPARSE_2_4:
            assert isinstance(self.module, nn.Linear)
            return semi_structured_forward(self.module, self.masks)
        return FORWARDS[type(self.module).forward](self.module, self.masks)

    @property
    def density(self) -> float:
        """The share of its weights that is left."""
        total = sum(mask.numel() for mask in self.masks.values())
        return sum(int(mask.count_nonzero()) for mask in self.masks.values()) / max(total, 1)


def sparse_layers(model: nn.Module, masks: Masks) -> tuple[dict[str, SparseLayer], dict[str, str]]:
    """Return the masked layers that have a sparse kernel, and why others have none, by name.

    Raises:
        ValueError: a mask has no weight, or another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters:
            raise ValueError(f"the model has no weight {name!r} for a mask")
        if parameters[name].shape != mask.shape:
            raise ValueError(
                f"the mask of {name!r} has the shape {tuple(mask.shape)}, "
                f"the weight {tuple(parameters[name].shape)}"
            )
    mask_of = {id(parameters[name]): mask for name, mask in masks.items()}
    sparse: dict[str, SparseLayer] = {}
    dense: dict[str, str] = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not any(id(parameter) in mask_of for parameter in own.values()):
            continue
        layer = {
            local: mask_of.get(id(parameter), torch.ones_like(parameter, dtype=torch.bool))
            for local, parameter in own.items()
            if local.startswith("weight")
        }
        kernel, reason = _kernel(module, layer, own)
        if reason:
            dense[name] = reason
        else:
            sparse[name] = SparseLayer(module, layer, kernel)
    return sparse, dense


def _kernel(module: nn.Module, masks: Masks, own: Mapping[str, nn.Parameter]) -> tuple[str, str]:
    """Return the kernel for a layer, or why there is none."""
    weights = [own[name] for name in masks]
    if "forward" in vars(module):
        return DENSE, "its forward pass was replaced"
    if any(name.endswith(("_g", "_v", "_orig")) for name in masks):
        return DENSE, "its weight is computed from others"
    if any(weight.device.type != "cpu" for weight in weights):
        return SPARSE_2_4, semi_structured_reason(module, masks)
    if type(module).forward is nn.Embedding.forward:
        return DENSE, "a look-up reads one row, whatever that holds"
    if type(module).forward not in FORWARDS:
        return DENSE, f"{type(module).__name__} has no sparse kernel"
    if any(weight.dtype not in (torch.float32, torch.float64) for weight in weights):
        return DENSE, f"no sparse kernel for {weights[0].dtype}"
    return SPARSE_CSR, ""


class _Forward(partial[Any]):
    """The forward pass that a module has within the context; its copies compute densely."""

    module: nn.Module

    def __reduce__(self) -> tuple[Callable[[nn.Module], Forward], tuple[nn.Module]]:
        return _dense_forward, (self.module,)


def _dense_forward(module: nn.Module) -> Forward:
    return MethodType(type(module).forward, module)


def _contiguous(outputs: Any) -> Any:
    """Return tensors, or tuples of them, in C order."""
    if isinstance(outputs, Tensor):
        return outputs.contiguous()
    return tuple(_contiguous(output) for output in outputs)
