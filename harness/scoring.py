"""What a criterion sees of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from harness.errors import RequestError
from harness.functional import FunctionalNetwork
from harness.layer_inputs import LayerInputs
from harness.units import Kept, Units
from harness.units import Scores as Scores


@dataclass(frozen=True)
class Scoring:
    """The variables of a pruning event, and the training loss as a function of them.

    A variable is a weight or a gate. It requires grad, unless it is a weight that the task has
    frozen. Only training data are used.
    """

    variables: Mapping[str, Tensor]
    alive: Mapping[str, Tensor]
    """For each variable a boolean tensor of its shape: False if it was removed earlier."""
    losses: Sequence[Callable[[], Tensor]]
    """One function per scoring batch; each call recomputes its training loss."""
    without_signs: Callable[[], contextlib.AbstractContextManager[Callable[[], Tensor]]]
    """A context in which model and variables hold their magnitudes in double precision; it yields
    the function that computes the summed output for an input of ones (SynFlow)."""
    generator: torch.Generator
    """Random numbers of this event, on the CPU."""
    units: Units | None = None
    """The units to which the variables belong, for criteria that need more than scores."""
    without_gradient: set[str] = field(default_factory=set)
    """Frozen variables whose gradient a criterion asked for; they cannot be ranked."""
    inputs: LayerInputs = field(default_factory=partial(LayerInputs, nn.Module(), ()))
    """What the prunable weights are multiplied by in the scoring batches, whatever the units."""
    network: FunctionalNetwork | None = None
    """The network as a function of its weights, for `functional`; None if variables are gates."""

    def learning(self) -> dict[str, Tensor]:
        """Return the variables that have a gradient: all but frozen weights.

        A criterion that calls this ranks by gradients, so the engine keeps all frozen weights.
        """
        frozen = {name for name, v in self.variables.items() if not v.requires_grad}
        self.without_gradient.update(frozen)
        return {name: v for name, v in self.variables.items() if name not in frozen}

    def gradient(
        self, *, dense: bool = False, batches: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Return the summed gradient over the scoring batches, zero where pruned or frozen.

        Args:
            dense: whether pruned variables, which are zero, have their gradient, too.
            batches: the numbers of the batches to sum over; None for all.
        """
        total = {name: torch.zeros_like(variable) for name, variable in self.variables.items()}
        learning = self.learning()
        losses = self.losses if batches is None else [self.losses[each] for each in batches]
        for loss in losses if learning else ():
            gradients = torch.autograd.grad(loss(), list(learning.values()), materialize_grads=True)
            for name, gradient in zip(learning, gradients, strict=True):
                total[name].add_(gradient)
        if not dense:
            for name, sum_ in total.items():
                sum_.mul_(self.alive[name])
        return total

    def functional(self) -> FunctionalNetwork:
        """Return the network as a function of its weights, to look at other values of them.

        Raises:
            RequestError: the variables are gates, which are not weights.
        """
        if self.network is None:
            raise RequestError("this criterion scores weights: prune(Weights, ...)")
        return self.network


def require_twice_differentiable(loss: Tensor) -> None:
    """Refuse a loss whose second derivative torch would silently take for 0.

    The gradient of a ``torch.autograd.Function`` marked ``once_differentiable`` is detached from
    its inputs, and torch raises an error only on some paths.

    Raises:
        RuntimeError: the loss goes through such a function.
    """
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(type(node), "_forward_cls", None)
        code = getattr(getattr(function, "backward", None), "__code__", None)
        if function is not None and code is not None and code.co_qualname == _ONCE:
            raise RuntimeError(f"differentiate twice {function.__name__}: once_differentiable")
        waiting += [following for following, _ in node.next_functions]


_ONCE = "once_differentiable.<locals>.wrapper"

Criterion = Callable[[Scoring], Scores]
"""How to prune: the variables with the lowest scores are removed."""


@runtime_checkable
class Reconstructing(Protocol):
    """A criterion that also changes the weights that remain, to make up for those removed."""

    def __call__(self, scoring: Scoring) -> Scores:
        """Score the weights; those with the lowest scores are removed."""

    def remaining(self, scoring: Scoring, kept: Kept) -> dict[str, Tensor]:
        """Return new values of weights, by name.

        Args:
            scoring: the network before the removal.
            kept: what remains of each weight.
        """


class _PlainHardsigmoid(TorchFunctionMode):
    """A context in which the hard sigmoid has second derivatives, which torch's own lacks."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, or the same function in plain operations."""
        if func is F.hardsigmoid:
            return F.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def scoring_mode(model: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """Dropout off, buffers untouched; BatchNorm uses the batch's statistics, or the running ones.

    Running statistics are stale after a few epochs and undefined at initialisation, so the
    batch's are the default. Fused kernels for attention and recurrent layers that lack second
    derivatives, and the hard sigmoid, are replaced by plain ones.
    """
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    model.eval()
    if batch_statistics:
        for norm in norms:
            # Training mode without running statistics: normalise by the batch, update nothing.
            norm.training, norm.track_running_stats = True, False
    try:
        with _differentiable_twice(model):
            yield
    finally:
        for norm, flag in zip(norms, tracked, strict=True):
            norm.track_running_stats = flag
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Choose kernels that have second derivatives and run every module's hooks."""
    backends: Any = torch.backends
    fast_path = backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with contextlib.ExitStack() as stack:
        stack.callback(backends.mha.set_fastpath_enabled, fast_path)
        backends.mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.Hardsigmoid) for module in model.modules()):
            stack.enter_context(_PlainHardsigmoid())
        if recurrent:  # cuDNN's have no backward pass in evaluation mode either
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@contextlib.contextmanager
def magnitudes(model: nn.Module, variables: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace every parameter, buffer and variable by its magnitude in double precision."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    tensors |= {id(variable): variable for variable in variables.values()}
    originals = {key: tensor.data for key, tensor in tensors.items() if tensor.is_floating_point()}
    try:
        for key, original in originals.items():
            tensors[key].data = original.double().abs()
        yield
    finally:
        for key, original in originals.items():
            tensors[key].data = original


class WithoutBarriers(TorchFunctionMode):
    """A context in which nothing stops the flow through a network whose numbers are not negative.

    Normalisation over channels takes out the mean, and a softmax lets one input replace another:
    behind either, more input is not more output. Here layer and root-mean-square normalisation only
    multiply by their scales, and attention adds up the values, each times ``log(1 + x)`` of the
    product ``x`` of query and key, whose slope never rounds to zero. So SynFlow keeps its meaning
    in transformers: scores are not negative, and zero only for weights that are on no path.

    `torch.nn.MultiheadAttention`, whose function hides its attention, stays as it is.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, or what takes its place."""
        replacement = _WITHOUT_BARRIERS.get(func, func)
        return replacement(*args, **(kwargs or {}))


def _only_scaled(
    x: Tensor, shape: object, weight: Tensor | None = None, *args: object, **kwargs: object
) -> Tensor:
    return x if weight is None else x * weight


def _added_up(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        repeated = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(repeated, -3) for each in (key, value))
    shares = (query @ key.transpose(-2, -1)).log1p()
    if is_causal:
        shares = shares.tril()
    if attn_mask is not None:
        sees = attn_mask if attn_mask.dtype is torch.bool else attn_mask > -torch.inf
        shares = shares * sees
    return shares @ value


_WITHOUT_BARRIERS: Mapping[Any, Callable[..., Tensor]] = {
    F.layer_norm: _only_scaled,
    F.rms_norm: _only_scaled,
    F.scaled_dot_product_attention: _added_up,
}
