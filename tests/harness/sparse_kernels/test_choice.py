"""The choice between sparse and dense kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.sparse_kernels import (
    DENSE,
    SPARSE_CSR,
    SparseExecution,
    choice,
    choose_kernels,
    operators,
    ratio_of_steps,
)
from tests.harness.sparse_kernels.networks import pruned
from tests.harness.sparse_kernels.test_layers import convolutional, perceptron
from tests.harness.sparse_kernels.test_optimization import OPTIMIZERS

ROWS = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))


class Clock:
    """Gives the times of measurements, in place of those measured."""

    def __init__(self, *times: Sequence[float]) -> None:
        self._times = iter(times)

    def __call__(self, trial: Any, sides: Sequence[Any], changed: nn.Module) -> Sequence[float]:
        times = next(self._times)
        assert len(times) == len(sides)
        for context, call in sides:
            with context:
                call()
        return times


def set_times(monkeypatch: pytest.MonkeyPatch, *times: Sequence[float]) -> None:
    clock = Clock(*times)
    monkeypatch.setattr(
        choice._Trial, "_take_turns", lambda trial, sides, changed: clock(trial, sides, changed)
    )


def test_layers_are_sparse_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of each layer sparse and dense; of the whole dense, all sparse, and as chosen.
    set_times(monkeypatch, (1, 4), (3, 2), (3, 4), (10, 8, 5))
    model = perceptron()
    found = choose_kernels(model, pruned(model, 0.3), lambda: model(ROWS))
    assert found.kernels == {"0": SPARSE_CSR, "2": DENSE, "5": SPARSE_CSR}
    assert found.layers == ("0", "5")
    assert found.reasons == {"2": "sparse takes 1.50 times as long"}
    assert found.ratios == {"0": 0.25, "2": 1.5, "5": 0.75}
    assert (found.ratio, found.ratio_all_sparse) == (0.5, 0.8)


def test_all_are_sparse_where_only_that_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    set_times(monkeypatch, (1, 4), (3, 2), (3, 4), (10, 4, 5))
    model = perceptron()
    found = choose_kernels(model, pruned(model, 0.3), lambda: model(ROWS))
    assert found.layers == ("0", "2", "5")
    assert not found.reasons


def test_all_are_dense_where_the_whole_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_times(monkeypatch, (1, 4), (1, 2), (3, 4), (10, 12))
    model = perceptron()
    found = choose_kernels(model, pruned(model, 0.3), lambda: model(ROWS))
    assert found.layers == ()
    assert set(found.reasons.values()) == {"the whole call does not become faster"}
    assert (found.ratio, found.ratio_all_sparse) == (1, 1.2)


def test_dense_masks_and_layers_that_are_not_called_are_not_measured() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(20, 4)
            self.second = nn.Linear(20, 4)

        def forward(self, rows: Tensor) -> Tensor:
            first: Tensor = self.first(rows)
            return first + nn.functional.linear(rows, self.second.weight)

    model = Functional()
    masks = pruned(model, 0.3) | {"first.weight": torch.ones(4, 20, dtype=torch.bool)}
    found = choose_kernels(model, masks, lambda: model(ROWS), seconds=0)
    assert found.reasons == {
        "first": "100% of its weights are left",
        "second": "the call does not run it as a module",
    }
    assert (found.layers, found.ratio, found.ratio_all_sparse) == ((), 1, None)


def test_a_model_without_masks_stays_dense() -> None:
    model = perceptron()
    found = choose_kernels(model, {}, lambda: model(ROWS), seconds=0)
    assert (found.kernels, found.ratio_all_sparse) == ({}, None)


def test_a_model_that_needs_dense_layouts_gets_them() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(20, 4)

        def forward(self, rows: Tensor) -> Tensor:
            output: Tensor = self.linear(rows)
            return output.view(-1)

    model = Viewing()
    masks = pruned(model, 0.3)
    found = choose_kernels(model, masks, lambda: model(ROWS), seconds=0)
    assert found.contiguous
    with SparseExecution(model, masks, contiguous=True):
        model(ROWS)


def test_a_smaller_batch_may_need_dense_layouts_that_a_large_one_has_anyway() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(20, 4)

        def forward(self, rows: Tensor) -> Tensor:
            output: Tensor = self.linear(rows)
            return output.view(-1)

    model, many = Viewing(), torch.randn(operators.SAMPLES_AT_ONCE + 1, 20)
    found = choose_kernels(model, pruned(model, 0.3), lambda: model(many), seconds=0)
    assert found.contiguous


@pytest.mark.parametrize(
    ("draw", "contiguous"),
    [
        (nn.functional.dropout, True),
        (torch.rand_like, True),
        (nn.Dropout(), False),
        (lambda rows: torch.rand(rows.shape), False),
    ],
)
def test_random_numbers_are_drawn_as_for_dense_layers(
    draw: Callable[[Tensor], Tensor], contiguous: bool
) -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(20, 40)
            self.draw = draw

        def forward(self, rows: Tensor) -> Tensor:
            output: Tensor = self.linear(rows)
            return output * self.draw(output)

    def drawn() -> Tensor:
        torch.manual_seed(0)
        outputs: Tensor = model(ROWS)
        return outputs

    model = Drawing()
    masks = pruned(model, 0.3)
    found = choose_kernels(model, masks, drawn, training=True, seconds=0)
    assert found.contiguous is contiguous
    expected = drawn()
    with SparseExecution(model, masks, contiguous=found.contiguous):
        torch.testing.assert_close(drawn(), expected)


def test_a_module_may_be_run_only_where_its_forward_pass_was_replaced() -> None:
    """As by a network with a function of its own in place of the modules."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(20, 4)

        def forward(self, rows: Tensor) -> Tensor:
            if "forward" in vars(self.linear):
                output: Tensor = self.linear(rows)
                return output
            return nn.functional.linear(rows, self.linear.weight, self.linear.bias)

    model = Fused()
    found = choose_kernels(model, pruned(model, 0.3), lambda: model(ROWS), seconds=0)
    assert found.ratios.keys() == {"linear"}


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_optimizer_steps_are_measured_on_copies(name: str) -> None:
    model = perceptron()
    masks = pruned(model, 0.1)
    before = [parameter.clone() for parameter in model.parameters()]
    assert ratio_of_steps(model, masks, OPTIMIZERS[name], seconds=0) > 0
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None


def test_other_errors_of_the_call_are_raised() -> None:
    model = perceptron()
    with pytest.raises(RuntimeError, match="shapes"):
        choose_kernels(model, pruned(model, 0.3), lambda: model(ROWS[:, :3]), seconds=0)


@pytest.mark.parametrize("training", [False, True])
def test_measuring_leaves_the_model_as_it_was(training: bool) -> None:
    model = nn.Sequential(convolutional(), nn.Dropout()).train()
    masks = pruned(model, 0.3)
    images = torch.randn(3, 4, 9, 7)
    model(images).sum().backward()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    random = torch.get_rng_state()
    choose_kernels(
        model, masks, lambda: model(images).sum().backward(), training=training, seconds=0
    )
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
    assert not any("forward" in vars(module) for module in model.modules())
