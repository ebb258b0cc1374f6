"""Units obey a budget: as little is removed as it allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.storage import network_file
from harness.units import BudgetedUnits, Kept, Limit, Prospect, UnreachableBudget
from pruners.channels.units import Channels
from pruners.distributions import erdos_renyi_kernel, per_layer, whole_network
from pruners.weights import Weights

WIDTHS = (6, 5)


def network() -> nn.Sequential:
    """A perceptron with 3*6 + 6*5 + 5*2 = 58 weights and 13 biases."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def forward(model: nn.Module) -> Tensor:
    outputs: Tensor = model(torch.ones(1, 3))
    return outputs


def parameters(prospect: Prospect) -> float:
    return sum(prospect.elements.values())


def file_size(prospect: Prospect) -> float:
    state = prospect.network().state_dict()
    return len(network_file.contents(state, prospect.masks, {"units": prospect.state}))


COSTS = {"params": parameters, "bytes": file_size}


def scores_of(units: BudgetedUnits, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(m.shape, generator=generator) for name, m in units.alive().items()}


def number(kept: Kept) -> int:
    return sum(int(mask.sum()) for mask in kept.values())


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(COSTS)),
    share=st.floats(0.55, 0.99),
    seed=st.integers(0, 9),
    scope=st.sampled_from([whole_network, per_layer]),
    rounding=st.sampled_from([1, 2]),
)
def test_channels_keep_the_largest_selection_within_the_budget(
    kind: str, share: float, seed: int, scope: Any, rounding: int
) -> None:
    units = Channels(network(), forward)
    scores = scores_of(units, seed)
    cost = COSTS[kind]
    dense = cost(units.prospect(units.alive()))
    limit = Limit(kind, cost, share * dense)
    try:
        kept = units.select(scores, 0.5, scope, rounding=rounding, limit=limit)
    except UnreachableBudget:
        # The size of a file also depends a little on which channels are kept.
        smallest = units.smallest(scores, 0.0, rounding)
        assert kind == "bytes" or cost(units.prospect(smallest)) > limit.at_most
        return
    assert cost(units.prospect(kept)) <= limit.at_most
    if number(kept) == sum(WIDTHS):
        return
    larger = units._without(_but_the_last(units, scores, scope, rounding, kept))
    assert cost(units.prospect(larger)) > limit.at_most


def _but_the_last(
    units: Channels, scores: dict[str, Tensor], scope: Any, rounding: int, kept: Kept
) -> Any:
    blocks = units._order(units._comparable(scores, scope, 0.5), 0.0, rounding)
    removed = sum(WIDTHS) - number(kept)
    taken = [blocks[:count] for count in range(len(blocks) + 1)]
    return next(b[:-1] for b in taken if sum(map(len, b)) == removed)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(COSTS)),
    share=st.floats(0.6, 0.99),
    seed=st.integers(0, 9),
    scope=st.sampled_from([whole_network, per_layer, erdos_renyi_kernel]),
)
def test_weights_keep_as_many_as_the_budget_allows(
    kind: str, share: float, seed: int, scope: Any
) -> None:
    units = Weights(network())
    scores = scores_of(units, seed)
    cost = COSTS[kind]
    limit = Limit(kind, cost, share * cost(units.prospect(units.alive())))
    try:
        kept = units.select(scores, 0.5, scope, limit=limit)
    except UnreachableBudget:
        return
    assert cost(units.prospect(kept)) <= limit.at_most
    one_more = units.select(scores, 1 - (number(kept) + 1) / 58, scope)
    assert cost(units.prospect(one_more)) > limit.at_most


def test_parameters_of_weights_are_exact_to_one() -> None:
    units = Weights(network())
    limit = Limit("params", parameters, 40)
    kept = units.select(scores_of(units, 0), 0.5, whole_network, limit=limit)
    assert number(kept) == 40 - 13


def test_a_prospect_is_the_network_as_it_is_afterwards() -> None:
    kinds: tuple[type[BudgetedUnits], ...] = (Channels, Weights)
    for kind in kinds:
        model: Any = network()
        units = kind(model, forward)
        kept = units.select(scores_of(units, 3), 0.4, whole_network)
        prospect = units.prospect(kept)
        foreseen = prospect.network()
        units.apply(model, None, [], kept)
        assert prospect.elements == units.prospect(units.alive()).elements
        assert torch.equal(forward(foreseen), forward(model))
        for name, value in units.state().items():
            assert torch.equal(prospect.state[name], value)


def test_the_nearest_budget_is_named_where_none_is_reached() -> None:
    units = Channels(network(), forward)
    limit = Limit("params", parameters, 5)
    # One channel each: 3 + 1 + 2 weights and 1 + 1 + 2 biases.
    with pytest.raises(UnreachableBudget, match=r"params=5 cannot .* nearest .* params=10$"):
        units.select(scores_of(units, 0), 0.5, whole_network, limit=limit)
    assert parameters(units.prospect(units.smallest(units.alive(), 0.0, 1))) == 10


@pytest.mark.parametrize("kind", [Channels, Weights])
def test_a_floor_that_keeps_a_budget_out_of_reach_is_named(kind: type[BudgetedUnits]) -> None:
    units = kind(network(), forward)
    limit = Limit("params", parameters, 5)
    with pytest.raises(UnreachableBudget, match=r"nearest .*: floor=0\.5 protects "):
        units.select(scores_of(units, 0), 0.5, whole_network, 0.5, limit=limit)
    # A share that amounts to one channel protects nothing, because one stays in any case.
    if kind is Channels:
        with pytest.raises(UnreachableBudget, match=r"params=10$"):
            units.select(scores_of(units, 0), 0.5, whole_network, 0.1, limit=limit)


def test_rounded_numbers_of_channels_are_multiples_and_small_groups_stay_whole() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 21), nn.Linear(21, 7), nn.Linear(7, 2))
    units = Channels(model, forward)
    scores = scores_of(units, 1)
    reached = set()
    for target in (0.01, 0.3, 0.5):
        kept = units.select(scores, target, whole_network, rounding=8)
        reached.add((int(kept["0"].sum()), int(kept["1"].sum())))
    assert reached == {(16, 7), (8, 7)}
    # The first block leaves a multiple: the five worst of the 21 go together.
    kept = units.select(scores, 0.01, whole_network, rounding=8)
    worst = scores["0"].argsort()[:5]
    assert not kept["0"][worst].any()
    assert units.why_whole(scores, 0.0, 8) == {
        "0": "scores above the threshold",
        "1": "minimum of channels",
    }


def test_what_stays_whole_has_a_reason() -> None:
    units = Channels(network(), forward)
    assert units.why_whole({"0"}, 0.0, 1) == {"0": "scores above the threshold", "2": "no score"}
    assert units.pinned() == {"4": "it reaches the model's output"}
    weights = Weights(network())
    assert set(weights.why_whole({}, 1.0, 1).values()) == {"minimum density"}
