"""Find coupled channels by a forward pass in which every tensor axis carries labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from harness.errors import RequestError, RunFailed, Skip, nearest
from pruners.channels.checking import (
    Boundaries,
    CutSizes,
    Following,
    Misfit,
    Step,
    trial,
)
from pruners.channels.groups import ChannelGraph
from pruners.channels.kept_sizes import KeptSizes
from pruners.channels.kinds import OUTPUT
from pruners.channels.labelling import (
    Labelling,
    RememberedSizes,
    follow_sizes,
    watched,
)
from pruners.channels.labels import Axes, LabelledTensors, LabelSets, fixed
from pruners.channels.partition import Output, Partition, partition
from pruners.channels.rules import RULES, Rule
from pruners.channels.rules.registry import tensors_in
from pruners.channels.shrinking import remove
from pruners.channels.state import (
    ModelState,
    named_tensors,
    nothing_remembered,
    replaced,
    returned_tensors,
)


def trace_channels(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any],
    *,
    forward: Callable[..., Any] | None = None,
    pin: Collection[str] = (),
    extra_rules: Mapping[str, Rule] | None = None,
) -> ChannelGraph:
    """Find the channels of a model that can only be removed together.

    The model runs in evaluation mode and, if it does not use all parameters then, again in
    training mode. A trial then removes some channels and runs the model again: if a step differs
    from what the labels predict, its channels are pinned. The model is unchanged afterwards,
    including attributes and random states. With inputs on the "meta" device nothing is computed,
    whatever the device of the model. This is fastest, but fails if the forward pass needs values.

    Inputs and outputs keep their sizes. A state that the model takes and returns would be both:
    leave it out with ``forward``.

    Args:
        model: any module whose operations have rules (`pruners.channels.rules`).
        example_inputs: one tensor, or the sequence of all arguments. Their values do not matter.
        forward: called as ``forward(model, *example_inputs)`` in place of ``model(...)``.
        pin: modules, parameters, or axes ("conv1.weight:0") whose channels stay.
        extra_rules: rules of further operations, by their names in ``torch.ops.aten``.

    Returns:
        The groups of coupled channels, and why the other axes are pinned.

    Raises:
        UnknownOperation: an operation on labelled axes has no rule.
        Skip: no group is found.
        RequestError: the forward pass fails, a part of the model is compiled, a tensor is of a
            class of its own, or ``pin`` names nothing.
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

    def formed() -> Partition:
        return partition(trace.sets, labels, outputs, sizes.sources())

    found = formed()
    while misfit := _misfit(passes, found, trace.sets):
        for axis in misfit.labels:
            trace.sets.pin(axis, misfit.reason())
        found = formed()
    graph = found.graph
    if not graph.groups:
        pinned = (f"{axis}: {reason}" for axis, reason in graph.pinned.items())
        why = "; ".join(islice(pinned, 4)) or "it has no two layers in a row"
        raise Skip(f"{type(model).__name__} has no channel that can be removed ({why})")
    return graph


def _call(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)


def _plain(inputs: Any) -> Any:
    """Return the inputs as writable tensors of torch's own class."""

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


def _misfit(passes: Sequence[_Pass], found: Partition, sets: LabelSets) -> Misfit | None:
    """Cut the model on trial, run it again, and return the first step that does not follow.

    Raises:
        RequestError: no channel takes part in the step that does not follow.
    """
    keep = trial(found.graph)
    sizes = CutSizes(sets, found, keep)
    for one in passes if found.graph.groups else ():
        try:
            one.repeat(found.graph, keep, sizes)
        except Misfit as misfit:
            if misfit.labels:
                return misfit
            raise RequestError(
                f"{misfit.reason()}, and no channels take part that could stay"
            ) from misfit
    return None


def _asked_to_pin(labels: Mapping[str, Axes], pin: Collection[str]) -> Iterator[tuple[Any, str]]:
    """Yield the axes that the user asked to keep, with the reason."""
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
    """Return the tensors that take the place of the model's own during the passes.

    With inputs on "meta" all of them are on "meta". Buffers are copied to protect their values.
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
        state: the state to restore afterwards.
        forward: runs the model.
        inputs: the inputs of the model.
        stand_ins: the tensors that take the place of the model's own, by name.
        training: whether the model runs in training mode.
        steps: the steps of the pass, once it has been observed.
        shapes: the shapes of its outputs, once it has been observed.
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
        """Run the model, pin its outputs, and return the outputs of its layers."""
        model = self.model
        for tensor in tensors_in(self.inputs):
            trace[tensor] = [fixed(size) for size in tensor.shape]
        trace.computed(tensors_in(self.inputs), 0)
        with ExitStack() as stack:
            stack.enter_context(self._in_place())
            follow_sizes(model, trace)
            sizes.follow()
            returned = stack.enter_context(watched(model, trace))
            originals = self.state.originals
            labelling = stack.enter_context(Labelling(trace, rules, originals, self.steps))
            stack.enter_context(RememberedSizes(trace, labelling))
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
                trace.pin(axis, OUTPUT)
        return [
            Output(name, axes, trace.is_only_normalised(tensor), id(tensor) in labelling.normalised)
            for name, tensor, axes in returned
        ]

    def repeat(
        self, graph: ChannelGraph, keep: Mapping[str, Sequence[int]], sizes: CutSizes
    ) -> None:
        """Run the model with fewer channels and compare every step with the observed pass.

        Raises:
            Misfit: a step differs.
        """
        with ExitStack() as stack:
            stack.enter_context(self._in_place())
            # The caller may have set another default device, such as "meta".
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
        """Put the stand-ins into the model, and restore it afterwards."""
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


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable the fast path of transformer layers: it nests tensors, and fails with hooks."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _devices(tensors: Iterable[Tensor]) -> list[torch.device]:
    """Return the GPUs whose random states a pass could change."""
    return sorted({t.device for t in tensors if t.is_cuda}, key=str)
