"""Check that the smaller network runs as the labels predict.

A traced network is cut on trial, each group to a different share of its channels, and runs again.
Step by step it must carry out the same operations, and every axis must have the size that its
labels predict. A difference means that the tracer misjudged an operation or a number in the code.
The channels involved are then pinned.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pruners.channels.groups import ChannelGraph
from pruners.channels.labels import Axes, Labels, LabelSets, is_tracked
from pruners.channels.partition import Partition
from pruners.channels.rules import FUNCTION_RULES
from pruners.channels.rules.registry import tensors_in
from pruners.channels.rules.sequences import carried_out
from pruners.channels.state import SET_DATA, Originals


@dataclass(frozen=True, eq=False)
class Step:
    """An operation of the traced pass.

    Attributes:
        name: name of the operation, or of the function of torch that counts as one operation.
        module: name of the module whose forward was running.
        operands: labels of the tensors that it read.
        results: labels of the tensors that it returned.
        numbers: labels of the axes whose sizes were among its arguments.
    """

    name: str
    module: str
    operands: list[Axes]
    results: list[Axes]
    numbers: Axes


class Misfit(BaseException):
    """The cut network does not do what the labels predict.

    It is not an `Exception`, so that the model's own code does not catch it.

    Attributes:
        step: the step at which it differs.
        labels: labels of the channels involved.
    """

    def __init__(self, step: Step, labels: list[Labels], what: str) -> None:
        super().__init__(what)
        self.step = step
        self.labels = labels

    def reason(self) -> str:
        """Return in one line why the channels are pinned."""
        where = f", in {self.step.module}" if self.step.module else ""
        return f"{self.step.name} does not follow a removal ({self}){where}"


_PROJECTION = "weight_hr_l"


def trial(graph: ChannelGraph) -> dict[str, list[int]]:
    """Return channels to keep, a different share of each group, lest sizes agree by chance.

    The cells of an LSTM with a projection stay, because they must outnumber its projections.
    """
    chance = random.Random(0)
    keep = {}
    for group in graph.groups:
        if any((_PROJECTION in m.tensor and m.dim == 1) for m in group.members):
            continue
        fewest = min(max(2, (group.size + 1) // 2), group.size - 1)
        count = chance.randint(max(1, fewest), max(1, group.size - 1))
        keep[group.name] = sorted(chance.sample(range(group.size), count))
    return keep


class CutSizes:
    """The predicted sizes of axes after channels are removed.

    Args:
        sets: the labels of the traced pass.
        found: the groups that were found.
        keep: which of their channels stay.
    """

    def __init__(
        self, sets: LabelSets, found: Partition, keep: Mapping[str, Sequence[int]]
    ) -> None:
        gone = [
            np.delete(own, list(keep.get(n, range(len(own))))) for n, own in found.channels.items()
        ]
        self._stays = sets.without(np.concatenate(gone) if gone else np.empty(0, np.int64))

    def of(self, axis: Labels) -> int:
        """Return the predicted size of an axis."""
        if not is_tracked(axis):
            return len(axis)
        return int((self._stays[axis] | (axis < 0)).sum())

    def cut(self, axes: Iterable[Axes]) -> list[Labels]:
        """Return the axes that lose channels."""
        return [axis for own in axes for axis in own if self.of(axis) < len(axis)]


class Following(TorchDispatchMode):
    """Compares the operations of the cut network with those of the traced pass.

    Args:
        steps: the steps of the traced pass.
        sizes: the predicted sizes of their axes.
        originals: the values of tensors to be restored.

    Attributes:
        originals: the same.
        within: whether a function that counts as one operation is running.
    """

    def __init__(self, steps: Sequence[Step], sizes: CutSizes, originals: Originals) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self._steps = steps
        self._sizes = sizes
        self.originals = originals
        self._next = 0
        self._in_operation = False
        self._by_value = False
        self.within = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            self.originals.about_to_write(func, args, kwargs or {})
        if self.within:
            return func(*args, **(kwargs or {}))
        step = self.enter(canonical(func))
        out = func(*args, **(kwargs or {}))
        self.leave(step, out, by_value=depends_on_values(func))
        return out

    def enter(self, name: str) -> Step | None:
        """Return the step of an operation that is about to run, None if it has none."""
        while self._next < len(self._steps):
            step = self._steps[self._next]
            if step.name == name:
                self._in_operation = True
                self._next += 1
                return step
            if step.name not in _LAYOUT:
                break
            self._next += 1
        if name in _LAYOUT or self._by_value:
            return None
        raise self._misfit(f"it is aten::{name} then")

    def leave(self, step: Step | None, out: Any, *, by_value: bool) -> None:
        """Compare the sizes of the results of an operation with the prediction."""
        self._in_operation = False
        self._by_value = self._by_value or by_value
        if step is None or self._by_value:
            return
        for tensor, axes in zip(tensors_in(out), step.results, strict=False):
            for size, axis in zip(tensor.shape, axes, strict=False):
                if is_tracked(axis) and size != (expected := self._sizes.of(axis)):
                    cut = self._sizes.cut([[axis]]) or self._sizes.cut(step.operands)
                    if cut:
                        raise Misfit(step, cut, f"{size} places, and not {expected}")

    def end(self, results: Sequence[Tensor], shapes: Sequence[torch.Size]) -> None:
        """Raise if the outputs have other sizes, or if operations were left out."""
        same = len(results) == len(shapes) and all(
            tensor.shape == shape for tensor, shape in zip(results, shapes, strict=True)
        )
        if not same and not self._by_value:
            raise self._misfit("the outputs have other sizes then")
        rest = [step for step in self._steps[self._next :] if step.name not in _LAYOUT]
        if rest and not self._by_value:
            raise self._misfit("it is left out then")

    def failed(self, error: Exception) -> Misfit:
        """Return the misfit for an error of the forward pass."""
        return self._misfit(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")

    def _misfit(self, what: str) -> Misfit:
        """Return a misfit at the latest operation or, if it is complete, after it."""
        latest = max(0, self._next - 1)
        if not self._in_operation and what.startswith("it is") and self._next < len(self._steps):
            latest = self._next
        at, until_then = self._steps[latest], self._steps[: latest + 1]
        taking_part = [at.operands] if self._in_operation else [[*at.results, *at.operands]]
        # A number that the code computed from sizes stems from an earlier step.
        taking_part += [[step.numbers] for step in reversed(until_then)]
        taking_part += [[*step.results, *step.operands] for step in reversed(until_then)]
        cut = next(filter(None, map(self._sizes.cut, taking_part)), [])
        return Misfit(at, cut, what)


class Boundaries(TorchFunctionMode):
    """Treats each function with a rule of its own as one operation."""

    def __init__(self, following: Following) -> None:
        super().__init__()
        self._following = following

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == SET_DATA:
            self._following.originals.about_to_replace(args[0])
        if func not in FUNCTION_RULES or self._following.within:
            return func(*args, **kwargs)
        step = self._following.enter(func.__name__)
        self._following.within = True
        try:
            out = carried_out(func, args, kwargs)
        finally:
            self._following.within = False
        self._following.leave(step, out, by_value=False)
        return out


def canonical(func: Any) -> str:
    """Return the name of an operation, the same for all of its names."""
    name: str = func.overloadpacket.__name__
    return "view" if name in _VIEWS else name


def depends_on_values(func: Any) -> bool:
    """Return whether the result, or what the code does next, may depend on values."""
    return not _VALUE_TAGS.isdisjoint(func.tags)


_VALUE_TAGS = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})
_LAYOUT = frozenset({"clone", "contiguous", "_to_copy", "alias", "detach"})
"""Operations that depend on the layout of a tensor in memory, and thus on its size."""
