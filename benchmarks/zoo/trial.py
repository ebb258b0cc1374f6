"""What is tried on each network: cut, compare, train, and once more."""

from __future__ import annotations

import copy
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from harness.errors import RequestError, RunFailed
from pruners.channels import ChannelGraph, shrink, trace_channels, verify_shrink
from pruners.channels.rules.registry import tensors_in

TOLERANCE = 1e-7
"""Largest difference between the cut and the masked network in double precision, relative to the
largest output."""
PERMUTED_TOLERANCE = 1e-5
"""The same between a network and itself with its channels permuted: norms of transformers compute
in single precision, whatever the weights."""
SINGLE_TOLERANCE = 1e-4
"""The same for networks that only run in single precision."""

MOST_CHARACTERS = 160
"""The length of a reason."""

NOTHING_CUT = "nothing cut"
"""The reason where a cut leaves all parameters."""

Outcome = Literal[
    "right", "counts channels", "wrong", "refused", "not built", "out of time", "out of memory"
]
"""How a trial ended.

``counts channels``: the cut network differs from the masked one, but permuting the channels of
each group changes nothing: an operation takes a mean or the like over channels, which masking
leaves in place. ``not built``: the network itself does not run here.
"""

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Network:
    """A network with random weights, and what it is called with.

    Attributes:
        build: returns the network; called under a seed.
        inputs: returns the arguments of a call.
        forward: called as ``forward(model, *inputs)`` in place of ``model(...)``.
        dtype: the type of weights and inputs; single where the network's code converts to it.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], Sequence[Any]]
    forward: Forward = lambda model, *inputs: model(*inputs)
    dtype: torch.dtype = torch.double

    @property
    def tolerance(self) -> float:
        """Largest difference between the cut and the masked network."""
        return TOLERANCE if self.dtype is torch.double else SINGLE_TOLERANCE


@dataclass(frozen=True)
class Result:
    """The result of a trial.

    Attributes:
        outcome: how it ended.
        reason: the error message, in one line.
        operation: the operation that the message names, if any.
        parameters: number of parameters of the whole network.
        cuttable: share of the weights (parameters of two axes or more) that lose entries with a
            channel of some group.
        left: share of the parameters that is left when each group is halved.
        groups: number of groups of coupled channels.
        seconds: duration of tracing.
        stops: what pins the weights that cannot be cut, each with its share of all weights.
        kinds: how many channels of each kind can be removed.
        whole: why no channel of a kind can be removed.
        difference: the largest difference between a cut network and the reference, if compared.
    """

    outcome: Outcome
    reason: str = ""
    operation: str = ""
    parameters: int = 0
    cuttable: float = 0.0
    left: float = 1.0
    groups: int = 0
    seconds: float = 0.0
    stops: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    difference: float = 0.0


class _Wrong(Exception):
    """Tracing returned a graph, but cutting by it gave another network than the graph promises."""


def attempt(network: Network) -> Result:
    """Build a network, cut it in several ways, and return the result."""
    model, inputs, failure = built(network)
    if model is None:
        return failure
    seen, graph = traced(network, model, inputs)
    if graph is None:
        return seen
    try:
        left, counts, note = _try_cuts(network, model, inputs, graph)
    except RequestError as error:
        return failed(seen, "refused", error)
    except Exception as error:
        return failed(seen, "wrong", error)
    outcome: Outcome = "counts channels" if counts else "right"
    return replace(seen, left=left, outcome=outcome, reason=note)


def built(network: Network) -> tuple[nn.Module | None, list[Any], Result]:
    """Return a network and its inputs; or None, with the reason why it does not run here."""
    torch.manual_seed(0)
    try:
        model = network.build().to(network.dtype).eval()
        _without_constants(model)
        inputs = [_converted(value, network.dtype) for value in network.inputs()]
        with torch.no_grad():
            network.forward(model, *inputs)
    except Exception as error:  # whatever a library says of its own network
        return None, [], Result(_unless_memory("not built", error), one_line(error))
    return model, inputs, Result("right")


def traced(
    network: Network, model: nn.Module, inputs: Sequence[Any]
) -> tuple[Result, ChannelGraph | None]:
    """Return what tracing finds, and the groups of the network; None if it is refused."""
    seen = Result("right", parameters=count(model))
    began = time.perf_counter()
    try:
        graph = trace_channels(model, inputs, forward=network.forward)
    except Exception as error:  # a crash in a rule is a refusal, too
        return failed(seen, "refused", error), None
    found = replace(
        seen,
        seconds=time.perf_counter() - began,
        groups=len(graph.groups),
        cuttable=cuttable_share(model, graph),
        stops=what_stops(model, graph),
    )
    return found, graph


def failed(seen: Result, outcome: Outcome, error: Exception) -> Result:
    """Return a result with an error and the operation that it names."""
    return replace(
        seen,
        outcome=_unless_memory(outcome, error),
        reason=one_line(error),
        operation=operation_in(str(error)),
    )


def _try_cuts(
    network: Network, model: nn.Module, inputs: Sequence[Any], graph: ChannelGraph
) -> tuple[float, bool, str]:
    """Try one network.

    Returns:
        The share of the parameters that half of each group leaves, whether an operation counts
        channels, and why nothing was trained.
    """
    sizes = graph.sizes()
    one = {name: [size // 2] for name, size in sizes.items()}
    half = {name: range(0, size, 2) for name, size in sizes.items()}
    _cut(network, model, inputs, graph, one)
    smaller, counts = _cut(network, model, inputs, graph, half)
    left = count(smaller) / count(model)
    optimiser = Adam(smaller.parameters(), lr=1e-4)
    note = train(network, smaller, inputs, optimiser, model)
    if not note:
        smaller.eval()
        with torch.no_grad():  # what a module keeps of a pass could not be copied with its graph
            network.forward(smaller, *inputs)
        again = trace_channels(smaller, inputs, forward=network.forward)
        keep = {name: range(0, size, 2) for name, size in again.sizes().items()}
        larger = copy.deepcopy(smaller)
        shrink(smaller, again, keep, optimiser)
        counts |= _compare(network, larger, inputs, again, keep, smaller)
        train(network, smaller, inputs, optimiser, model)
    return left, counts, note


def _cut(
    network: Network,
    model: nn.Module,
    inputs: Sequence[Any],
    graph: ChannelGraph,
    keep: dict[str, Any],
) -> tuple[nn.Module, bool]:
    smaller = copy.deepcopy(model)
    shrink(smaller, graph, keep)
    return smaller, _compare(network, model, inputs, graph, keep, smaller)


def _compare(
    network: Network,
    model: nn.Module,
    inputs: Sequence[Any],
    graph: ChannelGraph,
    keep: dict[str, Any],
    smaller: nn.Module,
) -> bool:
    """Compare a cut with the masked network; return whether they differ by counting channels.

    Raises:
        _Wrong: the cut network fails, or differs for another reason.
    """
    try:
        verify_shrink(
            model,
            graph,
            keep,
            smaller,
            inputs,
            forward=network.forward,
            tolerance=network.tolerance,
        )
    except RunFailed as error:
        if permuting_changes(network, model, inputs, graph):
            raise _Wrong(str(error)) from None
        return True
    except MemoryError:
        raise
    except Exception as error:  # whatever the cut network stumbles over
        raise _Wrong(f"the cut network fails: {one_line(error)}") from error
    return False


def permuting_changes(
    network: Network, model: nn.Module, inputs: Sequence[Any], graph: ChannelGraph
) -> bool:
    """Return whether the outputs change when the channels of each group are permuted.

    They do if a group is wrong. They do not if the only difference is that channels are counted.
    """
    permuted = copy.deepcopy(model)
    tensors = {**dict(permuted.named_parameters()), **dict(permuted.named_buffers())}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for group in graph.groups:
            order = torch.randperm(group.size, generator=generator)
            for member in group.members:
                tensor = tensors[member.tensor]
                moved = tensor.index_select(member.dim, member.index[order].flatten())
                tensor.index_copy_(member.dim, member.index.flatten(), moved)
        outputs = []
        for each in (model, permuted):
            torch.manual_seed(0)
            outputs.append(tensors_in(network.forward(each, *inputs)))
    tolerance = max(PERMUTED_TOLERANCE, network.tolerance)
    scale = max([float(tensor.abs().max()) for tensor in outputs[0] if tensor.numel()] + [1.0])
    return not all(
        bool(((one - other).abs() <= tolerance * scale).all())
        for one, other in zip(*outputs, strict=True)
    )


def train(
    network: Network,
    model: nn.Module,
    inputs: Sequence[Any],
    optimiser: Optimizer,
    dense: nn.Module,
) -> str:
    """Take a training step; return why the dense network cannot take one either, if so.

    Raises:
        _Wrong: only the cut network cannot.
    """
    try:
        _step(network, model, inputs, optimiser)
    except Exception as error:
        try:
            twin = copy.deepcopy(dense)
            _step(network, twin, inputs, Adam(twin.parameters(), lr=1e-4))
        except Exception as same:
            return f"not trained: {one_line(same)}"
        raise _Wrong(f"the cut network cannot be trained: {one_line(error)}") from error
    return ""


def _step(network: Network, model: nn.Module, inputs: Sequence[Any], optimiser: Optimizer) -> None:
    torch.manual_seed(0)
    model.train()
    optimiser.zero_grad()
    outputs = tensors_in(network.forward(model, *inputs))
    learnt = [tensor.square().mean() for tensor in outputs if tensor.requires_grad]
    if not learnt:
        raise _Wrong("no output has a gradient")
    torch.stack(learnt).sum().backward()
    optimiser.step()


def cuttable_share(model: nn.Module, graph: ChannelGraph) -> float:
    """Return the share of the weights on an axis with channels of a group.

    An axis of which only some positions belong to groups counts by their share.
    """
    weights = _weights(model)
    shares = _shares(weights, graph)
    total = sum(tensor.numel() for tensor in weights.values())
    cuttable = sum(shares[name] * tensor.numel() for name, tensor in weights.items())
    return cuttable / total if total else 0.0


def what_stops(model: nn.Module, graph: ChannelGraph) -> dict[str, float]:
    """Return why weights cannot be cut at all, the largest shares of weights first."""
    weights = _weights(model)
    shares = _shares(weights, graph)
    total = sum(tensor.numel() for tensor in weights.values())
    stopped: Counter[str] = Counter()
    for name, tensor in weights.items():
        if shares[name] == 0:
            reasons = {graph.pinned.get(f"{name}:{dim}", "") for dim in range(tensor.dim())}
            for reason in sorted(reasons - {""}) or ["no reason given"]:
                stopped[reason] += tensor.numel()
    return {reason: numbers / total for reason, numbers in stopped.most_common(3)}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in model.named_parameters() if each.dim() >= 2}


def _shares(weights: dict[str, Tensor], graph: ChannelGraph) -> dict[str, float]:
    """Return the largest share of an axis of each weight that belongs to groups of several."""
    positions: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for group in graph.groups:
        if group.size > 1:
            for member in group.members:
                positions[member.tensor, member.dim].update(member.index.flatten().tolist())
    return {
        name: max(len(positions[name, dim]) / tensor.shape[dim] for dim in range(tensor.dim()))
        for name, tensor in weights.items()
    }


def _without_constants(model: nn.Module) -> None:
    """Make constant weights random: zeros, ones and scales of 1e-6 would hide faults."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)


def _converted(value: Any, dtype: torch.dtype) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if is_float else value


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _unless_memory(outcome: Outcome, error: Exception) -> Outcome:
    is_memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return "out of memory" if is_memory else outcome


def operation_in(complaint: str) -> str:
    """Return the operation that an error message names, or an empty text."""
    found = re.search(r"aten::\w+|torchvision::\w+", complaint)
    return found[0] if found else ""


def one_line(error: Exception) -> str:
    """Return what an error says, cut to a length that fits a table."""
    known = isinstance(error, RequestError | RunFailed | _Wrong)
    said = " ".join(str(error).split())
    line = said if known else f"{type(error).__name__}: {said}"
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 3]}..."
