"""What a criterion sees of a network, and that scoring changes nothing."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from harness.scoring import Scoring, magnitudes, scoring_mode


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def norm_of(model: nn.Sequential) -> nn.BatchNorm1d:
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    return norm


POINTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_dropout_is_off_while_scoring(batch_statistics: bool) -> None:
    model = network().train()
    assert not torch.equal(model(POINTS), model(POINTS))
    with scoring_mode(model, batch_statistics):
        assert torch.equal(model(POINTS), model(POINTS))


def test_batch_norm_uses_the_statistics_of_the_batch() -> None:
    model = network()
    hidden = model[0](POINTS)
    by_hand = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    with scoring_mode(model, batch_statistics=True):
        torch.testing.assert_close(model[:2](POINTS), by_hand)


def test_batch_norm_uses_the_running_statistics_if_asked() -> None:
    model = network()
    norm_of(model).running_mean = torch.full([4], 2.0)
    norm_of(model).running_var = torch.full([4], 9.0)
    with scoring_mode(model, batch_statistics=False):
        torch.testing.assert_close(model[:2](POINTS), (model[0](POINTS) - 2) / 3)


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_scoring_changes_nothing_in_the_model(batch_statistics: bool) -> None:
    model = network().train()
    model[2].eval()  # a part in evaluation mode stays in it
    before = copied(model)
    modes = [module.training for module in model.modules()]
    with scoring_mode(model, batch_statistics):
        model(POINTS).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    model(POINTS)
    assert norm_of(model).num_batches_tracked == 1, "training goes on counting"


def test_the_modes_are_restored_after_an_error() -> None:
    model = network().train()
    with contextlib.suppress(ZeroDivisionError), scoring_mode(model, batch_statistics=True):
        raise ZeroDivisionError
    assert all(module.training for module in model.modules())
    assert norm_of(model).track_running_stats


def test_running_statistics_may_be_used_inside_batch_statistics() -> None:
    # SynFlow evaluates the network without a batch, in the middle of a pruning event.
    model = network()
    with scoring_mode(model, batch_statistics=True):
        outside = model(POINTS)
        with scoring_mode(model, batch_statistics=False):
            assert not torch.equal(model(POINTS), outside)
        assert torch.equal(model(POINTS), outside)


def test_magnitudes_are_positive_double_precision_weights() -> None:
    model = network()
    gate = torch.tensor([-1.5, 2.0], requires_grad=True)
    before = copied(model)
    with magnitudes(model, {"gate": gate}):
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                assert value.dtype == gate.dtype == torch.float64
                assert torch.equal(value, before[name].double().abs())
        assert gate.tolist() == [1.5, 2.0]
    assert gate.tolist() == [-1.5, 2.0]


def test_the_weights_are_restored_to_the_last_bit_after_magnitudes() -> None:
    model = network()
    weight = model.get_parameter("0.weight")
    with torch.no_grad():
        weight[0] = torch.tensor([-0.0, torch.nan, -1e-45])
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    bits = weight.view(torch.int32).clone()
    with contextlib.suppress(ZeroDivisionError), magnitudes(model, {}):
        raise ZeroDivisionError
    assert torch.equal(weight.view(torch.int32), bits)
    assert [t.data_ptr() for t in (*model.parameters(), *model.buffers())] == places


def test_the_gradient_is_summed_over_batches_and_zero_at_removed_weights() -> None:
    v = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    scoring = Scoring(
        variables={"v": v, "unused": unused},
        alive={"v": torch.tensor([True, True, False]), "unused": torch.ones(2, dtype=torch.bool)},
        losses=[lambda: v.square().sum(), lambda: 10 * v.sum()],
        without_signs=lambda: contextlib.nullcontext(lambda: v.sum()),
        generator=torch.Generator(),
    )
    gradient = scoring.gradient()
    assert gradient["v"].tolist() == [12, 14, 0]
    assert gradient["unused"].tolist() == [0, 0]
    assert v.grad is None
