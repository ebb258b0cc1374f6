"""One forward pass in which every tensor axis carries labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

import pruners.channels.further_rules  # registers its rules  # noqa: F401
from harness.errors import RequestError, RunFailed, Skip, nearest
from pruners.channels.attributes import own_tensors, size_attributes
from pruners.channels.checking import (
    Boundaries,
    CutSizes,
    Following,
    Misfit,
    Step,
    canonical,
    trial,
)
from pruners.channels.groups import ChannelGraph
from pruners.channels.kept_sizes import KeptSizes, stay_where_unmet
from pruners.channels.labels import Axes, LabelledTensors, LabelSets, fixed, is_tracked
from pruners.channels.partition import Output, partition
from pruners.channels.recurrent_rules import carried_out
from pruners.channels.rules import (
    FUNCTION_RULES,
    NORMALISED_SHAPES,
    NORMS,
    RULES,
    Rule,
    elementwise,
    tensors_in,
    unite_with_normalised_shape,
)
from pruners.channels.shrinking import remove
from pruners.channels.sizes import Call
from pruners.channels.state import SET_DATA, ModelState, Originals, nothing_remembered
from pruners.channels.tensors import named_tensors, replaced, returned_tensors


class UnknownOperation(RequestError):
    """The model uses an operation whose effect on channels is not known."""


def trace_channels(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any],
    *,
    forward: Callable[..., Any] | None = None,
    pin: Collection[str] = (),
    extra_rules: Mapping[str, Rule] | None = None,
) -> ChannelGraph:
    """Find the channels of a model that must live or die together.

    The model runs in evaluation mode; if parameters are left out then, once more in training mode.
    It is then cut on trial and runs again: where a step is not what the labels say, its channels
    are pinned. Nothing about it changes, attributes and random states included. With inputs on the
    "meta" device nothing is computed either, wherever the model is: the fastest way, unless the
    forward pass looks at values.

    Inputs and outputs keep their sizes. A state that the model takes and returns would be both:
    leave it out with ``forward``.

    Args:
        model: any module; what it calls must have rules (`pruners.channels.rules`).
        example_inputs: one tensor, or the sequence of all arguments. Their values do not matter.
        forward: called as ``forward(model, *example_inputs)`` in place of ``model(...)``.
        pin: modules, parameters, or axes ("conv1.weight:0") whose channels are to stay.
        extra_rules: rules of further operations, by their names in ``torch.ops.aten``.

    Returns:
        The groups of coupled channels, and why the other axes are pinned.

    Raises:
        UnknownOperation: an operation on labelled axes has no rule.
        Skip: no group is found.
        RequestError: the forward pass fails, a part is compiled, a tensor is of another class,
            or ``pin`` names nothing.
    """
    with torch.inference_mode(False), nothing_remembered():
        inputs = _plain(
            [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
        )
        _refuse_compiled(model)
        trace = LabelledTensors()
        rules = {**RULES, **(extra_rules or {})}
        try:
            return _traced(model, inputs, forward or _call, pin, rules, trace)
        finally:
            trace.over = True


def _traced(
    model: nn.Module,
    inputs: Sequence[Any],
    forward: Callable[..., Any],
    pin: Collection[str],
    rules: Mapping[str, Rule],
    trace: LabelledTensors,
) -> ChannelGraph:
    tensors = named_tensors(model)
    state = ModelState(model)
    labels = {
        name: [trace.sets.fresh(size, owner=name) for size in tensor.shape]
        for name, tensor in tensors.items()
    }
    for axis, reason in _asked_to_pin(labels, pin):
        trace.pin(axis, reason)
    outputs: list[Output] = []
    sizes = KeptSizes(model, trace)
    passes: list[_Pass] = []
    unused = [name for name, _ in model.named_parameters() if name in tensors]
    for training in (False, True):
        if unused:
            stand_ins = _stand_ins(model, inputs)
            for name, stand_in in stand_ins.items():
                trace[stand_in] = labels[name]
            passes.append(_Pass(model, state, forward, inputs, stand_ins, training))
            outputs += passes[-1].observe(trace, sizes, rules)
            unused = [name for name in unused if not trace.is_used(stand_ins[name])]
    for name in unused:
        for axis in labels[name]:
            trace.sets.pin(axis, "the traced pass never uses it")

    def found() -> ChannelGraph:
        return partition(trace.sets, labels, outputs, sizes.sources())

    graph = found()
    while misfit := _misfit(passes, graph, trace.sets, labels):
        for axis in misfit.labels:
            trace.sets.pin(axis, misfit.reason())
        graph = found()
    if not graph.groups:
        pinned = (f"{axis}: {reason}" for axis, reason in graph.pinned.items())
        why = "; ".join(islice(pinned, 4)) or "it has no two layers in a row"
        raise Skip(f"{type(model).__name__} has no channel that can be removed ({why})")
    return graph


def _call(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)


def _plain(inputs: Any) -> Any:
    """Return the inputs as tensors of torch's own class that may be written to."""

    def plain(tensor: Tensor) -> Tensor:
        if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise RequestError(
                f"an example input is a {type(tensor).__name__}, which has operations of its own: "
                "pass a torch.Tensor"
            )
        tensor = tensor.as_subclass(Tensor)
        return tensor.clone() if tensor.is_inference() else tensor

    return tree_map_only(Tensor, plain, inputs)


def _refuse_compiled(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise RequestError(
                f"{name or 'the model'} is compiled by torch.jit: only Python modules can be "
                "traced; pass the module that it was made from"
            )


def _misfit(
    passes: Sequence[_Pass], graph: ChannelGraph, sets: LabelSets, labels: Mapping[str, Axes]
) -> Misfit | None:
    """Cut the model on trial, run it again, and return what does not follow, if anything.

    Raises:
        RequestError: something does not follow that no channel takes part in.
    """
    keep = trial(graph)
    sizes = CutSizes(sets, labels, graph, keep)
    for one in passes if graph.groups else ():
        try:
            one.repeat(graph, keep, sizes)
        except Misfit as misfit:
            if misfit.labels:
                return misfit
            raise RequestError(
                f"{misfit.reason()}, and no channels take part that could stay"
            ) from misfit
    return None


def _asked_to_pin(labels: Mapping[str, Axes], pin: Collection[str]) -> Iterator[tuple[Any, str]]:
    """Yield the axes that the user wants to keep."""
    for wanted in pin:
        named = [
            axis
            for name, axes in labels.items()
            for dim, axis in enumerate(axes)
            if wanted in (name, f"{name}:{dim}") or name.startswith(f"{wanted}.")
        ]
        if not named:
            raise RequestError(f"pin: no module or parameter {wanted!r}{nearest(wanted, labels)}")
        yield from ((axis, "asked for") for axis in named)


def _stand_ins(model: nn.Module, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Return what the model is to use in place of its own tensors.

    With inputs on "meta" everything is there. Buffers are copies, so that their values stay.
    """
    on_meta = any(tensor.is_meta for tensor in tensors_in(inputs))
    parameters = dict(model.named_parameters())

    def stand_in(name: str, tensor: Tensor) -> Tensor:
        if on_meta and not tensor.is_meta:
            return torch.empty_like(tensor, device="meta")
        return tensor if name in parameters else tensor.clone()

    return {name: stand_in(name, tensor) for name, tensor in named_tensors(model).items()}


@dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass of the model, in one of its modes.

    Attributes:
        model: the model.
        state: what it is to be again afterwards.
        forward: runs it.
        inputs: what it reads.
        stand_ins: what it is to use in place of its own tensors, by their names.
        training: its mode.
        steps: what it has done when it was observed.
        shapes: of what it has returned then.
    """

    model: nn.Module
    state: ModelState
    forward: Callable[..., Any]
    inputs: Sequence[Any]
    stand_ins: Mapping[str, Tensor]
    training: bool
    steps: list[Step] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)

    def observe(
        self, trace: LabelledTensors, sizes: KeptSizes, rules: Mapping[str, Rule]
    ) -> list[Output]:
        """Run the model, pin its outputs, and return what its layers returned."""
        model = self.model
        for tensor in tensors_in(self.inputs):
            trace[tensor] = [fixed(size) for size in tensor.shape]
        with ExitStack() as stack:
            stack.enter_context(self._in_place())
            _follow_sizes(model, trace)
            sizes.follow()
            returned = stack.enter_context(_watched(model, trace))
            originals = self.state.originals
            labelling = stack.enter_context(_Labelling(trace, rules, originals, self.steps))
            stack.enter_context(_Sizes(trace, labelling))
            try:
                result = self.forward(model, *self.inputs)
            except (RequestError, RunFailed, MemoryError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                raise RequestError(
                    f"the forward pass of {type(model).__name__} fails in "
                    f"{trace.module or 'the model'}, at {labelling.latest}: "
                    f"{type(error).__name__}: {error}"
                ) from error
        results = returned_tensors(result)
        if not results:
            raise RequestError(f"the forward pass of {type(model).__name__} returns no tensor")
        trace.used(results, by_norm=False)
        self.shapes.extend(torch.Size(tensor.shape) for tensor in results)
        for tensor in results:
            for axis in trace[tensor]:
                trace.pin(axis, "it reaches the model's output")
        return [
            Output(name, axes, trace.is_only_normalised(tensor), id(tensor) in labelling.normalised)
            for name, tensor, axes in returned
        ]

    def repeat(
        self, graph: ChannelGraph, keep: Mapping[str, Sequence[int]], sizes: CutSizes
    ) -> None:
        """Run the model with fewer channels, step by step as it was observed.

        Raises:
            Misfit: it does something else.
        """
        with ExitStack() as stack:
            stack.enter_context(self._in_place())
            # The caller may trace under another default device, "meta" say.
            with torch.device("cpu"):
                remove(self.model, graph, keep)
            following = stack.enter_context(Following(self.steps, sizes, self.state.originals))
            stack.enter_context(Boundaries(following))
            try:
                result = self.forward(self.model, *self.inputs)
            except (RunFailed, MemoryError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                raise following.failed(error) from error
            following.end(returned_tensors(result), self.shapes)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put the stand-ins into the model, and everything back afterwards."""
        model = self.model
        tensors = named_tensors(model)
        with ExitStack() as stack:
            stack.callback(self.state.restore)
            _set_mode(model, self.training)
            stack.enter_context(torch.random.fork_rng(_devices(tensors.values())))
            stack.enter_context(_plain_attention())
            counters = {id(b): b.clone() for b in model.buffers() if not b.dim()}
            replacements = {id(tensors[name]): t for name, t in self.stand_ins.items()}
            stack.enter_context(replaced(model, counters | replacements))
            stack.enter_context(torch.no_grad())
            yield


def _set_mode(model: nn.Module, training: bool) -> None:
    try:
        model.train(training)
    except NotImplementedError as error:
        raise RequestError(
            f"{type(model).__name__} is an exported program: only Python modules can be traced; "
            "pass the module that it was made from"
        ) from error


class _Labelling(TorchDispatchMode):
    """Applies the rule of each operation.

    Attributes:
        originals: what has to be given its values back.
        normalised: ids of the tensors that a normalisation has made.
        paused: whether operations go by unseen, inside a function that has a rule of its own.
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
        # Compiled code leaves the function mode on, which would hand out sizes that remember.
        with torch._C.DisableTorchFunction():
            return self._carried_out(func, args, kwargs or {})

    def _carried_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._latest = func, args, kwargs
        if func._schema.is_mutable:
            self.originals.about_to_write(func, args, kwargs)
        out = func(*args, **kwargs)
        if not self.paused:
            operands = tensors_in([args, kwargs])
            # In place of what is written to, the labels from before.
            before = [self._trace[tensor] for tensor in operands]
            self._label(func, out, args, kwargs)
            self.note(canonical(func), before, out)
        return out

    @property
    def latest(self) -> str:
        """The operation that is carried out, and on what, for complaints."""
        if self._latest is None:
            return "its start"
        func, args, kwargs = self._latest
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in([args, kwargs]))
        return f"{func.name().partition('.')[0]} on {shapes or 'no tensor'}"

    def note(self, name: str, operands: list[Axes], out: Any) -> None:
        """Note a step of the pass."""
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
        """Write labels into the tensors that were passed for the results."""
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
        """Let operations pass that no channel takes part in."""
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
        """Write labels in place, so that the tensors of which this one is a view see them."""
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
    """Give the results of an operation their labels; those without are free.

    Views share the arrays with what they are views of.
    """
    labelled = axes if isinstance(axes, tuple) else (axes,)
    for tensor, own in zip(results, labelled, strict=False):
        trace[tensor] = list(own) if views else [axis.copy() for axis in own]
    for tensor in results[len(labelled) :]:
        alike = tensor.shape == results[0].shape
        trace[tensor] = (
            [a.copy() for a in trace[results[0]]] if alike else [*map(fixed, tensor.shape)]
        )


class _Sizes(TorchFunctionMode):
    """Hands out sizes that know their axes, and applies the rules of functions."""

    def __init__(self, trace: LabelledTensors, labelling: _Labelling) -> None:
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
        # Of a tensor whose shape is taken, the sizes count.
        shaped = [args[0], self._trace.shape(args[1])] if func in _SHAPED_AS else args
        call = Call.of(func, shaped, kwargs)
        outer, self._trace.call = self._trace.call, call
        try:
            if func in NORMALISED_SHAPES:
                unite_with_normalised_shape(self._trace)
            if func in FUNCTION_RULES:
                return self._as_one(func, args, kwargs)
            return func(*args, **kwargs)
        finally:
            self._trace.call = outer
            stay_where_unmet(call)

    def _replace_data(self, tensor: Tensor, data: Tensor) -> None:
        """Let a tensor have the values of another, and so its labels."""
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
        axes = FUNCTION_RULES[func](self._trace, out, *args, **kwargs)
        _label_results(self._trace, tensors_in(out), axes)
        self._labelling.note(func.__name__, before, out)
        return out


_GET_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]  # a getset descriptor
_SHAPED_AS = frozenset({torch.Tensor.view_as, torch.Tensor.reshape_as, torch.Tensor.expand_as})


def _follow_sizes(model: nn.Module, trace: LabelledTensors) -> None:
    """Let sizes that the code reads from modules remember their axes, as `shrink` changes them."""
    for module in model.modules():
        shapes = {name: trace.shape(tensor) for name, tensor in own_tensors(module).items()}
        sizes = size_attributes(module, shapes)
        module.__dict__.update({n: v for n, v in sizes.items() if n in module.__dict__})


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Switch transformers' fast path off: it nests tensors, and hooks then break it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _watched(model: nn.Module, trace: LabelledTensors) -> Iterator[list[tuple[str, Tensor, Axes]]]:
    """Note which module is running, and collect what layers return."""
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
    """Tell whether a module has tensors of its own and no parts.

    A layer whose weight is computed from others is one, and what computes it is none.
    """
    if "parametrizations" in name.split("."):
        return False
    parts = {part for part, _ in module.named_children()} - {"parametrizations"}
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return not parts and (bool(own) or is_parametrized(module))


def _devices(tensors: Iterable[Tensor]) -> list[torch.device]:
    """Return the accelerators whose random states could be touched."""
    return sorted({t.device for t in tensors if t.is_cuda}, key=str)
