"""Networks with code in between, random cuts, and comparisons with the masked network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.scoring import Scoring
from pruners.channels import ChannelGraph, masked, shrink, trace_channels, verify_shrink
from pruners.channels.units import Channels
from tests.helpers.networks import Case

# Networks


class Between(nn.Module):
    """Two convolutions with some code between them."""

    def __init__(
        self,
        between: Callable[[Tensor], Tensor] | None,
        width: int = 8,
        outgoing: int | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(3, width, 1)
        self.between = between
        self.last = nn.Conv2d(outgoing or width, 2, 1)

    def forward(self, x: Tensor) -> Any:
        assert self.between is not None
        return self.last(self.between(self.first(x)))


def perceptron() -> nn.Sequential:
    """Groups of 4 and 3 channels; 2*4 + 4*3 + 3*2 = 26 prunable weights."""
    torch.manual_seed(0)
    layers = nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)
    return nn.Sequential(*layers).double()


# Scores


def scoring_of(
    gates: dict[str, Tensor],
    losses: Iterable[Callable[[], Tensor]],
    units: Channels | None = None,
) -> Scoring:
    """Return a scoring of gates that are all alive."""

    def without_signs() -> Any:
        raise AssertionError("only SynFlow needs the network without signs")

    return Scoring(
        variables=gates,
        alive={name: torch.ones_like(gate, dtype=torch.bool) for name, gate in gates.items()},
        losses=list(losses),
        without_signs=without_signs,
        generator=torch.Generator(),
        units=units,
    )


# Cuts


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_keep(graph: ChannelGraph, fraction: float, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        group.name: torch.randperm(group.size)[: max(1, int(fraction * group.size))]
        for group in graph.groups
    }


def cut(
    case: Case, fraction: float, seed: int = 0
) -> tuple[Any, ChannelGraph, dict[str, Tensor], Any, ChannelGraph]:
    """Return a network, its graph, what to keep, a cut copy, and the graph of the copy."""
    model = case.model()
    graph = trace_channels(model, case.inputs(), forward=case.forward)
    keep = random_keep(graph, fraction, seed)
    smaller = copy.deepcopy(model)
    return model, graph, keep, smaller, shrink(smaller, graph, keep)


# Training

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
}


def assert_same_trajectory(case: Case, optimizer: str) -> None:
    """Train, cut, and train the cut and the masked network side by side."""
    dense, inputs = case.model(), case.inputs()
    dense_optimizer = OPTIMIZERS[optimizer](dense.parameters())
    for _ in range(3):
        dense_optimizer.zero_grad()
        _loss(case, dense, inputs).backward()
        dense_optimizer.step()
    graph = trace_channels(dense, inputs, forward=case.forward)
    keep = random_keep(graph, 0.5)
    smaller = copy.deepcopy(dense)
    smaller_optimizer = OPTIMIZERS[optimizer](smaller.parameters())
    smaller_optimizer.load_state_dict(copy.deepcopy(dense_optimizer.state_dict()))
    shrink(smaller, graph, keep, smaller_optimizer)
    for _ in range(4):
        dense_optimizer.zero_grad()
        with masked(dense, graph, keep):
            expected = _loss(case, dense, inputs)
        expected.backward()
        dense_optimizer.step()
        smaller_optimizer.zero_grad()
        found = _loss(case, smaller, inputs)
        found.backward()
        smaller_optimizer.step()
        assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    shrink(dense, graph, keep)
    for mine, theirs in zip(smaller.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def _loss(case: Case, model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    outputs = case.run(model, inputs)
    return sum((output * output.detach().sin()).mean() for output in outputs)


# Comparisons

IMAGE = (2, 3, 6, 6)


def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(IMAGE, dtype=torch.float64)


def assert_right(
    model: Any, *inputs: Any, forward: Callable[..., Any] | None = None
) -> dict[str, int]:
    """Remove every second channel, compare with the masked network, and return the groups."""
    torch.manual_seed(1)
    model = model.double().eval()
    graph = trace_channels(model, inputs, forward=forward)
    keep = {group.name: range(1, group.size, 2) or [0] for group in graph.groups}
    small = copy.deepcopy(model)
    again = shrink(small, graph, keep)
    verify_shrink(model, graph, keep, small, inputs, forward=forward, tolerance=1e-10)
    assert_it_learns(small, *inputs, forward=forward)
    assert again.sizes() == {name: len(kept) for name, kept in keep.items()}
    return graph.sizes()


def assert_it_learns(model: Any, *inputs: Any, forward: Callable[..., Any] | None = None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    output = forward(model, *inputs) if forward else model(*inputs)
    while not isinstance(output, Tensor):
        output = output[0]
    output.square().sum().backward()
    optimizer.step()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def sizes(between: Callable[[Tensor], Tensor], outgoing: int | None = None) -> list[int]:
    """Return the sizes of the groups of two convolutions with some code between them."""
    network = Between(between, outgoing=outgoing).double()
    return list(trace_channels(network, images()).sizes().values())


def reason(between: Callable[..., Any], outgoing: int | None = None) -> str:
    """Return why the channels between two convolutions are pinned."""
    after = Between(lambda x: x)
    after.first = nn.Conv2d(2, 8, 1)
    network = nn.Sequential(Between(between, outgoing=outgoing), after)
    graph = trace_channels(network.double(), images())
    assert graph.sizes() == {"0.last": 2, "1.first": 8}
    return graph.pinned["0.first.weight:0"]
