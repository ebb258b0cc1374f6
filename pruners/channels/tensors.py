"""The tensors of a model by name, and putting others in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import SUPPORTED_NODES, tree_leaves

from harness.errors import RequestError

Place = tuple[nn.Module, dict[str, Tensor | None], str]
"""A module, its dictionary of parameters or of buffers, and the name in it."""


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that have axes, tied ones once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.dim()}


def places(model: nn.Module) -> dict[int, list[Place]]:
    """Return where each parameter and buffer is held, by its id: tied ones in several places."""
    found: dict[int, list[Place]] = {}
    for module in model.modules():
        held: tuple[dict[str, Tensor | None], ...] = (module._parameters, module._buffers)  # type: ignore[assignment]  # torch types them apart
        for tensors in held:
            for name, tensor in tensors.items():
                if tensor is not None:
                    found.setdefault(id(tensor), []).append((module, tensors, name))
    return found


def put(model: nn.Module, replacements: Mapping[int, Tensor]) -> None:
    """Put other tensors in the place of a model's own, ties included.

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
    """Put other tensors in the place of a model's own for a while; see `put`."""
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
    """Return all tensors of a model's output, once each.

    Found are those in tuples, lists, sets and mappings, in containers that torch knows, and in
    the attributes of any other object, such as a dataclass.

    Raises:
        RequestError: something is returned that can be gone through only once.
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
    """Return what a container or an object holds."""
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
            # It keeps a second list of its weights.
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
