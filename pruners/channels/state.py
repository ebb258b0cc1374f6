"""What a forward pass may leave behind in a model, and taking it back."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ModelState:
    """What all modules of a model hold in their attributes: caches, counters, flags, whatever.

    Lists, dictionaries, sets and plain objects in them get their contents back. Tensors do too
    that are written to in place, as far as `Originals` is told of it.

    Args:
        model: as it is to be again.

    Attributes:
        originals: its tensors.
    """

    def __init__(self, model: nn.Module) -> None:
        self._undo: list[Callable[[], object]] = []
        seen: set[int] = set()
        for module in model.modules():
            _note(module.__dict__, self._undo, seen)
        self._undo += [functools.partial(random.setstate, random.getstate())]
        self._undo += [functools.partial(np.random.set_state, np.random.get_state())]
        self.originals = Originals(model)

    def restore(self) -> None:
        """Put everything back."""
        self.originals.restore()
        for restore in reversed(self._undo):
            restore()


def _note(value: Any, undo: list[Callable[[], object]], seen: set[int]) -> None:
    """Note how to give a value its contents back, and those of all that it holds."""
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if type(held) in _ATOMS or id(held) in seen or isinstance(held, _LEFT_ALONE):
            continue
        seen.add(id(held))
        if isinstance(held, torch.Generator):
            undo.append(functools.partial(held.set_state, held.get_state()))
        elif isinstance(held, dict):
            undo.append(functools.partial(_refill_dict, held, dict(held)))
            waiting += held.values()
        elif isinstance(held, list):
            undo.append(functools.partial(_refill_list, held, list(held)))
            waiting += held
        elif isinstance(held, set):
            undo.append(functools.partial(_refill_set, held, set(held)))
        elif isinstance(held, tuple):
            waiting += held
        elif hasattr(held, "__dict__"):
            waiting.append(vars(held))


_ATOMS = frozenset(
    {str, bytes, bool, int, float, complex, type(None), torch.dtype, torch.device, Tensor}
)
_LEFT_ALONE = (nn.Module, Tensor, type, FunctionType, MethodType, ModuleType, str, int, float)


def _refill_dict(held: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    if len(held) == len(before) and all(
        one is other and held[one] is before[other] for one, other in zip(held, before, strict=True)
    ):
        return
    held.clear()
    held.update(before)


def _refill_list(held: list[Any], before: list[Any]) -> None:
    if len(held) != len(before) or any(map(_differ, held, before)):
        held[:] = before


def _refill_set(held: set[Any], before: set[Any]) -> None:
    held.clear()
    held.update(before)


def _differ(one: Any, other: Any) -> bool:
    return one is not other


SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]  # a getset descriptor


class Originals:
    """Tensors that are to keep their values: each is copied before it is first written to.

    Args:
        model: whose parameters, buffers and other tensors are meant.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors: dict[int, Tensor] = {}
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._replaced: list[tuple[Tensor, Tensor]] = []
        held = [*model.parameters(), *model.buffers()]
        for module in model.modules():
            held += _tensors_beside(module)
        for tensor in held:
            if tensor.layout is torch.strided:
                self._tensors.setdefault(_storage(tensor), tensor)

    def about_to_write(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Copy what an operation is going to change."""
        given = zip(func._schema.arguments, args, strict=False)
        written = [value for argument, value in given if argument.is_write]
        for tensor in (*written, *kwargs.values()):
            if not isinstance(tensor, Tensor):
                continue
            if tensor.layout is torch.strided and not tensor.is_meta:
                own = self._tensors.get(_storage(tensor))
                if own is not None and id(own) not in self._before:
                    self._before[id(own)] = own, own.detach().clone()

    def about_to_replace(self, tensor: Tensor) -> None:
        """Keep what ``tensor.data = ...`` is going to drop."""
        self._replaced.append((tensor, tensor.data))

    def restore(self) -> None:
        """Give the tensors their values back."""
        for tensor, data in reversed(self._replaced):
            tensor.data = data
        self._replaced.clear()
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.detach().copy_(before)
        self._before.clear()


def _tensors_beside(module: nn.Module) -> list[Tensor]:
    """Return the tensors that a module holds in plain attributes, lists and dictionaries."""
    found: list[Tensor] = []
    waiting = [value for name, value in module.__dict__.items() if name not in _TENSORS_AND_PARTS]
    while waiting:
        held = waiting.pop()
        if isinstance(held, Tensor):
            found.append(held)
        elif isinstance(held, dict):
            waiting += held.values()
        elif isinstance(held, (list, tuple)):
            waiting += held
    return found


_TENSORS_AND_PARTS = ("_parameters", "_buffers", "_modules")


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def nothing_remembered() -> Iterator[None]:
    """Let functions with a cache compute anew: it may hold what sizes of another pass gave."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _WITHOUT_SIZES or not isinstance(module, ModuleType):
            continue
        names = vars(module)
        if _CACHED in map(type, list(names.values())):
            cached = [(key, value) for key, value in names.items() if type(value) is _CACHED]
            replaced += [(names, key, value) for key, value in cached]
    try:
        for names, key, value in replaced:
            names[key] = value.__wrapped__
        yield
    finally:
        for names, key, value in replaced:
            names[key] = value


_CACHED = type(functools.lru_cache(str))
_WITHOUT_SIZES = sys.stdlib_module_names | {"torch", "numpy", "scipy", "sympy", "matplotlib"}
