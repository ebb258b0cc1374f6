"""The numbers that modules keep as sizes, after a removal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels.groups import ChannelGraph, KeptSize, Place


def positions_kept(size: KeptSize, kept: Mapping[str, Tensor]) -> Tensor:
    """Return which positions of its axis stay (a boolean each).

    Args:
        size: the number.
        kept: which channels of each group stay (a boolean each).
    """
    stays = torch.ones(size.size, dtype=torch.bool)
    for group, channel in size.channels.items():
        stays &= torch.where(channel >= 0, kept[group][channel], True)
    return stays


def kept_sizes_after(
    model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]
) -> dict[Place, int]:
    """Return the values that numbers are to have once channels are removed.

    Raises:
        RequestError: the model has other numbers than the graph's.
    """
    modules = dict(model.named_modules())
    numbers: dict[Place, int] = {}
    for size in graph.sizes_kept:
        own: Any = vars(modules[size.module]) if size.module in modules else {}
        try:
            for key in size.path:
                own = own[key]
        except (KeyError, IndexError, TypeError):
            own = None
        if own != size.size:
            name = f"{size.module}.{size.path[0]}".lstrip(".")
            raise RequestError(
                f"the graph is another model's: {name!r} is {own} here and {size.size} there"
            )
        numbers[size.module, size.path] = int(positions_kept(size, kept).sum())
    return numbers


def put_numbers(model: nn.Module, numbers: Mapping[Place, int]) -> None:
    """Let modules keep other numbers; lists that they are in are replaced, and not written to."""
    modules = dict(model.named_modules())
    for (name, path), number in numbers.items():
        attributes = modules[name].__dict__
        attribute = str(path[0])
        attributes[attribute] = _with(attributes[attribute], path[1:], number)


def _with(value: Any, path: tuple[str | int, ...], number: int) -> Any:
    """Return a copy of nested containers in which one number is another."""
    if not path:
        return number
    if isinstance(value, dict):
        return {**value, path[0]: _with(value[path[0]], path[1:], number)}
    items = list(value)
    items[int(path[0])] = _with(items[int(path[0])], path[1:], number)
    return type(value)(items)


@contextmanager
def numbers_replaced(model: nn.Module, numbers: Mapping[Place, int]) -> Iterator[None]:
    """Let modules keep other numbers for a while."""
    modules = dict(model.named_modules())
    before = [(modules[name].__dict__, str(path[0])) for name, path in numbers]
    originals = [(attributes, name, attributes[name]) for attributes, name in before]
    put_numbers(model, numbers)
    try:
        yield
    finally:
        for attributes, name, value in originals:
            attributes[name] = value


class PartlyKept(int):
    """The size of an axis of which some positions are held at zero.

    Attributes:
        kept: the others.
    """

    kept: Tensor

    def __new__(cls, stays: Tensor) -> PartlyKept:
        """Return the size.

        Args:
            stays: for each position, whether it is kept.
        """
        number = super().__new__(cls, len(stays))
        number.kept = stays.nonzero().squeeze(1)
        return number


def smaller_kept_sizes(graph: ChannelGraph, kept: Mapping[str, Tensor]) -> tuple[KeptSize, ...]:
    """Return the numbers as they are in the graph of the smaller model."""

    def smaller(size: KeptSize) -> KeptSize:
        stays = positions_kept(size, kept)
        channels = {
            group: torch.where(channel >= 0, kept[group].cumsum(0)[channel] - 1, -1)[stays]
            for group, channel in size.channels.items()
        }
        return KeptSize(size.module, size.path, int(stays.sum()), channels)

    return tuple(map(smaller, graph.sizes_kept))
