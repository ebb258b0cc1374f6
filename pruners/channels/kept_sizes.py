"""Sizes that modules keep in attributes, such as ``self.head_dim``.

While a model is traced, each integer that a module keeps, alone or in a list, is an
`AttributeSize`. Its first use as a size binds it to an axis. Later uses unite that axis with
further ones, and `pruners.channels.shrink` sets its new value. Sums, differences, products and
quotients are followed if they are used as sizes too. A number that is used in any other way, in a
comparison or as a factor, keeps its value, and so do the axes bound to it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from pruners.channels.attributes import own_tensors, size_attributes
from pruners.channels.expressions import (
    PARTS,
    Attribute,
    Constant,
    Difference,
    Expression,
    Known,
    Product,
    Quotient,
    Source,
    Sum,
)
from pruners.channels.labels import LabelledTensors, Labels
from pruners.channels.sizes import Call, Remainder, Width, adapts
from pruners.channels.state import named_tensors

AS_NUMBER = "used as a number"


def _followed(name: str, combine: Callable[[Expression, Expression], Expression]) -> Any:
    """Return an operator of integers whose result is the size of a combined expression."""
    compute = getattr(int, f"__{name}__")
    return lambda self, other: self._follow(compute, other, combine)


def _compared(name: str) -> Any:
    """Return a comparison of integers that keeps its result."""
    compare = getattr(int, f"__{name}__")
    return lambda self, other: self._compare(compare, other)


class AttributeSize(Width):
    """An integer that remembers the attributes that it comes from.

    A use as a size binds it to the axis (`meet`). Every other operation returns a plain number and
    makes the attributes keep their values.
    """

    expression: Expression
    trace: LabelledTensors

    def __new__(
        cls, expression: Expression, trace: LabelledTensors, sign: int = 1
    ) -> AttributeSize:
        """Return a number that remembers its expression."""
        number = int.__new__(cls, sign * expression.size)
        number.rows, number.origin = None, trace
        number.expression, number.trace = expression, trace
        return number

    @property
    def sources(self) -> tuple[Labels, ...]:
        """Labels of all axes bound to it so far."""
        found = (leaf.labels for leaf in self.expression.leaves())
        return tuple(labels for labels in found if labels is not None)

    @property
    def follows(self) -> bool:
        """Whether it can be the size of an axis."""
        return not self.origin.over

    def pin(self, reason: str) -> None:
        """Keep the values of the attributes, and the axes that the number depends on."""
        for leaf in self.expression.leaves() if not self.origin.over else ():
            leaf.pin(reason)

    def meet(self, labels: Labels) -> Labels:
        """Unite an axis with all others of this size, and return its labels."""
        return self.expression.meet(self.trace, labels)

    def stay(self, use: str = AS_NUMBER) -> int:
        """Keep the values of the attributes, and return the plain number."""
        from_tensors: list[Labels] = []
        for leaf in self.expression.leaves() if not self.origin.over else ():
            if isinstance(leaf, Attribute):
                leaf.stay(use)
            elif isinstance(leaf, Known):
                from_tensors.append(leaf.labels)
        plain = operator.index(self)
        return Width(plain, None, self.origin, tuple(from_tensors)) if from_tensors else plain

    @property
    def _is_plain(self) -> bool:
        """Whether it acts as a plain number: in torch's own functions, which have rules."""
        return self.origin.over or self.origin.call.function is not None

    def _number(self) -> int:
        """Return the plain number; the attributes keep their values, as any use is possible."""
        return operator.index(self) if self._is_plain else self.stay()

    # Sizes that follow from sizes

    __add__ = _followed("add", lambda own, other: Sum((own, other)))
    __radd__ = _followed("radd", lambda own, other: Sum((other, own)))
    __sub__ = _followed("sub", Difference)
    __rsub__ = _followed("rsub", lambda own, other: Difference(other, own))
    __mul__ = _followed("mul", lambda own, other: Product((own, other)))
    __rmul__ = _followed("rmul", lambda own, other: Product((other, own)))

    def __floordiv__(self, other: int) -> int:
        return self._divided(int.__floordiv__, self, other, self._part)

    def __rfloordiv__(self, other: int) -> int:
        return self._divided(int.__rfloordiv__, other, self, self._part)

    def __mod__(self, other: int) -> int:
        return self._divided(int.__mod__, self, other, self._remainder)

    def __rmod__(self, other: int) -> int:
        return self._divided(int.__rmod__, other, self, self._remainder)

    def __divmod__(self, other: int) -> tuple[int, int]:
        return self // other, self % other

    def __rdivmod__(self, other: int) -> tuple[int, int]:
        return other // self, other % self

    def __neg__(self) -> int:
        return AttributeSize(self.expression, self.trace, -1 if operator.index(self) > 0 else 1)

    def __pos__(self) -> int:
        return self

    def _follow(
        self,
        compute: Callable[[int, int], int],
        other: Any,
        combine: Callable[[Expression, Expression], Expression],
    ) -> int:
        if not isinstance(other, int):
            self._number()
            return NotImplemented  # type: ignore[no-any-return]  # as operators do
        value = compute(operator.index(self), operator.index(other))
        if self._is_plain:
            return value
        if value == operator.index(self) and type(other) is int:  # plus zero, times one
            return self
        second = expression(other, self.trace)
        if second is None or min(value, operator.index(self), operator.index(other)) <= 0:
            return _stay(value, self, other)
        return AttributeSize(combine(self.expression, second), self.trace)

    def _divided(
        self,
        compute: Callable[[int, int], int],
        whole: Any,
        parts: Any,
        follow: Callable[[Any, int, Labels], int],
    ) -> int:
        """Return a quotient or remainder, which follows if a size is divided evenly."""
        other = parts if whole is self else whole
        if not isinstance(other, int):
            self._number()
            return NotImplemented  # type: ignore[no-any-return]  # as operators do
        value = compute(operator.index(self), operator.index(other))
        if self._is_plain:
            return value
        rows = _rows_of_parts(whole, parts, self.trace)
        if rows is None:
            return _stay(value, self, other)
        if _is_bound(parts):
            _tie_parts(rows, parts, self.trace)
            return value
        if isinstance(parts, AttributeSize):
            parts.stay(PARTS)
        return follow(whole, operator.index(parts), rows)

    def _part(self, whole: int, parts: int, rows: Labels) -> int:
        """Return the size of each part."""
        size_of = expression(whole, self.trace)
        assert size_of is not None
        return AttributeSize(Quotient(size_of, parts), self.trace)

    def _remainder(self, whole: int, parts: int, rows: Labels) -> int:
        """Return zero, and tie the parts so that it stays zero."""
        for row in rows:
            self.trace.tie(row.reshape(parts, -1))
        return 0

    # Comparisons

    __eq__ = _compared("eq")
    __ne__ = _compared("ne")
    __lt__ = _compared("lt")
    __le__ = _compared("le")
    __gt__ = _compared("gt")
    __ge__ = _compared("ge")

    def __hash__(self) -> int:
        return hash(operator.index(self))

    def _compare(self, compare: Callable[[int, Any], bool], other: object) -> bool:
        """Compare two numbers, and ensure that no removal changes the result."""
        own = operator.index(self)
        if not isinstance(other, int):
            if isinstance(other, float) and not self._is_plain:
                self.stay("compared with a number")
            return NotImplemented  # type: ignore[no-any-return]  # as operators do
        theirs = operator.index(other)
        result = compare(own, theirs)
        if self._is_plain:
            return result
        second = expression(other, self.trace)
        if isinstance(second, Constant):
            # A removal leaves at least one, and at most the present size.
            can_be = range(1, own + 1) if own > 0 else range(own, 0)
            values = {compare(size, theirs) for size in (can_be[0], can_be[-1])}
            if len(values) > 1 or (theirs in can_be and len(can_be) > 1):
                self.stay("compared with a number")
        elif second is None or own != theirs or own < 0:
            for number in (self, other):
                if isinstance(number, Width):
                    number.pin("its size is compared with another")
        else:
            rows = second.rows()
            if rows is None:
                self.pin("its size is compared with another")
            else:
                for row in rows:
                    self.meet(row)
        return result

    # Numbers

    def __int__(self) -> int:
        return self._number()

    def __float__(self) -> float:
        return float(operator.index(self._number()))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return np.asarray(self._number(), *args, **kwargs)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [own._number() if isinstance(own, AttributeSize) else own for own in inputs]
        return getattr(function, method)(*plain, **kwargs)


def _as_number(name: str) -> Callable[..., Any]:
    """Return the method of plain integers, which makes the attributes keep their values."""
    method = getattr(int, name)

    def plain(self: AttributeSize, *others: Any) -> Any:
        for number in (self, *others):
            if isinstance(number, AttributeSize):
                number._number()
        return method(operator.index(self), *others)

    return plain


for _name in [
    *("truediv", "rtruediv", "pow", "rpow", "lshift", "rlshift", "rshift", "rrshift"),
    *("and", "rand", "or", "ror", "xor", "rxor", "abs", "invert"),
    *("round", "trunc", "floor", "ceil"),
]:
    setattr(AttributeSize, f"__{_name}__", _as_number(f"__{_name}__"))


def expression(number: int, trace: LabelledTensors) -> Expression | None:
    """Return the expression of a number, None if it is unknown."""
    if not adapts(number):
        return Constant(operator.index(number))
    if isinstance(number, AttributeSize):
        return number.expression
    if isinstance(number, Remainder):
        if not number.follows:
            return None
        sides = (number.whole, number.part)
        # A negative number counts from the end.
        larger, smaller = sides if operator.index(number) > 0 else sides[::-1]
        whole, part = expression(larger, trace), expression(smaller, trace)
        return None if whole is None or part is None else Difference(whole, part)
    return None if number.rows is None else Known(trace, number.rows)


def _stay(value: int, *computed_from: int) -> int:
    """Keep the attributes that a number is computed from, and return the number."""
    kept = [own.stay() if isinstance(own, AttributeSize) else own for own in computed_from]
    changing = [*filter(adapts, kept)]
    sources = tuple(labels for number in changing for labels in number.sources)
    return Width(value, None, changing[0].origin, sources) if changing else value


def _rows_of_parts(whole: int, parts: int, trace: LabelledTensors) -> Labels | None:
    """Return the labels of a size that is divided evenly, None if it is not."""
    size_of = expression(whole, trace)
    divisor = operator.index(parts)
    if size_of is None or divisor <= 0 or isinstance(size_of, Constant):
        return None
    if isinstance(parts, Width) and not isinstance(parts, AttributeSize):
        return None
    return None if size_of.size % divisor else size_of.rows()


def _is_bound(number: int) -> bool:
    """Return whether a number is bound to an axis that may change."""
    return isinstance(number, AttributeSize) and any(
        isinstance(leaf, Attribute) and leaf.source.is_bound for leaf in number.expression.leaves()
    )


def _tie_parts(rows: Labels, part: int, trace: LabelledTensors) -> None:
    """Make a size stay the same multiple of another."""
    assert isinstance(part, AttributeSize)
    for row in rows.reshape(-1, operator.index(part)):
        part.meet(row)


def stay_where_unmet(call: Call) -> None:
    """Keep the numbers that a call of torch takes for anything but the size of an axis."""
    for number in call.widths():
        if isinstance(number, AttributeSize) and id(number) not in call.met:
            number.stay()


def unite_with_size(trace: LabelledTensors, labels: Labels, size: int) -> Labels:
    """Unite an axis with those of the size that the code requested, and return its labels."""
    if not adapts(size):
        return labels
    trace.call.met.add(id(size))
    size_of = expression(size, trace)
    return labels if size_of is None else size_of.meet(trace, labels)


def stays_as_parts(groups: int) -> bool:
    """Return whether a number of groups stays; a number that a module keeps is made to stay."""
    if isinstance(groups, AttributeSize):
        groups.stay(PARTS)
        return True
    return not adapts(groups)


# The numbers of a model


class KeptSizes:
    """The integers that the modules of a model keep.

    Args:
        model: the model to be traced.
        trace: the labels of the pass.
    """

    def __init__(self, model: nn.Module, trace: LabelledTensors) -> None:
        self._modules = [
            (name, module, known)
            for name, module in model.named_modules()
            if (known := _known(module)) is not None
        ]
        self._trace = trace
        sizes = (size for tensor in named_tensors(model).values() for size in tensor.shape)
        self._largest = max(sizes, default=0)
        self._sources: dict[tuple[int, tuple[str | int, ...]], Source] = {}

    def follow(self) -> None:
        """Replace the integers in the model by numbers that remember their attributes."""
        for name, module, known in self._modules:
            own = {
                attribute: self._followed(value, id(module), name, (attribute,))
                for attribute, value in module.__dict__.items()
                if attribute not in _OF_ALL_MODULES and attribute not in known
            }
            module.__dict__.update(own)

    def sources(self) -> Iterator[Source]:
        """Yield the numbers that are bound to an axis."""
        return (source for source in self._sources.values() if source.labels is not None)

    def _followed(
        self, value: Any, holder: int, module: str, path: tuple[str | int, ...], depth: int = 0
    ) -> Any:
        """Return a value with its integers, at any depth, replaced by such numbers."""
        if type(value) is int or isinstance(value, Width):
            return self._number(operator.index(value), holder, module, path, depth)
        if type(value) in (list, tuple, torch.Size):
            holder, depth = (holder, depth) if isinstance(value, tuple) else (id(value), len(path))
            items = [
                self._followed(item, holder, module, (*path, key), depth)
                for key, item in enumerate(value)
            ]
            changed = any(new is not old for new, old in zip(items, value, strict=True))
            return type(value)(items) if changed else value
        if type(value) is dict:
            items_by_key = {
                key: self._followed(item, id(value), module, (*path, key), len(path))
                if isinstance(key, (str, int))
                else item
                for key, item in value.items()
            }
            changed = any(items_by_key[key] is not item for key, item in value.items())
            return items_by_key if changed else value
        return value

    def _number(
        self, value: int, holder: int, module: str, path: tuple[str | int, ...], depth: int
    ) -> int:
        if not 0 < value <= self._largest:
            return value
        name = ".".join(filter(None, (module, str(path[0])))) + "".join(
            f"[{key!r}]" for key in path[1:]
        )
        source = self._sources.setdefault((holder, path[depth:]), Source(name, value, self._trace))
        if (module, path) not in source.places:
            source.places.append((module, path))
        return AttributeSize(Attribute(source), self._trace)


_OF_ALL_MODULES = frozenset(nn.Module().__dict__)


def _known(module: nn.Module) -> frozenset[str] | None:
    """Return the attributes that follow from a module's tensors, None if it keeps no others."""
    shapes = {name: tensor.shape for name, tensor in own_tensors(module).items()}
    known = size_attributes(module, shapes)
    if known and type(module).__module__.startswith("torch.nn."):
        return None  # torch's own layers keep no other sizes
    return frozenset(known)
