"""Training with masked weights in the forward pass only."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.run import Pattern
from harness.task import Split, Task
from harness.training.masked_forward import MaskedForward
from harness.units import Kept
from pruners import criteria
from pruners.training import SparseForward
from pruners.weights import Weights
from tests.helpers.workbench import Begun, Workbench

TWO_OF_FOUR = SparseForward(Pattern(2, 4), decay=0.5)


@dataclass(frozen=True)
class First:
    """Masks all but the first weight of the only layer."""

    decay: float = 0.0

    def masks(self, model: nn.Module) -> Kept:
        return {"weight": torch.tensor([[True, False]])}


def layer() -> nn.Linear:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, 5.0]])
    return model


def weights_of(begun: Begun) -> dict[str, Tensor]:
    weights = prunable_weights(begun.trainer.model)
    return {name: weight.detach().clone() for name, weight in weights.items()}


def nonzero(model: nn.Module) -> Kept:
    return {name: weight != 0 for name, weight in prunable_weights(model).items()}


def follows(kept: Kept, pattern: Pattern) -> bool:
    """Return whether at most n of every m inputs of linear layers are kept."""
    blocks = [block for mask in kept.values() for block in mask.split(pattern.m, dim=1)]
    return all(int(block.sum(1).max()) <= pattern.n for block in blocks)


def test_a_step_on_paper() -> None:
    # L = (k w) x = 3 * 1 + 0 * 10, so the gradients are 1 and 10; the second weight also decays.
    model = layer()
    with MaskedForward(model, First(decay=0.2)) as forward:
        loss = model(torch.tensor([1.0, 10.0])).sum()
        loss.backward()
        assert model.weight.tolist() == [[3, 0]]
        forward.pass_through()
        assert model.weight.tolist() == [[3, 5]]
    assert loss.item() == 3
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[1, 10 + 0.2 * 5]]


def test_weights_return_if_there_are_no_gradients_or_the_pass_fails() -> None:
    model = layer()
    with MaskedForward(model, First()):
        assert model(torch.ones(2)).item() == 3
    assert model.weight.tolist() == [[3, 5]]
    with pytest.raises(RuntimeError, match="out of memory"), MaskedForward(model, First()):
        raise RuntimeError("out of memory")
    assert model.weight.tolist() == [[3, 5]]


def test_nothing_is_masked_without_masks() -> None:
    model = layer()
    with MaskedForward(model, None) as forward:
        forward.pass_through()
        assert model.weight.tolist() == [[3, 5]]


# In a run


@pytest.mark.parametrize("earlier", [0, 6])
def test_every_step_follows_the_formula_of_the_paper(bench: Workbench, earlier: int) -> None:
    # w <- w - eta (dL/d(k w) + lambda (1 - k) w); without momentum, which is forgotten.
    begun = bench.begin("sr_ste", clip="0", weight_decay="0", learning_rate="0.1")
    trainer = begun.trainer
    for _ in range(earlier):
        trainer.step(masked=TWO_OF_FOUR)
    trainer.optimiser.state.clear()
    before, twin = weights_of(begun), copy.deepcopy(trainer)
    masks = {name: Pattern(2, 4).best(weight.abs()) for name, weight in before.items()}
    for name, weight in prunable_weights(twin.model).items():
        weight.data.mul_(masks[name])
    twin.step()  # of the masked network, for its gradients
    trainer.step(masked=TWO_OF_FOUR)
    for name, weight in prunable_weights(twin.model).items():
        assert weight.grad is not None
        gradient = weight.grad + 0.5 * ~masks[name] * before[name]
        torch.testing.assert_close(weights_of(begun)[name], before[name] - 0.1 * gradient)


def test_all_weights_learn_and_none_is_removed(bench: Workbench) -> None:
    begun = bench.begin("sr_ste")
    before = weights_of(begun)
    begun.run.train(epochs=1, masked=TWO_OF_FOUR)
    assert all((after != before[name]).all() for name, after in weights_of(begun).items())
    assert all(layer["kept"] == layer["weights"] for layer in begun.engine.layers())


def test_training_and_validation_see_the_masked_network(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[bool]] = {"loss": [], "evaluate": []}

    def watched(name: str) -> Any:
        method = getattr(bench.points, name)

        def watching(task: Task, model: nn.Module, what: Any) -> Any:
            seen[name].append(follows(nonzero(model), Pattern(2, 4)))
            return method(task, model, what)

        return watching

    for name in seen:
        monkeypatch.setattr(bench.points, name, watched(name))
    bench.begin("sr_ste").trainer.step(masked=TWO_OF_FOUR)
    assert seen == {"loss": [True], "evaluate": []}
    bench.begin("sr_ste").run.train(epochs=2, masked=TWO_OF_FOUR)
    assert seen["evaluate"] == [True] * 2


def test_what_is_made_permanent_is_the_network_that_was_evaluated_last(bench: Workbench) -> None:
    begun = bench.begin("sr_ste")
    begun.run.train(masked=TWO_OF_FOUR)
    (*_, last) = begun.journal.entries[-1].event["epochs"]
    begun.run.prune(Weights, criteria.magnitude, Pattern(2, 4))
    split: Split = "validation"
    begun.trainer.model.eval()
    with torch.no_grad():
        now = begun.trainer.task.evaluate(begun.trainer.model, split)
    assert now == last["validation"]


def test_without_decay_masks_change_what_is_learnt(bench: Workbench) -> None:
    networks = []
    for masked in (None, SparseForward(Pattern(2, 4)), TWO_OF_FOUR):
        begun = bench.begin("sr_ste")
        begun.run.train(epochs=1, masked=masked)
        networks.append(digest(begun.trainer.model.state_dict()))
    assert len(set(networks)) == 3


def test_the_companion_follows_the_masked_network(bench: Workbench) -> None:
    begun = bench.begin("sr_ste", learning_rate="0")
    (companion,) = begun.trainer.stream.companions
    before = {name: weight.clone() for name, weight in prunable_weights(companion).items()}
    begun.run.train(steps=1, masked=TWO_OF_FOUR)
    for name, weight in prunable_weights(begun.trainer.model).items():
        mask = Pattern(2, 4).best(weight.detach().abs())
        moved = before[name].lerp(weight.detach() * mask, 0.1)
        torch.testing.assert_close(prunable_weights(companion)[name].detach(), moved)


@pytest.mark.parametrize("pieces", [[20], [1, 2, 3, 4, 10]])
def test_training_in_pieces_equals_training_at_once(bench: Workbench, pieces: list[int]) -> None:
    whole, cut = bench.begin("sr_ste"), bench.begin("sr_ste")
    whole.run.train(masked=TWO_OF_FOUR)
    for steps in pieces:
        cut.run.train(steps=steps, masked=TWO_OF_FOUR)
    networks = [digest(begun.trainer.model.state_dict()) for begun in (whole, cut)]
    assert networks[0] == networks[1]


def test_a_program_that_masks_otherwise_than_before_is_another_program(bench: Workbench) -> None:
    texts: list[str] = []
    for decay in (0.1, 0.2):
        begun = bench.begin("sr_ste")
        begun.run.train(steps=1, masked=SparseForward(Pattern(2, 4), decay))
        texts.append(begun.journal.entries[0].arguments)
    assert texts[0] != texts[1]
    assert texts[0].endswith("SparseForward{pattern: Pattern{n: 2, m: 4}, decay: 0.1})")
