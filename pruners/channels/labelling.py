"""Torch modes that label the tensors of a forward pass, operation by operation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from harness.errors import RequestError
from pruners.channels.attributes import own_tensors, size_attributes
from pruners.channels.checking import (
    Step,
    canonical,
)
from pruners.channels.kept_sizes import stay_where_unmet
from pruners.channels.kinds import CELLS, FIRST, LAYERS, RECURRENT_UNITS, RESIDUAL
from pruners.channels.labels import Axes, LabelledTensors, fixed, is_tracked
from pruners.channels.rules import FUNCTION_RULES, Rule
from pruners.channels.rules.pointwise import elementwise
from pruners.channels.rules.reductions import NORMALISED_SHAPES, NORMS, unite_with_normalised_shape
from pruners.channels.rules.registry import tensors_in
from pruners.channels.rules.sequences import carried_out
from pruners.channels.sizes import Call
from pruners.channels.state import (
    SET_DATA,
    Originals,
)


class UnknownOperation(RequestError):
    """The model uses an operation whose effect on channels is not known."""


class Labelling(TorchDispatchMode):
    """Applies the rule of each operation.

    Attributes:
        originals: the values of tensors to be restored.
        normalised: ids of the tensors that normalisation returned.
        paused: whether to ignore operations, inside a function with a rule of its own.
    """

    def __init__(
        self,
        trace: LabelledTensors,
        rules: Mapping[str, Rule],
        originals: Originals,
        steps: list[Step],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self._trace = trace
        self._rules = rules
        self.originals = originals
        self._steps = steps
        self._latest: tuple[Any, Any, Any] | None = None
        self.normalised: set[int] = set()
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Compiled code leaves the function mode active, which would return sizes that remember.
        with torch._C.DisableTorchFunction():
            return self._carried_out(func, args, kwargs or {})

    def _carried_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._latest = func, args, kwargs
        if func._schema.is_mutable:
            self.originals.about_to_write(func, args, kwargs)
        out = func(*args, **kwargs)
        if not self.paused:
            operands = tensors_in([args, kwargs])
            # The rule may overwrite the labels of an operand in place.
            before = [self._trace[tensor] for tensor in operands]
            depths = [self._trace.depth(tensor) for tensor in operands]
            self._label(func, out, args, kwargs)
            self.note(canonical(func), before, out)
            self.passed(canonical(func).rstrip("_"), depths, out)
        return out

    def passed(self, name: str, depths: Sequence[int | None], out: Any) -> None:
        """Record how many layers the results have passed, and whether a shortcut ends in them.

        Args:
            name: name of the operation, or of the function of torch that counts as one operation.
            depths: how many layers each operand has passed; None for what is no activation, such
                as weights, and for inputs that a ``forward`` of one's own provides.
            out: what it returned.
        """
        results = tensors_in(out)
        passed = [depth for depth in depths if depth is not None]
        if name == "add" and len(set(passed)) > 1:
            self._trace.mark(RESIDUAL, *self._trace[results[0]])
        if passed or name in FIRST:
            self._trace.computed(results, max(passed, default=0) + (name in LAYERS))

    @property
    def latest(self) -> str:
        """The current operation and the shapes of its operands, for messages."""
        if self._latest is None:
            return "its start"
        func, args, kwargs = self._latest
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in([args, kwargs]))
        return f"{func.name().partition('.')[0]} on {shapes or 'no tensor'}"

    def note(self, name: str, operands: list[Axes], out: Any) -> None:
        """Record a step of the pass."""
        results = [self._trace[tensor] for tensor in tensors_in(out)]
        widths = self._trace.call.widths()
        numbers = [labels.reshape(-1) for width in widths for labels in width.sources]
        self._steps.append(Step(name, self._trace.module, operands, results, numbers))

    def _label(self, func: Any, out: Any, args: Any, kwargs: Any) -> None:
        results = tensors_in(out)
        operands = tensors_in([args, kwargs])
        name = func.overloadpacket.__name__
        name = name if name in self._rules else name.rstrip("_")
        self._trace.used(operands, by_norm=name in NORMS)
        if not results:
            return
        if name in NORMS:
            self.normalised.add(id(results[0]))
        if func._overloadname.endswith("out"):
            written = {argument.name for argument in func._schema.arguments if argument.is_out}
            kwargs = {key: value for key, value in kwargs.items() if key not in written}
            operands = tensors_in([args, kwargs])
        rule = self._rules.get(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = elementwise
        if rule is None:
            self._without_rule(name, results, operands)
        elif torch.Tag.inplace_view in func.tags:
            self._trace[results[0]] = list(_first(rule(self._trace, out, *args, **kwargs)))
        elif func._schema.is_mutable and any(results[0] is operand for operand in operands):
            self._write(name, results[0], _first(rule(self._trace, out, *args, **kwargs)))
        elif func._overloadname.endswith("out"):
            self._write_out(name, results, rule(self._trace, out, *args, **kwargs))
        else:
            axes = rule(self._trace, out, *args, **kwargs)
            _label_results(self._trace, results, axes, views=func.is_view)

    def _write_out(
        self, name: str, results: Sequence[Tensor], axes: Axes | tuple[Axes, ...]
    ) -> None:
        """Write labels into the tensors that were passed as ``out``."""
        labelled = axes if isinstance(axes, tuple) else (axes,)
        for tensor, new in zip(results, labelled, strict=False):
            own = self._trace[tensor]
            if [*map(len, own)] != [*map(len, new)]:  # it has been resized
                self._trace[tensor] = new
            else:
                self._write(name, tensor, [*map(self._trace.unite, own, new)])

    def _without_rule(
        self, name: str, results: Sequence[Tensor], operands: Sequence[Tensor]
    ) -> None:
        """Accept an operation without a rule if no channel takes part in it."""
        tracked = (a for tensor in operands for a in self._trace[tensor] if is_tracked(a))
        if (axis := next(tracked, None)) is not None:
            raise UnknownOperation(
                f"no rule for {self.latest}, with channels of "
                f"{self._trace.sets.owner(axis)}, in {self._trace.module or 'the model'}: "
                f'pass extra_rules={{"{name}": rule}}; pruners.channels.rules says how'
            )
        for tensor in results:
            self._trace[tensor] = [fixed(size) for size in tensor.shape]

    def _write(self, name: str, tensor: Tensor, axes: Axes) -> None:
        """Write labels in place, so that they reach the tensors that this one is a view of."""
        for own, new in zip(self._trace[tensor], axes, strict=True):
            if own.flags.writeable:
                own[...] = new
            elif is_tracked(new[own < 0]):
                raise UnknownOperation(
                    f"aten::{name}_ writes channels through a reshaped view in "
                    f"{self._trace.module or 'the model'}: write to the tensor itself"
                )


def _first(axes: Axes | tuple[Axes, ...]) -> Axes:
    return axes[0] if isinstance(axes, tuple) else axes


def _label_results(
    trace: LabelledTensors,
    results: Sequence[Tensor],
    axes: Axes | tuple[Axes, ...],
    *,
    views: bool = False,
) -> None:
    """Set the labels of the results of an operation.

    A further result of the same shape gets the labels of the first; other ones are fixed. Views
    share the arrays with their base.
    """
    labelled = axes if isinstance(axes, tuple) else (axes,)
    for tensor, own in zip(results, labelled, strict=False):
        trace[tensor] = list(own) if views else [axis.copy() for axis in own]
    for tensor in results[len(labelled) :]:
        alike = tensor.shape == results[0].shape
        trace[tensor] = (
            [a.copy() for a in trace[results[0]]] if alike else [*map(fixed, tensor.shape)]
        )


class RememberedSizes(TorchFunctionMode):
    """Returns sizes that remember their axes, and applies the rules of functions."""

    def __init__(self, trace: LabelledTensors, labelling: Labelling) -> None:
        super().__init__()
        self._trace = trace
        self._labelling = labelling

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _GET_SHAPE:
            return self._trace.shape(args[0])
        if func is torch.Tensor.numel:
            return math.prod(self._trace.shape(args[0]))
        if func is torch.Tensor.size:
            shape = self._trace.shape(args[0])
            dims = [*args[1:], *kwargs.values()]
            return shape[dims[0]] if dims and dims[0] is not None else shape
        if func == SET_DATA:
            return self._replace_data(*args)
        # Of a tensor that only lends its shape, the sizes count.
        shaped = [args[0], self._trace.shape(args[1])] if func in _SHAPED_AS else args
        call = Call.of(func, shaped, kwargs)
        outer, self._trace.call = self._trace.call, call
        try:
            if func in NORMALISED_SHAPES:
                unite_with_normalised_shape(self._trace)
            if func in FUNCTION_RULES:
                return self._as_one(func, args, kwargs)
            out = func(*args, **kwargs)
            if getattr(func, "__name__", "") in CELLS:
                self._trace.mark(
                    RECURRENT_UNITS, *(self._trace[each][-1] for each in tensors_in(out))
                )
            return out
        finally:
            self._trace.call = outer
            stay_where_unmet(call)

    def _replace_data(self, tensor: Tensor, data: Tensor) -> None:
        """Give a tensor the data of another one, and unite their labels."""
        if isinstance(data, Tensor) and data.shape == tensor.shape:
            self._trace[tensor] = [*map(self._trace.unite, self._trace[tensor], self._trace[data])]
        self._labelling.originals.about_to_replace(tensor)
        tensor.data = data

    def _as_one(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._labelling.paused = True
        try:
            out = carried_out(func, args, kwargs)
        finally:
            self._labelling.paused = False
        operands = tensors_in([args, kwargs])
        self._trace.used(operands, by_norm=False)
        before = [self._trace[operand] for operand in operands]
        depths = [self._trace.depth(operand) for operand in operands]
        axes = FUNCTION_RULES[func](self._trace, out, *args, **kwargs)
        _label_results(self._trace, tensors_in(out), axes)
        self._labelling.note(func.__name__, before, out)
        self._labelling.passed("linear", depths, out)
        return out


_GET_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]  # a getset descriptor
_SHAPED_AS = frozenset({torch.Tensor.view_as, torch.Tensor.reshape_as, torch.Tensor.expand_as})


def follow_sizes(model: nn.Module, trace: LabelledTensors) -> None:
    """Make the size attributes of modules remember their axes, because `shrink` changes them."""
    for module in model.modules():
        shapes = {name: trace.shape(tensor) for name, tensor in own_tensors(module).items()}
        sizes = size_attributes(module, shapes)
        module.__dict__.update({n: v for n, v in sizes.items() if n in module.__dict__})


@contextmanager
def watched(model: nn.Module, trace: LabelledTensors) -> Iterator[list[tuple[str, Tensor, Axes]]]:
    """Track which module is running, and collect the outputs of layers."""
    returned: list[tuple[str, Tensor, Axes]] = []
    running = [""]

    def watch(name: str, module: nn.Module) -> Iterator[RemovableHandle]:
        def enter(module: nn.Module, args: Any) -> None:
            running.append(name)
            trace.module = name

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            running.pop()
            trace.module = running[-1]
            if _is_layer(name, module) and tensors_in(output):
                tensor = tensors_in(output)[0]
                returned.append((name, tensor, [axis.copy() for axis in trace[tensor]]))

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave)

    handles = [handle for pair in model.named_modules() for handle in watch(*pair)]
    try:
        yield returned
    finally:
        for handle in handles:
            handle.remove()


def _is_layer(name: str, module: nn.Module) -> bool:
    """Return whether a module has tensors of its own and no submodules.

    A layer with a parametrised weight is one; the module that computes the weight is not.
    """
    if "parametrizations" in name.split("."):
        return False
    parts = {part for part, _ in module.named_children()} - {"parametrizations"}
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return not parts and (bool(own) or is_parametrized(module))
