"""Checks that scoring a network does not change it."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.costs.meter import Instrument
from harness.errors import RunFailed

_CHUNK = 2**16
_BITS: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int16,
    4: torch.int32,
    8: torch.int32,  # the highest of 64 bits would hardly count in sums modulo 2^64
}

ADVICE: Mapping[str, str] = {
    "weights": "work on copies, tensor.detach().clone()",
    "buffers": "work on copies, tensor.detach().clone()",
    "optimizer's state": "work on copies, tensor.detach().clone()",
    "random state of torch": "draw with a generator of your own, in a criterion scoring.generator",
    "random state of NumPy": "draw from numpy.random.default_rng(seed)",
    "random state of Python": "draw from random.Random(seed)",
}
"""What a criterion must not change, and what its author should do instead."""

State = Mapping[str, dict[str, object]]
"""For each of these, by name, a value that is equal as long as nothing changes."""


def by_values(model: nn.Module, optimiser: torch.optim.Optimizer) -> State:
    """Return checksums of all values; a change that is undone counts as unchanged."""
    return {
        "weights": _checksums(dict(model.named_parameters())),
        "buffers": _checksums(dict(model.named_buffers())),
        "optimizer's state": _versions(_states(optimiser)),
        **_random_states(),
    }


def by_versions(model: nn.Module, optimiser: torch.optim.Optimizer) -> State:
    """Return cheap indicators of change: torch's version counters, and norms."""
    weights, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    return {
        "weights": _versions(weights) | _norms(weights),
        "buffers": _versions(buffers),
        "optimizer's state": _versions(_states(optimiser)),
        **_random_states(),
    }


def require_same(before: State, after: State, who: str, when: str) -> None:
    """Compare two states.

    Args:
        before: the state before.
        after: the state after.
        who: the criterion or the pruner, as the subject of a sentence.
        when: the end of that sentence.

    Raises:
        RunFailed: they differ.
    """
    for what, advice in ADVICE.items():
        first, second = before[what], after[what]
        if first == second:
            continue
        changed = [n for n in first | second if first.get(n, who) != second.get(n, who)]
        names = ", ".join(dict.fromkeys(name.partition(" ")[0] for name in changed[:3] if name))
        more = ", ..." if len(changed) > 3 else ""
        if changed:
            which = f" ({names}{more})" if names else ""
            raise RunFailed(f"{who} changed the {what}{which}{when}; {advice}")


@contextmanager
def left_alone(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    who: Callable[[], str],
    instrument: Instrument,
    thoroughly: bool = True,
) -> Iterator[None]:
    """Check that a criterion changes nothing; ``requires_grad`` is restored.

    Gradients are cleared at the beginning, so that a criterion's own ``backward`` does not add to
    those of the last training step, and cleared again at the end.

    Args:
        model: the network.
        optimiser: its optimizer.
        who: returns the criterion, as the subject of a sentence.
        instrument: a context that is left out of the method's costs.
        thoroughly: whether to compare all values, so that a change may be undone. Otherwise torch's
            counters of changes are compared, and norms, which find changes of ``tensor.data``, too.

    Raises:
        RunFailed: a criterion changed something.
    """
    state_of = by_values if thoroughly else by_versions
    parameters = list(model.parameters())
    learning = [parameter.requires_grad for parameter in parameters]
    with instrument(takes_memory=thoroughly):
        before = state_of(model, optimiser)
    optimiser.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for parameter, learns in zip(parameters, learning, strict=True):
            parameter.requires_grad_(learns)
        optimiser.zero_grad(set_to_none=True)
    with instrument(takes_memory=thoroughly):
        after = state_of(model, optimiser)
    require_same(before, after, who(), ", which scoring leaves alone")


def _states(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value
        for number, state in enumerate(optimiser.state.values())
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _versions(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    return {name: (id(tensor), tensor._version) for name, tensor in tensors.items()}


def _norms(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    floating = {name: t.detach() for name, t in tensors.items() if t.is_floating_point()}
    if not floating:
        return {}
    norms = torch.stack([norm.double() for norm in torch._foreach_norm([*floating.values()])])
    # As text, because NaN does not equal NaN.
    return {f"{n} norm": str(v) for n, v in zip(floating, norms.tolist(), strict=True)}


def _random_states() -> dict[str, dict[str, object]]:
    torch_state = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        torch_state += torch.cuda.get_rng_state_all()
    bits = b"".join(state.numpy().tobytes() for state in torch_state)
    name, key, *rest = np.random.get_state(legacy=True)
    return {
        "random state of torch": {"": hashlib.sha256(bits).hexdigest()},
        "random state of NumPy": {"": (name, bytes(np.asarray(key).data), *rest)},
        "random state of Python": {"": random.getstate()},
    }


def _checksums(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return a checksum of each tensor's bits, which depends on their order."""
    sums = {name: _checksum(tensor.detach()) for name, tensor in tensors.items()}
    if not sums:
        return {}
    values = torch.stack([each.cpu() for each in sums.values()]).tolist()
    pairs = zip(tensors.items(), values, strict=True)
    return {name: (id(tensor), tensor.shape, value) for (name, tensor), value in pairs}


def _checksum(tensor: Tensor) -> Tensor:
    """Return the sum of all words, each times a factor that depends on its place."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    bits = real.reshape(-1).view(_BITS[real.element_size()])
    total = torch.zeros((), dtype=torch.long, device=bits.device)
    factors = _factors(bits.device)
    for number, chunk in enumerate(bits.split(_CHUNK)):
        total += (2 * number + 1) * (chunk.long() * factors[: len(chunk)]).sum()
    return total


@functools.cache
def _factors(device: torch.device) -> Any:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-(2**62), 2**62, (_CHUNK,), generator=generator)
    return (2 * drawn + 1).to(device)  # odd, so that no bit is lost
