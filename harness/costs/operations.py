"""Multiply-accumulates of one call, with torch's own formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
        weight.untyped_storage().data_ptr(): Fraction(int(masks[name].sum()), weight.numel())
        for name, weight in prunable_weights(model).items()
        if name in masks and weight.numel() > 0
    }
    with _countable_operations(), _Counter(densities) as counter:
        run()
    return Operations(counter.dense, round(counter.effective))


def operations_by_weight(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Return the multiply-accumulates of one call by prunable weight.

    The model may be on any device that has unfused kernels; see `count_operations`.
    """
    weights = prunable_weights(model)
    names = {weight.untyped_storage().data_ptr(): name for name, weight in weights.items()}
    with _countable_operations(), torch.no_grad(), _Counter({}) as counter:
        run()
    return {name: counter.by_storage[place] for place, name in names.items()}


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

    def __init__(self, densities: Mapping[int, Fraction]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self._densities = densities
        self.dense = 0
        self.effective = Fraction(0)
        self.by_storage: Counter[int] = Counter()

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
        self.dense += macs
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.by_storage[leaf.untyped_storage().data_ptr()] += macs
        self.effective += macs * self._density((args, kwargs))
        return result

    def _density(self, arguments: object) -> Fraction:
        density = Fraction(1)
        for leaf in tree_leaves(arguments):
            if isinstance(leaf, Tensor):
                density *= self._densities.get(leaf.untyped_storage().data_ptr(), 1)
        return density


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
