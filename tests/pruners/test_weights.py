"""Masks on weights: exact counts, and zeros that stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.prunable import prunable_weights
from harness.scoring import Scores
from harness.units import Kept, ScoreError, Units, UnreachableSparsity
from pruners.distributions import PerOutput, number_to_keep, per_layer, whole_network
from pruners.weights import Weights, _nth_smallest, _top

SIZE = 20
"""Prunable weights in the network below: 12 in the first layer, 8 in the second."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def weight(model: nn.Module, name: str) -> nn.Parameter:
    return prunable_weights(model)[name]


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def scores_of(*values: float) -> Scores:
    first, second = torch.tensor(values).split([12, 8])
    return {"0.weight": first.view(4, 3), "2.weight": second.view(2, 4)}


def flat(kept: Kept) -> list[bool]:
    return [bool(value) for mask in kept.values() for value in mask.flatten()]


def pruned(
    model: nn.Module, target: float, optimizer: torch.optim.Optimizer | None = None
) -> Units:
    """Prune by magnitude."""
    units: Units = Weights(model)
    magnitudes = {name: w.detach().abs() for name, w in prunable_weights(model).items()}
    units.apply(model, optimizer, [], units.select(magnitudes, target, whole_network))
    return units


def removed(model: nn.Module, units: Units) -> Tensor:
    """Return the weights of a model that should be zero."""
    weights, alive = prunable_weights(model), units.alive()
    return torch.cat([weights[name].detach()[~alive[name]] for name in alive])


few_values = st.sampled_from([-1.0, 0.0, 0.0, 0.5, 2.0])
many_values = st.floats(-1000, 1000, width=32)
targets = st.floats(0, 1 - 1 / SIZE)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(few_values | many_values, min_size=SIZE, max_size=SIZE), min_size=3, max_size=3
    ),
    st.lists(targets, min_size=3, max_size=3).map(sorted),
)
def test_counts_are_exact_and_masks_nested_whatever_the_scores(
    events: list[list[float]], increasing: list[float]
) -> None:
    model = network()
    units = Weights(model)
    before = units.alive()
    for values, target in zip(events, increasing, strict=True):
        kept = units.select(scores_of(*values), target, whole_network)
        assert sum(flat(kept)) == number_to_keep(SIZE, target)
        assert not any((kept[name] & ~before[name]).any() for name in kept), "removed ones return"
        units.apply(model, None, [], kept)
        before = units.alive()


@settings(deadline=None)
@given(st.lists(few_values, min_size=SIZE, max_size=SIZE), targets)
def test_the_largest_stay_and_the_earliest_among_equals(values: list[float], target: float) -> None:
    kept = flat(Weights(network()).select(scores_of(*values), target, whole_network))
    by_rank = sorted(range(SIZE), key=lambda position: (-values[position], position))
    assert {p for p in range(SIZE) if kept[p]} == set(by_rank[: number_to_keep(SIZE, target)])


def test_double_precision_scores_are_compared_in_double_precision() -> None:
    scores = {name: score.double() for name, score in scores_of(*[1.0] * SIZE).items()}
    scores["2.weight"][1, 3] += 1e-12
    kept = Weights(network()).select(scores, 0.95, whole_network)
    assert flat(kept) == [False] * 19 + [True]


def test_a_scope_gives_the_number_in_each_tensor() -> None:
    kept = Weights(network()).select(scores_of(*range(SIZE)), 0.5, per_layer)
    assert flat(kept) == [False] * 6 + [True] * 6 + [False] * 4 + [True] * 4


def test_a_floor_keeps_a_share_of_each_tensor() -> None:
    """A quarter of 8 weights: the last tensor, with the smallest scores, keeps two."""
    units = Weights(network())
    scores = scores_of(*range(20, 0, -1))
    kept = units.select(scores, 0.6, whole_network, floor=0.25)
    assert [int(mask.sum()) for mask in kept.values()] == [6, 2]
    assert kept["2.weight"].flatten().tolist() == [True, True] + 6 * [False]
    with pytest.raises(UnreachableSparsity, match=r"nearest that can is 0\.75: floor=0\.25"):
        units.select(scores, 0.8, whole_network, floor=0.25)


def test_a_sparsity_below_the_current_one_is_unreachable() -> None:
    units = pruned(network(), 0.9)
    for scope in (whole_network, per_layer):
        with pytest.raises(UnreachableSparsity, match=r"0\.5 cannot.* nearest that can is 0\.9"):
            units.select(scores_of(*range(SIZE)), 0.5, scope)


def test_a_layer_with_fewer_weights_than_its_share_makes_a_sparsity_unreachable() -> None:
    model = network()
    units = Weights(model)
    units.apply(model, None, [], units.select(scores_of(*range(SIZE)), 0.6, whole_network))
    # Eight are left, all in the second layer, but each layer would have to keep its share.
    with pytest.raises(UnreachableSparsity, match=r"nearest that can is 0\.85"):
        units.select(scores_of(*range(SIZE)), 0.65, per_layer)


def test_a_sparsity_that_leaves_nothing_is_unreachable() -> None:
    for scope in (whole_network, per_layer):
        with pytest.raises(UnreachableSparsity, match=r"0\.9999999 cannot.* that can is 0\.95$"):
            Weights(network()).select(scores_of(*range(SIZE)), 0.9999999, scope)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_names_its_tensor(bad: float) -> None:
    values = [float(value) for value in range(SIZE)]
    with pytest.raises(ScoreError, match=r"'2\.weight'"):
        Weights(network()).select(scores_of(*values[:-1], bad), 0.5, whole_network)


def test_the_scores_of_removed_weights_do_not_matter() -> None:
    model = network()
    units = Weights(model)
    units.apply(model, None, [], units.select(scores_of(*range(SIZE)), 0.5, whole_network))
    kept = units.select(scores_of(*[float("nan")] * 10, *range(10)), 0.9, whole_network)
    assert flat(kept) == [False] * 18 + [True] * 2


def test_finite_scores_may_have_a_sum_that_is_not() -> None:
    scores = scores_of(*[3e38 - 1e36 * place for place in range(SIZE)])
    assert flat(Weights(network()).select(scores, 0.9, whole_network)) == [True] * 2 + [False] * 18


@pytest.mark.parametrize("second", [None, torch.ones(4, 2)])
def test_a_missing_or_misshapen_score_names_its_tensor(second: Tensor | None) -> None:
    scores = {"0.weight": torch.ones(4, 3)} | ({} if second is None else {"2.weight": second})
    with pytest.raises(ScoreError, match=r"for '2\.weight'; expected \(2, 4\)"):
        Weights(network()).select(scores, 0.5, whole_network)


def make_sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)


def make_adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1)


def make_adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)


MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def backward(model: nn.Module) -> None:
    model.zero_grad()
    model(torch.randn(5, 3)).square().sum().backward()


@pytest.mark.parametrize("make", [make_sgd, make_adam, make_adamw])
def test_no_optimizer_ever_revives_a_removed_weight(make: MakeOptimizer) -> None:
    model = network()
    optimizer = make(list(model.parameters()))
    for _ in range(3):
        backward(model)
        optimizer.step()
    units = pruned(model, 0.7, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(20):
        backward(model)
        units.before_step(model)
        optimizer.step()
        units.after_step(model)
        assert (removed(model, units) == 0).all()
    moments = [
        (value, units.alive()[name])
        for name, parameter in prunable_weights(model).items()
        for value in optimizer.state[parameter].values()
        if value.shape == parameter.shape
    ]
    assert moments
    assert all((value[~alive] == 0).all() for value, alive in moments)
    assert all((p != before[name]).any() for name, p in model.named_parameters())


def test_the_state_of_the_optimizer_is_cleared_where_removed() -> None:
    model = network()
    optimizer = make_adam(list(model.parameters()))
    backward(model)
    optimizer.step()
    alive = pruned(model, 0.7, optimizer).alive()["0.weight"]
    state = optimizer.state[weight(model, "0.weight")]
    for moment in (state["exp_avg"], state["exp_avg_sq"]):
        assert (moment[~alive] == 0).all()
        assert (moment[alive] != 0).all()
    assert state["step"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_removed_weights_become_zero_whatever_they_were(dtype: torch.dtype) -> None:
    model = nn.Linear(5, 1, bias=False)
    values = [torch.nan, torch.inf, -torch.inf, -1.0, -2.0]
    model.weight = nn.Parameter(torch.tensor([values], dtype=dtype))
    Weights(model).apply(model, None, [], {"weight": torch.tensor([[False] * 4 + [True]])})
    assert model.weight.tolist() == [[0, 0, 0, 0, -2]]
    assert not model.weight.detach()[0, :4].real.signbit().any()


def test_gradients_of_removed_weights_do_not_enter_clipping() -> None:
    model = network()
    units = pruned(model, 0.7)
    backward(model)
    gradients = {name: gradient(w) for name, w in prunable_weights(model).items()}
    left = torch.cat([gradients[name][alive] for name, alive in units.alive().items()])
    units.before_step(model)
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    torch.testing.assert_close(norm, left.norm())


def test_removed_weights_that_the_optimizer_changes_are_zeroed_again() -> None:
    model = network()
    units = pruned(model, 0.7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    units.after_step(model)
    assert (removed(model, units) == 0).all()
    assert sum(int(w.count_nonzero()) for w in prunable_weights(model).values()) == 6
    assert (model.get_parameter("0.bias") == 1).all()


def test_parameters_without_gradients_are_skipped() -> None:
    model = network()
    units = pruned(model, 0.7)
    units.before_step(model)
    assert weight(model, "0.weight").grad is None


def test_nothing_is_touched_before_anything_is_removed() -> None:
    model = network()
    units = Weights(model)
    backward(model)

    def versions() -> list[int]:
        return [tensor._version for p in model.parameters() for tensor in (p, gradient(p))]

    before = versions()
    units.restore(model, units.state())
    units.before_step(model)
    units.after_step(model)
    assert all(flat(units.alive()))
    assert versions() == before


def test_target_networks_are_masked_like_the_model() -> None:
    model, target_network = network(), network()
    units = Weights(model)
    kept = units.select(scores_of(*range(SIZE)), 0.75, whole_network)
    units.apply(model, None, [target_network], kept)
    assert (removed(target_network, units) == 0).all()
    assert (weight(target_network, "2.weight")[:, 3] != 0).all()


def test_shuffled_masks_keep_as_many_weights_drawn_from_those_alive() -> None:
    model = network()
    units = Weights(model)
    units.apply(model, None, [], units.select(scores_of(*range(SIZE)), 0.3, whole_network))
    alive = units.alive()
    kept = units.select(scores_of(*range(SIZE)), 0.7, per_layer)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(4, 3)
    for _ in range(100):
        shuffled = units.shuffled(kept, generator)
        for name in kept:
            assert shuffled[name].sum() == kept[name].sum()
            assert not (shuffled[name] & ~alive[name]).any()
        chosen += shuffled["0.weight"]
    # Each time four of the six remaining weights of the first layer are drawn, none preferred.
    assert ((chosen > 50) == alive["0.weight"]).all()
    assert any((units.shuffled(kept, generator)[name] != kept[name]).any() for name in kept)


def test_a_state_masks_a_newly_built_model() -> None:
    first = pruned(network(), 0.7)
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    second = Weights(model)
    second.restore(model, first.state())
    assert flat(second.alive()) == flat(first.alive())
    assert (removed(model, second) == 0).all()
    backward(model)
    second.before_step(model)
    make_sgd(list(model.parameters())).step()
    second.after_step(model)
    assert (removed(model, second) == 0).all()


def test_tied_weights_are_pruned_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    units = pruned(model, 0.5)
    assert list(units.alive()) == ["0.weight"]
    assert second.weight.count_nonzero() == 8


@pytest.mark.parametrize("place", [0, 1, 150_000, 200_000, 299_998, 299_999])
@pytest.mark.parametrize("kind", ["normal", "mostly removed", "few values", "equal", "sorted"])
def test_a_long_vector_is_ranked_as_if_it_were_sorted(kind: str, place: int) -> None:
    normal = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    values = {
        "normal": normal,
        "mostly removed": torch.where(normal > 0.5, normal, -torch.inf),
        "few values": normal.round(),
        "equal": torch.ones(300_000),
        "sorted": torch.arange(300_000.0),
    }[kind]
    parts = [values[:7].numpy(), values[7:100_000].numpy(), values[100_000:].numpy()]
    assert _nth_smallest(parts, place) == float(values.sort().values[place])


# Outputs


def test_ties_are_broken_across_tensors() -> None:
    first, second, third = _top([torch.ones(2, 2), torch.tensor([1.0, 2.0]), torch.ones(3)], 4)
    assert first.tolist() == [[True, True], [True, False]]
    assert second.tolist() == [False, True]
    assert third.tolist() == [False] * 3


def test_every_output_keeps_its_largest_on_paper() -> None:
    units: Units = Weights(network())
    scores = scores_of(*(3, 2, 1), *(4, 5, 6), *(9, 7, 8), *(1, 1, 1), *(1, 2, 3, 4), *(8, 7, 6, 5))
    kept = units.select(scores, 0.5, PerOutput())
    # Six of twelve stay in the first layer: one of each output, and the two best second ones.
    assert kept["0.weight"].int().tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0]]
    assert kept["2.weight"].int().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


@given(
    st.lists(st.integers(0, 5), min_size=SIZE, max_size=SIZE),
    st.floats(0, 0.9),
    st.sampled_from([0.0, 0.05]),
)
def test_outputs_of_a_layer_keep_the_same_number_to_one_weight(
    values: list[int], sparsity: float, floor: float
) -> None:
    units: Units = Weights(network())
    kept = units.select(scores_of(*map(float, values)), sparsity, PerOutput(), floor)
    for name, mask in kept.items():
        of_outputs = mask.sum(1)
        assert of_outputs.max() - of_outputs.min() <= 1
        scores = scores_of(*map(float, values))[name]
        for row, stays in zip(scores, mask, strict=True):
            assert not stays.any() or stays.all() or row[stays].min() >= row[~stays].max()
    counts = per_layer({name: mask.shape for name, mask in kept.items()}, sparsity)
    assert {name: int(mask.sum()) for name, mask in kept.items()} == counts


def test_the_inputs_of_a_transposed_convolution_come_first() -> None:
    model = nn.ConvTranspose1d(4, 3, 2)
    scores = {"weight": torch.rand(4, 3, 2)}
    kept = Weights(model).select(scores, 0.5, PerOutput())["weight"]
    assert kept.sum((0, 2)).tolist() == [4, 4, 4]


def test_outputs_that_have_lost_too_much_cannot_keep_their_share() -> None:
    model = network()
    units: Units = Weights(model)
    first = torch.tensor([[False] * 3, *[[True] * 3] * 3])
    units.apply(model, None, [], {"0.weight": first, "2.weight": torch.ones(2, 4) > 0})
    # The first layer should keep one of each output and two more, but one output has none left.
    with pytest.raises(UnreachableSparsity, match=r"nearest that can is 0\.55: an output has too"):
        units.select(scores_of(*range(SIZE)), 0.5, PerOutput())


def test_outputs_need_a_number_for_each_layer() -> None:
    with pytest.raises(ScoreError, match=r"PerOutput\(\.\.\.\) takes a distribution with a number"):
        Weights(network()).select(scores_of(*range(SIZE)), 0.5, PerOutput(whole_network))
