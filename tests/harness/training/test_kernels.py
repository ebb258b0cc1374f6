"""Training with sparse kernels gives what dense kernels give, to rounding."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from harness.network import build_task
from harness.prunable import prunable_weights
from harness.task import Batch, Task
from harness.training.kernels import DENSE, Execution, Kernels
from harness.training.optimization import build_optimiser
from harness.training.trainer import Trainer, update
from pruners.weights import Weights
from tests.helpers.workbench import CPU, Workbench


class Everything(nn.Module):
    """An embedding, an LSTM cell, convolutions with stride, padding and groups, and a linear layer.

    Its input is word numbers (batch, 6).
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 12)
        self.cell = nn.LSTMCell(12, 16)
        # Without a bias, whose gradient would be nothing but rounding before a normalization.
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 6, 3, padding=(0, 1), groups=2, bias=False)
        self.head = nn.Linear(6 * 8, 3)

    def forward(self, words: Tensor) -> Tensor:
        state = None
        hidden = []
        for step in self.words(words.t()).unbind(0):
            state = self.cell(step, state)
            hidden.append(state[0])
        images = torch.stack(hidden, 1).unsqueeze(1)
        features = self.grouped(self.norm(self.stem(images)).relu())
        logits: Tensor = self.head(features.flatten(1))
        return logits


LAYERS = ("cell", "stem", "grouped", "head")


def loss(model: nn.Module, batch: Batch) -> Tensor:
    words, labels = batch
    return nn.functional.cross_entropy(model(words), labels)


TASK = cast(Task, SimpleNamespace(loss=loss, device=CPU))


def recipe(optimiser: str) -> Any:
    return SimpleNamespace(optimiser=optimiser, learning_rate=0.02, weight_decay=0.01)


def thinned(units: Weights, seed: int) -> dict[str, Tensor]:
    """Return masks that keep a quarter of what is alive."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: alive & (torch.rand(alive.shape, generator=generator) < 0.25)
        for name, alive in units.alive().items()
    }


def trained(kernels: Kernels, optimiser: str, dtype: torch.dtype, clip: float) -> dict[str, Any]:
    """Train, prune, train, prune again and train; return all that it led to."""
    torch.manual_seed(0)
    model = Everything().to(dtype)
    optimizer = build_optimiser(model.parameters(), recipe(optimiser))
    units = Weights(model)
    execution = Execution(DENSE, model, {})
    losses = []
    for stage in range(3):
        if stage:
            units.apply(model, optimizer, (), thinned(units, stage))
            execution = Execution(kernels, model, units.masks())
        for _ in range(3):
            batch = torch.randint(9, (7, 6)), torch.randint(3, (7,))
            losses.append(
                update(TASK, model, optimizer, (units,), batch, clip, execution=execution)
            )
            for name, weight in prunable_weights(model).items():
                assert not weight[~units.alive()[name]].any()
    moments = [
        value
        for parameter in model.parameters()
        for value in optimizer.state[parameter].values()
        if isinstance(value, Tensor)
    ]
    return {"losses": torch.stack(losses), "state": model.state_dict(), "moments": moments}


# Sums of at most a few hundred numbers near 1 in another order, over nine steps: in double
# precision their differences stay far below 1e-9, in single precision below 1e-4. Adam divides by
# gradients that may be all rounding, so it is compared in double precision only.
@pytest.mark.parametrize(
    ("optimiser", "dtype", "tolerance"),
    [
        ("sgd", torch.float64, 1e-9),
        ("adam", torch.float64, 1e-9),
        ("adamw", torch.float64, 1e-9),
        ("sgd", torch.float32, 1e-4),
    ],
)
@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("layers", [LAYERS, ("cell", "head"), ()])
def test_training_leads_to_the_same_weights_and_moments(
    layers: tuple[str, ...], clip: float, optimiser: str, dtype: torch.dtype, tolerance: float
) -> None:
    dense = trained(DENSE, optimiser, dtype, clip)
    for steps in (True, False):
        sparse = trained(Kernels(layers, steps=steps), optimiser, dtype, clip)
        torch.testing.assert_close(sparse, dense, rtol=0, atol=tolerance)


def pruned_linear() -> tuple[nn.Linear, Weights]:
    torch.manual_seed(0)
    model = nn.Linear(20, 3)
    units = Weights(model)
    units.apply(model, None, (), thinned(units, 1))
    return model, units


def test_removed_weights_get_no_gradient_where_a_layer_is_sparse() -> None:
    model, units = pruned_linear()
    removed = ~units.alive()["weight"]
    rows = torch.randn(5, 20)
    model(rows).sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad[removed].any()
    model.zero_grad()
    with Execution(Kernels(("",)), model, units.masks()).passes():
        model(rows).sum().backward()
    assert not model.weight.grad[removed].any()
    assert model.weight.grad.any()


def test_outside_of_its_contexts_a_network_is_dense() -> None:
    model, units = pruned_linear()
    execution = Execution(Kernels(("",)), model, units.masks())
    with execution.passes():
        assert "forward" in vars(model)
    assert "forward" not in vars(model)
    with execution.evaluation():
        assert "forward" in vars(model)
    assert "forward" not in vars(model)


def test_evaluation_may_view_outputs_as_of_dense_layers() -> None:
    model, units = pruned_linear()
    execution = Execution(Kernels(("",)), model, units.masks())
    rows = torch.randn(5, 20)
    with execution.passes(), pytest.raises(RuntimeError, match="view"):
        model(rows).view(-1)
    with execution.evaluation(), torch.no_grad():
        torch.testing.assert_close(model(rows).view(5, 3), model(rows))
    with execution.passes():
        assert not model(rows).is_contiguous()


def trainer_of(bench: Workbench) -> Trainer:
    """Return the trainer of a network of which a fifth is left."""
    trainer = bench.begin().trainer
    units = Weights(trainer.model, trainer.task.forward)
    trainer.units["weights"] = units
    generator = torch.Generator().manual_seed(0)
    kept = {n: torch.rand(m.shape, generator=generator) < 0.2 for n, m in units.alive().items()}
    units.apply(trainer.model, trainer.optimiser, trainer.stream.companions, kept)
    return trainer


SPARSE = Kernels(("0", "4"), steps=True)


def gradients(trainer: Trainer) -> Tensor:
    """Return the gradient that the last step left in the removed weights of the first layer."""
    weight = trainer.model.get_parameter("0.weight")
    assert weight.grad is not None
    return weight.grad[~trainer.masks()["0.weight"]]


def test_a_trainer_uses_kernels_until_it_is_released(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(bench)
    monkeypatch.setattr(Weights, "before_step", lambda units, model: None)
    trainer.step()
    assert gradients(trainer).any()
    trainer.use(SPARSE)
    trainer.step()
    assert not gradients(trainer).any()
    trainer.use(DENSE)
    trainer.step()
    assert gradients(trainer).any()


def test_a_watch_sees_the_gradients_of_removed_weights(bench: Workbench) -> None:
    trainer = trainer_of(bench)
    trainer.use(SPARSE)
    seen: list[Tensor] = []
    trainer.step(after_backward=lambda model: seen.append(gradients(trainer).clone()))
    assert seen[0].any()


def test_kernels_follow_the_network_back_to_a_snapshot(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(bench)
    snapshot = copy.deepcopy(trainer.snapshot())
    trainer.use(SPARSE)
    before = trainer.model
    trainer.rewind(snapshot)
    assert trainer.model is not before
    monkeypatch.setattr(Weights, "before_step", lambda units, model: None)
    trainer.step()
    assert not gradients(trainer).any()


def test_a_trainer_in_another_process_uses_the_same_kernels(bench: Workbench) -> None:
    trainer = trainer_of(bench)
    trainer.use(SPARSE)
    trainer.step()
    other = Trainer(build_task(bench.plan("crop_u"), CPU), 0, "equal")
    assert "kernels" not in other.state()
    other.restore(copy.deepcopy(trainer.state()), lambda name: Weights)
    assert other.kernels == SPARSE
    for each in (trainer, other):
        each.step()
    for one, two in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
