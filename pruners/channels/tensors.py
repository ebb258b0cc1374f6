"""The tensors of a model by name, and putting others in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

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


def _refresh_recurrent(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            # It keeps a second list of its weights.
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
