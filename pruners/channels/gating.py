"""Gates on channels, channels held at zero, and comparison with a shrunk model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from harness.errors import RunFailed
from pruners.channels.attributes import PartlyKept, numbers_replaced
from pruners.channels.groups import ChannelGraph, ChannelGroup, Keep, Site
from pruners.channels.shrinking import kept_positions, partly_kept
from pruners.channels.state import named_tensors, replaced, returned_tensors


class Gates:
    """A context manager that puts a factor ``c = 1`` on every channel, by forward hooks.

    All members of a group share one factor, whose gradient sums over them. With all factors at
    one the outputs of the model are unchanged, to the last bit.

    Limits: In a recurrent layer that is not built from cells, the factors reach its outputs but
    not its feedback. They do not reach parameters that a module with submodules holds itself. A
    group has no factors if some of its channels are not the output of any layer. A factor of zero
    removes a channel only if the following operations map zero to zero, which a sigmoid does not.

    Args:
        model: the traced model.
        graph: its groups.
        before_norm: put the factors before normalisation instead of after it. Batch statistics
            would undo them, so the model has to be in evaluation mode.

    Attributes:
        values: the factors (channels,) by group; they require grad.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, *, before_norm: bool = False) -> None:
        tensors = named_tensors(model)
        self._modules = dict(model.named_modules())
        sites = {
            group.name: group.sites_before if before_norm else group.sites for group in graph.groups
        }
        gated = [group for group in graph.groups if _all_pass_by(group, sites[group.name])]
        self._sites = [(group.name, site) for group in gated for site in sites[group.name]]
        self._handles: list[RemovableHandle] = []
        self.values: dict[str, Tensor] = {
            group.name: torch.ones(
                group.size,
                dtype=tensors[group.members[0].tensor].dtype,
                device=tensors[group.members[0].tensor].device,
                requires_grad=True,
            )
            for group in gated
        }

    def __enter__(self) -> Gates:
        self._handles = [
            self._modules[site.module].register_forward_hook(self._hook(name, site))
            for name, site in self._sites
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, site: Site) -> Any:
        values = self.values[name]
        channel = site.channel.to(values.device)

        def gate(module: nn.Module, args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            factors = torch.cat([values, values.new_ones(1)])[channel]
            shape = [1] * first.dim()
            shape[site.axis] = -1
            gated = first * factors.view(shape)
            return (gated, *output[1:]) if isinstance(output, tuple) else gated

        return gate


def _all_pass_by(group: ChannelGroup, sites: Sequence[Site]) -> bool:
    passing = {channel for site in sites for channel in site.channel.tolist()}
    return passing >= set(range(group.size))


@contextmanager
def masked(model: nn.Module, graph: ChannelGraph, keep: Keep) -> Iterator[None]:
    """Hold the channels that are not kept at zero, as a dense equivalent of a shrunk model.

    Within the context, everything that `shrink` would cut from a parameter is zero and gets no
    gradient. The parameters themselves do not change. Layer, group and root-mean-square
    normalisation count the kept channels only. After each step of an optimizer, enter the context
    again.

    The outputs equal those after removal, unless another operation counts channels: a mean or
    softmax over channels, normalised weights, attention scaled by the width of its heads.

    Args:
        model: the traced model.
        graph: its groups.
        keep: the channels to keep, by group; other groups stay whole.
    """
    parameters = dict(model.named_parameters())
    replacements: dict[int, Tensor] = {}
    kept: dict[int, Tensor] = {}
    for name, dims in kept_positions(model, graph, keep).items():
        if name in parameters:
            parameter = parameters[name]
            masked_parameter = parameter * _mask(parameter, dims)
            replacements[id(parameter)] = masked_parameter
            if 0 in dims:
                kept[id(masked_parameter)] = dims[0].nonzero().squeeze(1).to(parameter.device)
    numbers = partly_kept(model, graph, keep)
    with replaced(model, replacements), numbers_replaced(model, numbers), _NormalisingKept(kept):
        yield


def _mask(parameter: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    mask = torch.ones_like(parameter)
    for dim, stays in dims.items():
        mask.index_fill_(dim, (~stays).nonzero().squeeze(1).to(mask.device), 0)
    return mask


class _NormalisingKept(TorchFunctionMode):
    """Leaves masked channels out of the statistics of normalisation over channels.

    Args:
        kept: positions of the kept channels, by the id of the masked scale.
    """

    def __init__(self, kept: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._kept = kept

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # The modules pass scale and shift to these functions by name.
        kept = self._kept.get(id(kwargs.get("weight"))) if func in _NORMALISATIONS else None
        if kept is None and func in _NORMALISATIONS:
            kept = _kept_of_shape(*args)
        if kept is None:
            return func(*args, **kwargs)
        x, counted = args
        dim = 1 if func is F.group_norm else -1
        if func is not F.group_norm:
            counted = (len(kept),)
        elif counted == x.shape[dim]:
            counted = len(kept)
        vectors = {key: v[kept] if isinstance(v, Tensor) else v for key, v in kwargs.items()}
        normalised = func(x.index_select(dim, kept), counted, **vectors)
        return torch.zeros_like(x).index_copy(dim, kept, normalised)


def _kept_of_shape(x: Tensor, shape: Any) -> Tensor | None:
    """Return the kept positions of the last axis, if a module keeps its size as a number."""
    size = shape[-1] if isinstance(shape, (tuple, list)) else None
    return size.kept.to(x.device) if isinstance(size, PartlyKept) else None


_NORMALISATIONS = (F.layer_norm, F.group_norm, F.rms_norm)


# Comparison with a shrunk model


def verify_shrink(
    dense: nn.Module,
    graph: ChannelGraph,
    keep: Keep,
    shrunk: nn.Module,
    example_inputs: Tensor | Sequence[Any],
    *,
    forward: Callable[..., Any] | None = None,
    tolerance: float = 1e-5,
) -> float:
    """Compare a shrunk model with the dense one, whose removed channels are held at zero.

    Both run in their current modes and from the same random state. Their buffers do not change.

    Args:
        dense: the model before the removal.
        graph: its groups.
        keep: the channels that were kept.
        shrunk: the model after the removal.
        example_inputs: one tensor, or the sequence of all arguments.
        forward: called as ``forward(model, *example_inputs)`` in place of ``model(...)``.
        tolerance: the largest difference allowed; 1e-10 suits double precision.

    Returns:
        The largest difference of any output, relative to the larger of one and the largest output.

    Raises:
        RunFailed: the outputs differ by more. Networks in which an operation counts channels (see
            `masked`) always differ.
    """
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
    forward = forward or (lambda model, *inputs: model(*inputs))
    with masked(dense, graph, keep):
        expected = _outputs(dense, forward, inputs)
    found = _outputs(shrunk, forward, inputs)
    error = max(_difference(*pair) for pair in zip(expected, found, strict=True))
    if not error <= tolerance:
        raise RunFailed(f"the shrunk model differs from the masked one by {error:.2g}")
    return error


def _outputs(model: nn.Module, forward: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    copies = {id(buffer): buffer.clone() for buffer in model.buffers()}
    with torch.no_grad(), torch.random.fork_rng(sorted(devices, key=str)), replaced(model, copies):
        return returned_tensors(forward(model, *inputs))


def _difference(expected: Tensor, found: Tensor) -> float:
    if not expected.numel():
        return 0.0
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
