"""Sizes that the model's code reads from its tensors, and its calls of torch with them.

Whether ``x[:, :8]`` or ``x.view(b, 4, 16)`` survives the removal of channels depends on the origin
of the numbers. While a model is traced, the size of a labelled axis is therefore a `Width`, an
integer that remembers its axis, also if the code reads it from a module, as in
``conv.out_channels``. A plain integer is written in the code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket


class Pass(Protocol):
    """What a size knows of its pass; see `labels.LabelledTensors`."""

    call: Call
    over: bool

    def pin(self, labels: npt.NDArray[np.int64], reason: str) -> None:
        """Exclude channels from removal."""

    def tie(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Make all rows of a table the same channels."""


class Width(int):
    """The size of a labelled axis, or a number computed from it.

    If the code compares it with another number, and a removal could change the result, the axis
    keeps its size.

    Attributes:
        rows: labels (alternatives, size) of axes that each have this size after any removal, or
            None if the number is only known to change with the axis.
        origin: the pass that the labels belong to. The code may keep the number after its end.
    """

    rows: npt.NDArray[np.int64] | None
    origin: Pass
    _sources: tuple[npt.NDArray[np.int64], ...]

    def __new__(
        cls,
        size: int,
        rows: npt.NDArray[np.int64] | None,
        origin: Pass,
        sources: tuple[npt.NDArray[np.int64], ...] = (),
    ) -> Width:
        """Return a number that remembers its axes."""
        width = super().__new__(cls, size)
        width.rows = rows
        width.origin = origin
        width._sources = sources if rows is None else (*sources, rows)
        return width

    @property
    def sources(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Labels of all axes that the number was computed from."""
        return self._sources

    @property
    def follows(self) -> bool:
        """Whether it is known to be the size of an axis after any removal."""
        return self.rows is not None and not self.origin.over

    def every(self, step: int) -> Width:
        """Return the number of runs of ``step`` neighbours, each made from one channel."""
        rows = None if self.rows is None else self.rows[:, ::step]
        return Width(int(self) // step, rows, self.origin, self.sources)

    def pin(self, reason: str) -> None:
        """Exclude all channels that the number depends on from removal."""
        for labels in self.sources if not self.origin.over else ():
            self.origin.pin(labels.reshape(-1), reason)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Make copies plain numbers, because models may keep them."""
        return int, (int(self),)

    def _computed(self, size: int, *others: int) -> Width:
        """Return a number that is only known to change with the axes of this one and others."""
        sources = [w.sources for w in (self, *others) if isinstance(w, Width)]
        return Width(size, None, self.origin, tuple(chain.from_iterable(sources)))

    def __floordiv__(self, parts: int) -> int:
        size = int(self) // parts
        if self.rows is None or int(self) <= 0 or int(self) % parts or isinstance(parts, Width):
            return self._computed(size, parts)
        return Width(size, self.rows.reshape(-1, size), self.origin)

    def __add__(self, other: int) -> int:
        if not isinstance(other, int):
            return NotImplemented
        size = int(self) + int(other)
        if not (isinstance(other, Width) and int(self) > 0 and int(other) > 0):
            return self._computed(size, other)
        if self.rows is None or other.rows is None or len(self.rows) + len(other.rows) > 2:
            return self._computed(size, other)
        return Width(size, np.concatenate([self.rows, other.rows], axis=1), self.origin)

    __radd__ = __add__

    def __mul__(self, factor: int) -> int:
        if not isinstance(factor, int):
            return NotImplemented
        if int(factor) == 1 and not isinstance(factor, Width):
            return Width(int(self), self.rows, self.origin, self.sources)
        return self._computed(int(self) * int(factor), factor)

    __rmul__ = __mul__

    def __neg__(self) -> int:
        return Width(-int(self), self.rows, self.origin, self.sources)

    def __sub__(self, other: int) -> int:
        return Remainder(self, other) if isinstance(other, int) else NotImplemented

    def __rsub__(self, other: int) -> int:
        return Remainder(other, self) if isinstance(other, int) else NotImplemented

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return self._compared(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._compared(operator.ne, other)

    def __lt__(self, other: Any) -> bool:
        return self._compared(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._compared(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._compared(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._compared(operator.ge, other)

    def _compared(self, compare: Callable[[Any, Any], bool], other: Any) -> bool:
        """Compare two numbers, and ensure that no removal changes the result.

        Comparisons inside torch's own functions are exempt: they compare sizes of tensors.
        """
        result = compare(int(self), int(other) if isinstance(other, Width) else other)
        if self.origin.over or self.origin.call.function is not None:
            return result
        if isinstance(other, Width) and not other.origin.over:
            if self.rows is not None and other.rows is not None and int(self) == int(other):
                self.origin.tie(np.concatenate([self.rows, other.rows]))
            else:
                self.pin("its size is compared with another")
                other.pin("its size is compared with another")
        elif isinstance(other, int) and self._may_change(compare, int(other), result):
            self.pin("its size is compared with a number that is written in the code")
        return result

    def _may_change(self, compare: Callable[[int, int], bool], number: int, result: bool) -> bool:
        """Return whether a comparison could have another result after a removal."""
        if compare in (operator.eq, operator.ne):
            return int(self) == number or (self.follows and 1 <= number < int(self))
        return int(self) > 0 and compare(1, number) != result


class Remainder(Width):
    """The difference of two sizes.

    Attributes:
        whole: the minuend.
        part: the subtrahend.
    """

    whole: int
    part: int

    def __new__(cls, whole: int, part: int) -> Remainder:
        """Return the difference, which remembers both sizes."""
        number = int.__new__(cls, operator.index(whole) - operator.index(part))
        sizes = [own for own in (whole, part) if isinstance(own, Width)]
        number.rows, number.origin = None, sizes[0].origin
        number._sources = tuple(chain.from_iterable(size.sources for size in sizes))
        number.whole, number.part = whole, part
        return number

    @property
    def follows(self) -> bool:
        """Whether it is known to be the size of an axis after any removal."""
        positive = min(operator.index(self.whole), operator.index(self.part)) > 0
        return positive and operator.index(self) != 0 and not self.origin.over


def adapts(size: object) -> TypeGuard[Width]:
    """Return whether a number changes with an axis of the current pass."""
    return isinstance(size, Width) and not size.origin.over


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
        torch.empty_strided,
        torch.empty_permuted,
        torch.Tensor.new_empty_strided,
        torch.rand,
        torch.randn,
        torch.randint,
        torch.normal,
        torch.eye,
    }
)
_SIZE_IN_ONE_PIECE: frozenset[Any] = frozenset(
    {
        torch.full,
        torch.Tensor.new_full,
        torch.empty_strided,
        torch.empty_permuted,
        torch.Tensor.new_empty_strided,
        torch.randint,
        torch.normal,
    }
)
_WITHOUT_TENSOR: frozenset[Any] = frozenset(
    {torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn, torch.eye}
)
_REPEATS: frozenset[Any] = frozenset({torch.Tensor.repeat, torch.Tensor.tile, torch.tile})
_SEQUENCES = (tuple, list)
_UNFLATTEN: tuple[Any, ...] = (torch.Tensor.unflatten, torch.unflatten)
_SPLITS: tuple[Any, ...] = (
    torch.split,
    torch.Tensor.split,
    torch.split_with_sizes,
    torch.Tensor.split_with_sizes,
)


@dataclass(frozen=True)
class Call:
    """One call of torch by the model's code.

    Attributes:
        function: the function that is called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        met: ids of the arguments that a rule has used as the size of an axis.
    """

    function: Callable[..., Any] | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    met: set[int] = field(default_factory=set)

    @staticmethod
    def of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """Return a call; one of ``torch.ops.aten`` counts as a call of the function of its name."""
        if isinstance(function, (OpOverload, OpOverloadPacket)):
            packet = getattr(function, "overloadpacket", function)
            name = packet.__name__
            in_aten = packet is getattr(torch.ops.aten, name, None)
            named = getattr(torch.Tensor, name, None) or getattr(torch, name, None)
            return Call(named if in_aten else None, args, kwargs)
        return Call(function, args, kwargs)

    @property
    def is_known(self) -> bool:
        """Whether the code calls a function of torch with visible arguments.

        If not, operations come from compiled code, whose numbers cannot be told apart.
        """
        return self.function is not None

    def argument(self, position: int, *names: str) -> Any:
        """Return an argument that may be given by position or by name, or None."""
        given = self.args[position] if len(self.args) > position else None
        return next((self.kwargs[name] for name in names if name in self.kwargs), given)

    def repeats(self, dims: int) -> list[int] | None:
        """Return how often each axis is repeated, or None if the call does not say."""
        if self.function not in _REPEATS:
            return None
        numbers = self._sizes()
        return [1] * (dims - len(numbers)) + numbers

    @property
    def is_split(self) -> bool:
        """Whether the call gives the sizes of parts, not their number."""
        return self.function in _SPLITS

    def widths(self) -> list[Width]:
        """Return the sizes among the arguments that come from labelled axes."""
        return [number for number in _numbers([self.args, self.kwargs]) if adapts(number)]

    def shape(self, dims: int) -> list[int] | None:
        """Return the requested shape, or None if the call does not give one.

        Args:
            dims: number of axes of the result; a shape of another length does not count.
        """
        if self.function not in _SHAPED:
            return None
        numbers = self._sizes()
        if self.function in _SIZE_IN_ONE_PIECE:
            pieces = [a for a in (*self.args, self.kwargs.get("size")) if isinstance(a, _SEQUENCES)]
            return list(pieces[0]) if pieces and len(pieces[0]) == dims else None
        if self.function in _UNFLATTEN:
            tensor = next(arg for arg in self.args if isinstance(arg, Tensor))
            dim, sizes = operator.index(numbers[0]) % tensor.dim(), numbers[1:]
            numbers = [*[-1] * dim, *sizes, *[-1] * (tensor.dim() - dim - 1)]
        elif self.function is torch.eye and len(numbers) == 1:
            numbers *= 2
        return numbers if len(numbers) == dims else None

    def _sizes(self) -> list[int]:
        """Return all numbers among the arguments, without the tensor that the function takes."""
        own = self.args if self.function in _WITHOUT_TENSOR else self.args[1:]
        named = [value for name, value in self.kwargs.items() if name != "input"]
        return list(_numbers([own, named]))


def _numbers(arguments: Any) -> Iterator[Any]:
    """Yield the integers of nested arguments; a scalar tensor is 0, which follows nothing."""
    if isinstance(arguments, bool):
        return
    if isinstance(arguments, int):
        yield arguments
    elif isinstance(arguments, Tensor):
        yield from () if arguments.dim() else (0,)
    elif isinstance(arguments, slice):
        yield from _numbers([arguments.start, arguments.stop, arguments.step])
    elif isinstance(arguments, Mapping):
        yield from _numbers(list(arguments.values()))
    elif isinstance(arguments, (tuple, list)):
        for argument in arguments:
            yield from _numbers(argument)
