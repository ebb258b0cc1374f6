"""Sizes that the model's code reads from its tensors, and what it does with them.

Whether ``x[:, :8]`` or ``x.view(b, 4, 16)`` survives the removal of channels depends on where the
numbers come from. While a model is traced, the size of a labelled axis is therefore a `Width`: an
integer that remembers its axis, also where the code reads it from a module, as in
``conv.out_channels``. A plain integer was written in the code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Width(int):
    """The size of a labelled axis, or a number computed from it.

    Attributes:
        rows: labels (alternatives, size): axes of which each has this size, as it will be after
            any removal, or None if the number is only known to change with the axis.
        origin: the pass whose labels they are. Code may keep a size longer than that.
    """

    rows: npt.NDArray[np.int64] | None
    origin: object

    def __new__(cls, size: int, rows: npt.NDArray[np.int64] | None, origin: object) -> Width:
        """Return a number that remembers where it comes from."""
        width = super().__new__(cls, size)
        width.rows = rows
        width.origin = origin
        return width

    @property
    def follows(self) -> bool:
        """Whether it is known to be the size of an axis after any removal."""
        return self.rows is not None

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Let copies be plain numbers: models may keep a size."""
        return int, (int(self),)

    def __floordiv__(self, parts: int) -> int:
        size = int(self) // parts
        if self.rows is None or self <= 0 or int(self) % parts:
            return Width(size, None, self.origin)
        return Width(size, self.rows.reshape(-1, size), self.origin)

    def __add__(self, other: int) -> int:
        if not isinstance(other, int):
            return NotImplemented
        size = int(self) + int(other)
        if not (isinstance(other, Width) and self > 0 and other > 0):
            return Width(size, None, self.origin)
        if self.rows is None or other.rows is None or len(self.rows) + len(other.rows) > 2:
            return Width(size, None, self.origin)
        return Width(size, np.concatenate([self.rows, other.rows], axis=1), self.origin)

    __radd__ = __add__

    def __mul__(self, factor: int) -> int:
        if not isinstance(factor, int):
            return NotImplemented
        rows = self.rows if int(factor) == 1 else None
        return Width(int(self) * int(factor), rows, self.origin)

    __rmul__ = __mul__

    def __neg__(self) -> int:
        return Width(-int(self), self.rows, self.origin)

    def __sub__(self, other: int) -> int:
        return Remainder(self, other) if isinstance(other, int) else NotImplemented

    def __rsub__(self, other: int) -> int:
        return Remainder(other, self) if isinstance(other, int) else NotImplemented


class Remainder(Width):
    """What one size leaves of another.

    Attributes:
        whole: the one.
        part: the other.
    """

    whole: int
    part: int

    def __new__(cls, whole: int, part: int) -> Remainder:
        """Return the difference, which remembers both."""
        number = int.__new__(cls, operator.index(whole) - operator.index(part))
        number.rows = None
        number.origin = next(own.origin for own in (whole, part) if isinstance(own, Width))
        number.whole, number.part = whole, part
        return number

    @property
    def follows(self) -> bool:
        """Whether it is known to be the size of an axis after any removal."""
        positive = min(operator.index(self.whole), operator.index(self.part)) > 0
        return positive and operator.index(self) != 0


_SHAPED: frozenset[Any] = frozenset(
    {
        torch.Tensor.view,
        torch.Tensor.reshape,
        torch.reshape,
        torch.Tensor.unflatten,
        torch.unflatten,
        torch.Tensor.expand,
        torch.Tensor.broadcast_to,
        torch.Tensor.view_as,
        torch.Tensor.reshape_as,
        torch.Tensor.expand_as,
        torch.broadcast_to,
        torch.Tensor.new_zeros,
        torch.Tensor.new_ones,
        torch.Tensor.new_empty,
        torch.Tensor.new_full,
        torch.zeros,
        torch.ones,
        torch.empty,
        torch.full,
        torch.rand,
        torch.randn,
        torch.arange,
        torch.eye,
    }
)
_UNFLATTEN: tuple[Any, ...] = (torch.Tensor.unflatten, torch.unflatten)
_SPLITS: tuple[Any, ...] = (
    torch.split,
    torch.Tensor.split,
    torch.split_with_sizes,
    torch.Tensor.split_with_sizes,
)


@dataclass(frozen=True)
class Call:
    """One call of the model's code into torch.

    Attributes:
        function: what is called.
        args: with what.
        kwargs: with what, by name.
        met: ids of the sizes among the arguments that a rule has taken for the size of an axis.
    """

    function: Callable[..., Any] | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    met: set[int] = field(default_factory=set)

    @property
    def is_split(self) -> bool:
        """Whether the sizes of the parts were asked for, and not their number."""
        return self.function in _SPLITS

    def widths(self) -> list[Width]:
        """Return the sizes among the arguments that come from labelled axes."""
        return [number for number in _numbers([self.args, self.kwargs]) if _is_width(number)]

    def argument(self, position: int, *names: str) -> Any:
        """Return an argument that may be given by place or by name, or None."""
        given = self.args[position] if len(self.args) > position else None
        return next((self.kwargs[name] for name in names if name in self.kwargs), given)

    def repetitions(self, times: Sequence[int]) -> Sequence[int]:
        """Return how often each axis is repeated, as the code has written it."""
        numbers = list(_numbers([self.args, self.kwargs]))
        return numbers if [operator.index(n) for n in numbers] == list(times) else times

    def shape(self, dims: int) -> list[int] | None:
        """Return the shape that was asked for, or None if the call does not name one.

        Args:
            dims: number of axes of the result; an answer of another length is none.
        """
        if self.function not in _SHAPED:
            return None
        numbers = list(_numbers([self.args, self.kwargs]))
        if self.function in _UNFLATTEN:
            tensor = next(arg for arg in self.args if isinstance(arg, Tensor))
            dim, sizes = int(numbers[0]) % tensor.dim(), numbers[1:]
            numbers = [*[-1] * dim, *sizes, *[-1] * (tensor.dim() - dim - 1)]
        elif self.function in {torch.full, torch.Tensor.new_full}:
            numbers = numbers[:dims]
        elif self.function is torch.eye and len(numbers) == 1:
            numbers *= 2
        return numbers if len(numbers) == dims else None


def _is_width(number: int) -> bool:
    return isinstance(number, Width)


def _numbers(arguments: Any) -> Iterator[Any]:
    """Walk through nested arguments and yield the integers."""
    if isinstance(arguments, bool):
        return
    if isinstance(arguments, int):
        yield arguments
    elif isinstance(arguments, slice):
        yield from _numbers([arguments.start, arguments.stop, arguments.step])
    elif isinstance(arguments, Mapping):
        yield from _numbers(list(arguments.values()))
    elif isinstance(arguments, (tuple, list)):
        for argument in arguments:
            yield from _numbers(argument)
