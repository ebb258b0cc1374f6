"""The trial of a network of the zoo, and the table of results."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import pool, table, trial
from benchmarks.zoo.trial import Network, Result, attempt, cuttable_share, what_stops
from pruners.channels import ChannelGraph, UnknownOperation, trace_channels


class CountingChannels(nn.Module):
    """Divides by the root mean square over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        hidden = self.first(x).float().to(x)
        return self.second(hidden / hidden.square().mean(1, keepdim=True).sqrt())


class Pinned(nn.Module):
    """A slice that is written in the code pins the channels of the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.back = nn.Linear(4, 8), nn.Linear(8, 6)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.back(self.free(x).relu())[:, 1:4])


def plain() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))
    )


PLAIN = Network(plain, lambda: [torch.randn(2, 3, 5, 5)])


def test_a_network_that_can_be_cut_is_right() -> None:
    result = attempt(PLAIN)
    assert (result.outcome, result.reason) == ("right", "")
    assert result.parameters == 8 * 27 + 8 + 8 + 8 + 72 * 4 + 4
    assert result.groups == 1
    assert result.cuttable == 1
    assert result.left == pytest.approx((4 * 27 + 4 + 4 + 4 + 36 * 4 + 4) / result.parameters)


def test_a_network_that_counts_channels_is_distinguished_from_a_wrong_one() -> None:
    result = attempt(Network(CountingChannels, lambda: [torch.randn(5, 4)]))
    assert result.outcome == "counts channels"


def test_a_wrong_graph_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed_up(*arguments: Any, **options: Any) -> ChannelGraph:
        graph = trace_channels(*arguments, **options)
        (group,) = graph.groups
        first, *others = group.members
        wrong = replace(first, index=first.index.flip(0))
        return ChannelGraph((replace(group, members=(wrong, *others)),), graph.pinned)

    monkeypatch.setattr(trial, "trace_channels", mixed_up)
    result = attempt(PLAIN)
    assert result.outcome == "wrong"
    assert "differs from the masked one" in result.reason


def test_a_network_that_fails_when_it_is_cut_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(*arguments: Any, **options: Any) -> ChannelGraph:
        graph = trace_channels(*arguments, **options)
        (group,) = graph.groups
        return ChannelGraph((replace(group, members=group.members[:-1]),), graph.pinned)

    monkeypatch.setattr(trial, "trace_channels", half)
    result = attempt(PLAIN)
    assert result.outcome == "wrong"
    assert result.reason.startswith("the cut network fails: RuntimeError")


def test_a_network_that_cannot_be_trained_is_only_cut() -> None:
    def without_gradient(model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            output: Tensor = model(x)
        return output

    result = attempt(replace(PLAIN, forward=without_gradient))
    assert (result.outcome, result.reason) == ("right", "not trained: no output has a gradient")


def test_a_network_may_run_in_single_precision_only() -> None:
    assert attempt(replace(PLAIN, dtype=torch.float)).outcome == "right"


def test_a_refusal_names_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> ChannelGraph:
        raise UnknownOperation("no rule for aten::fancy (in features.3):\nadd one")

    monkeypatch.setattr(trial, "trace_channels", refuse)
    result = attempt(PLAIN)
    assert (result.outcome, result.operation) == ("refused", "aten::fancy")
    assert result.reason == "no rule for aten::fancy (in features.3): add one"


def test_a_network_that_does_not_run_says_nothing_about_tracing() -> None:
    result = attempt(Network(plain, lambda: [torch.randn(2, 1, 5, 5)]))
    assert result.outcome == "not built"
    assert result.reason.startswith("RuntimeError: ")


def test_the_share_that_can_be_cut_and_what_stops_the_rest() -> None:
    model = Pinned()
    graph = trace_channels(model, torch.randn(2, 4))
    assert graph.sizes() == {"free": 8}
    weights = 4 * 8 + 8 * 6 + 3 * 2
    assert cuttable_share(model, graph) == pytest.approx((4 * 8 + 8 * 6) / weights)
    assert sum(what_stops(model, graph).values()) >= 6 / weights


ROWS: list[table.Row] = [
    ("own", "a|b", Result("right", parameters=1200, cuttable=0.9, left=0.3, groups=4, seconds=0.5)),
    ("own", "c", Result("refused", "no rule for aten::d", "aten::d", parameters=7)),
    ("other", "e", Result("counts channels", groups=1, stops={"written in the code": 0.25})),
]


def test_each_family_has_its_counts() -> None:
    assert table.summary(ROWS) == [
        "own: 2 networks: 1 right, 1 refused",
        "other: 1 networks: 1 counts channels",
    ]


def test_the_page_has_a_row_for_each_network() -> None:
    lines = table.page(ROWS, {"torch": "2.14"}, 1e-7).splitlines()
    assert r"| a\|b | 1,200 | right | 90% | 30% |  |" in lines
    assert "| c | 7 | refused |  |  | `aten::d`: no rule for aten::d |" in lines
    assert "| e |  | counts channels | 0% |  | 25%: written in the code |" in lines
    assert "| own | 2 | 1 | 0 | 1 | 0.5 |" in lines
    assert "Versions: torch 2.14." in lines


def bad(family: str, name: str) -> Result:
    """Behave like a network that ends its process."""
    if name == "hangs":
        time.sleep(60)
    if name == "dies":
        os._exit(9)
    print("noise")
    return Result("right")


def grows(family: str, name: str) -> Result:
    return attempt(replace(PLAIN, build=lambda: nn.Linear(10**6, 10**6)))


@pytest.mark.slow
def test_a_bad_network_costs_only_its_own_row(capfd: pytest.CaptureFixture[str]) -> None:
    names = [("own", name) for name in ("hangs", "dies", "good")]
    found = pool.results(bad, names, seconds=5, jobs=3)
    assert [(name, result.outcome) for _, name, result in found] == [
        ("hangs", "out of time"),
        ("dies", "out of memory"),
        ("good", "right"),
    ]
    ((_, _, result),) = pool.results(grows, [("own", "grows")], gigabytes=16)
    assert result.outcome == "out of memory"
    assert "noise" not in capfd.readouterr().out
