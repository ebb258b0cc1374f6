"""Multiply-accumulates of one call, with torch's own formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from harness.prunable import prunable_weights

aten = torch.ops.aten


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates of one call.

    ``effective_macs`` leaves out all products with removed weights. It is a theoretical number
    that no dense kernel reaches on unstructured masks, and never a speed-up.
    """

    dense_macs: int
    effective_macs: int


@dataclass(frozen=True)
class Product:
    """A matrix product or a convolution.

    Attributes:
        macs: its multiply-accumulates.
        weights: the prunable weights among its two factors, by name.
        learning: how many of these weights have a gradient.
        with_gradient: how many of the two factors have one.
    """

    macs: int
    weights: Sequence[str]
    learning: int
    with_gradient: int


def count_operations(
    model: nn.Module, run: Callable[[], object], masks: Mapping[str, Tensor]
) -> Operations:
    """Count the multiply-accumulates of one call.

    Convolutions count their padding, as is usual. Only matrix products and convolutions count;
    elementwise products do not. A weight must be used itself, or as a view or transpose: a copy
    of it counts as dense.

    Args:
        model: must be on the CPU, since cuDNN's recurrent operations have no formula.
        run: calls the model, usually on one sample.
        masks: the kept weights, boolean, by name; weights without a mask are dense.

    Raises:
        ValueError: the model is not on the CPU.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise ValueError("operations are counted on the CPU, the same for every device")
    densities = {
        name: Fraction(int(masks[name].sum()), weight.numel())
        for name, weight in prunable_weights(model).items()
        if name in masks and weight.numel() > 0
    }
    found = products(model, run)
    effective = sum(
        each.macs * math.prod(densities.get(name, Fraction(1)) for name in each.weights)
        for each in found
    )
    return Operations(sum(each.macs for each in found), round(effective))


def operations_by_weight(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Return the multiply-accumulates of one call by prunable weight.

    The model may be on any device that has unfused kernels; see `count_operations`.
    """
    return all_operations(model, run)[1]


def all_operations(model: nn.Module, run: Callable[[], object]) -> tuple[int, dict[str, int]]:
    """Return the multiply-accumulates of one call: all of them, and those by prunable weight.

    The model may be on any device that has unfused kernels; see `count_operations`.
    """
    with torch.no_grad():
        found = products(model, run)
    by_weight = dict.fromkeys(prunable_weights(model), 0)
    for each in found:
        for name in each.weights:
            by_weight[name] += each.macs
    return sum(each.macs for each in found), by_weight


def products(model: nn.Module, run: Callable[[], object]) -> list[Product]:
    """Return the matrix products and convolutions of one call, in their order.

    The model may be on any device that has unfused kernels; see `count_operations`.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    counter = _Counter(prunable_weights(model))
    with cudnn, _countable_operations(), counter:
        run()
    return counter.products


@contextmanager
def _countable_operations() -> Iterator[None]:
    """Switch off fused kernels, for which torch has no formula and would count 0."""
    backends: Any = torch.backends
    mkldnn, fast_path = backends.mkldnn.enabled, backends.mha.get_fastpath_enabled()
    try:
        backends.mkldnn.enabled = False
        backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        backends.mkldnn.enabled = mkldnn
        backends.mha.set_fastpath_enabled(fast_path)


class _Counter(TorchDispatchMode):
    """Sees every operation below autograd with its arguments."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        # cuDNN keeps the weights of a recurrent layer in one storage.
        self._weights: dict[int, dict[str, Tensor]] = {}
        for name, weight in weights.items():
            self._weights.setdefault(weight.untyped_storage().data_ptr(), {})[name] = weight
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if decomposed is NotImplemented else decomposed
        result = func(*args, **kwargs)
        macs = formula(*args, **kwargs, out_val=result) // 2
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        first = 1 if func.overloadpacket in _WITH_ADDEND else 0
        factors = tensors[first : first + 2]
        learning = [torch.is_grad_enabled() and each.requires_grad for each in factors]
        weights = {
            name: learns
            for each, learns in zip(factors, learning, strict=True)
            if (name := self._name(each))
        }
        self.products.append(Product(macs, tuple(weights), sum(weights.values()), sum(learning)))
        return result

    def _name(self, factor: Tensor) -> str | None:
        """Return the name of the weight that a factor is, or is a view of."""
        for name, weight in self._weights.get(factor.untyped_storage().data_ptr(), {}).items():
            if 0 <= factor.storage_offset() - weight.storage_offset() < weight.numel():
                return name
        return None


_WITH_ADDEND = (aten.addmm, aten.addmv, aten.baddbmm, aten.addbmm)
"""Operations whose first argument is added to the product of the others."""


def _vector_product(matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


def _added_vector_product(bias: Tensor, matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


_FORMULAS: Mapping[Any, Callable[..., int]] = {
    aten.mv: _vector_product,
    aten.addmv: _added_vector_product,
    aten.dot: _vector_product,
    **flop_registry,
}
"""Floating-point operations, two per multiply-accumulate; torch lacks formulas for vectors."""
