"""The tensors and attributes of a model: replacing them for a while, and restoring them."""

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
from torch.utils._pytree import SUPPORTED_NODES, tree_leaves

from harness.errors import RequestError

# Tensors

Holder = tuple[nn.Module, dict[str, Tensor | None], str]
"""A module, its dictionary of parameters or of buffers, and a name in that dictionary."""


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers with at least one axis; tied ones occur once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.dim()}


def places(model: nn.Module) -> dict[int, list[Holder]]:
    """Return the holders of each parameter and buffer by its id; tied ones have several."""
    found: dict[int, list[Holder]] = {}
    for module in model.modules():
        held: tuple[dict[str, Tensor | None], ...] = (module._parameters, module._buffers)  # type: ignore[assignment]  # torch types them apart
        for tensors in held:
            for name, tensor in tensors.items():
                if tensor is not None:
                    found.setdefault(id(tensor), []).append((module, tensors, name))
    return found


def put(model: nn.Module, replacements: Mapping[int, Tensor]) -> None:
    """Replace tensors of a model, wherever it holds them.

    Args:
        model: the model.
        replacements: the new tensors, by the ids of the old ones.
    """
    found = places(model)
    for old, new in replacements.items():
        for _, tensors, name in found.get(old, []):
            tensors[name] = new
    _refresh_recurrent(model)


@contextmanager
def replaced(model: nn.Module, replacements: Mapping[int, Tensor]) -> Iterator[None]:
    """Replace tensors of a model within the context; see `put`."""
    before = [
        (tensors, name, tensors[name])
        for same in places(model).values()
        for _, tensors, name in same
    ]
    put(model, replacements)
    try:
        yield
    finally:
        for tensors, name, tensor in before:
            tensors[name] = tensor
        _refresh_recurrent(model)


def returned_tensors(result: Any) -> list[Tensor]:
    """Return all tensors of a model's output, each once.

    The search covers tuples, lists, sets and mappings, the containers that torch knows, and the
    attributes of any other object, such as a dataclass.

    Raises:
        RequestError: the output contains an iterator, which can be consumed only once.
    """
    found: list[Tensor] = []
    seen: set[int] = set()
    waiting = [result]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _NO_CONTAINERS):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, Iterator):
            raise RequestError(
                f"the model returns a {type(value).__name__}, whose tensors cannot be seen: "
                "give a forward= that returns them in a list"
            )
        else:
            waiting += reversed(_held_by(value))
    return found


_NO_CONTAINERS = (nn.Module, type, FunctionType, ModuleType, str, bytes, int, float, complex)


def _held_by(value: Any) -> list[Any]:
    """Return the values that a container or an object holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (tuple, list, set, frozenset)):
        return list(value)
    if type(value) in SUPPORTED_NODES:
        return list(tree_leaves(value))
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    held = [getattr(value, name) for name in slots if hasattr(value, name)]
    return [*held, *getattr(value, "__dict__", {}).values()]


def _refresh_recurrent(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            # The module keeps a second list of its weights.
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


# Restoring a model after a pass


class ModelState:
    """The attributes of all modules of a model, such as caches, counters and flags.

    Restoring resets the contents of lists, dictionaries, sets and plain objects in them, the
    random states of Python and NumPy, and the values of tensors that `Originals` has copied.

    Args:
        model: the model in the state to be restored.

    Attributes:
        originals: the values of its tensors.
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
        """Restore everything."""
        self.originals.restore()
        for restore in reversed(self._undo):
            restore()


def _note(value: Any, undo: list[Callable[[], object]], seen: set[int]) -> None:
    """Note how to reset the contents of a value and of everything that it holds."""
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
    """The values of a model's tensors; each tensor is copied before it is first written to.

    Args:
        model: the model with these parameters, buffers and other tensors.
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
        """Copy the tensors that an operation is going to change."""
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
        """Keep the data that ``tensor.data = ...`` is going to drop."""
        self._replaced.append((tensor, tensor.data))

    def restore(self) -> None:
        """Restore the values of all tensors."""
        for tensor, data in reversed(self._replaced):
            tensor.data = data
        self._replaced.clear()
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.detach().copy_(before)
        self._before.clear()


def _tensors_beside(module: nn.Module) -> list[Tensor]:
    """Return the tensors in a module's plain attributes, lists and dictionaries."""
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
    """Bypass the caches of functions, which may hold results for sizes of another pass."""
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
