"""Criteria that look at activations: numbers on paper, NumPy, and properties of their papers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.errors import RunFailed, Skip
from harness.layer_inputs import LayerInputs
from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.run import Pattern
from harness.scoring import Scores, Scoring
from harness.task import Task
from harness.units import Kept
from pruners.activations import SparseGPT, ria, wanda
from pruners.distributions import PerOutput, per_layer
from pruners.weights import Weights
from tests.helpers.workbench import Begun, Workbench

Array = NDArray[np.float64]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def without_signs() -> AbstractContextManager[Callable[[], Tensor]]:
    raise AssertionError("only SynFlow needs the network without signs")


def scoring_of(model: nn.Module, *batches: Tensor) -> Scoring:
    """Return what criteria see of a model and some batches."""
    weights = prunable_weights(model)
    passes = [partial(model, batch) for batch in batches]
    alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    inputs = LayerInputs(model, passes)
    return Scoring(weights, alive, passes, without_signs, torch.Generator(), inputs=inputs)


def linear(weight: list[list[float]] | Tensor) -> nn.Linear:
    values = torch.as_tensor(weight)
    outputs, inputs = values.shape
    layer = nn.Linear(inputs, outputs, bias=False)
    layer.weight.data = values.clone()
    return layer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def as_array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().double().numpy()
    return array


# Wanda and RIA


def test_wanda_on_paper() -> None:
    # The inputs have the norms 5 and 1; the example of the paper's first figure in small.
    layer, x = linear([[1.0, -4.0], [-0.5, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    assert wanda(scoring_of(layer, x))["weight"].tolist() == [[5, 4], [2.5, 2]]


def test_ria_on_paper() -> None:
    # Rows sum up to 4 and 4, columns to 2 and 6; the inputs have the norms 4 and 1.
    layer, x = linear([[1.0, -3.0], [1.0, 3.0]]), torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    scores = ria(scoring_of(layer, x))["weight"]
    torch.testing.assert_close(scores, torch.tensor([[1.5, 1.25], [1.5, 1.25]]))


def test_without_power_inputs_do_not_count() -> None:
    layer = linear(drawn(3, 4))
    first, second = (ria(scoring_of(layer, drawn(5, 4, seed=s)), power=0.0) for s in (1, 2))
    torch.testing.assert_close(first["weight"], second["weight"])


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_wanda_and_ria_agree_with_numpy(power: float) -> None:
    layer, batches = linear(drawn(4, 6)), [drawn(5, 6, seed=1), drawn(3, 6, seed=2)]
    w, x = np.abs(as_array(layer.weight)), as_array(torch.cat(batches))
    norms = np.linalg.norm(x, axis=0)
    scoring = scoring_of(layer, *batches)
    np.testing.assert_allclose(wanda(scoring)["weight"].detach(), w * norms, rtol=1e-5)
    relative = w / w.sum(1, keepdims=True) + w / w.sum(0, keepdims=True)
    np.testing.assert_allclose(ria(scoring, power)["weight"], relative * norms**power, rtol=1e-5)


def test_a_convolution_is_scored_like_the_linear_layer_over_its_patches() -> None:
    convolution, x = nn.Conv2d(3, 4, 2, bias=False), drawn(2, 3, 5, 5)
    patches = nn.functional.unfold(x, 2).transpose(1, 2).flatten(0, 1)
    layer = linear(convolution.weight.detach().flatten(1))
    for criterion in (wanda, ria, SparseGPT()):
        of_convolution = criterion(scoring_of(convolution, x))["weight"].flatten(1)
        of_linear = criterion(scoring_of(layer, patches))["weight"]
        torch.testing.assert_close(of_convolution, of_linear, rtol=1e-4, atol=1e-6)


def test_rare_words_are_worth_less() -> None:
    embedding, words = nn.Embedding(3, 2), torch.tensor([0, 0, 0, 0, 1])
    nn.init.ones_(embedding.weight)
    assert wanda(scoring_of(embedding, words))["weight"].tolist() == [[2, 2], [1, 1], [0, 0]]


# SparseGPT


def test_sparsegpt_on_paper() -> None:
    # H = [[2, 1], [1, 1]] has the inverse [[1, -1], [-1, 2]] = U^T U with U = [[1, -1], [0, 1]].
    layer, x = linear([[3.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    exact, scoring = SparseGPT(damping=0), scoring_of(layer, x)
    assert exact(scoring)["weight"].flatten().tolist() == pytest.approx([9, 4])
    # Without the first, the outputs (3, 5) are best approximated by the second alone: (0, 5).
    values = exact.remaining(scoring, {"weight": torch.tensor([[False, True]])})
    assert values["weight"].flatten().tolist() == pytest.approx([0, 5])
    # Nothing later can make up for the last.
    values = exact.remaining(scoring, {"weight": torch.tensor([[True, False]])})
    assert values["weight"].flatten().tolist() == pytest.approx([3, 0])


def test_wanda_ranks_like_sparsegpt_if_no_two_inputs_occur_together() -> None:
    # X X^T is diagonal, and w^2 / u^2 = (|w| |x|)^2.
    layer, x = linear(drawn(4, 6)), drawn(6, 1).abs() * torch.eye(6)
    scores = wanda(scoring_of(layer, x))["weight"].detach()
    errors = SparseGPT(damping=0)(scoring_of(layer, x))["weight"]
    torch.testing.assert_close(errors, scores.double().square(), rtol=1e-5, atol=0.0)
    assert torch.equal(errors.flatten().argsort(), scores.flatten().argsort())


def of_the_original(weight: Array, x: Array, kept: NDArray[np.bool_], damping: float) -> Array:
    """Return the weights that the original gives for a mask, one input after the other."""
    w, h = weight.copy(), 2 * x.T @ x / len(x)
    h += damping * np.mean(np.diag(h)) * np.eye(len(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    for i in range(w.shape[1]):
        q = np.where(kept[:, i], w[:, i], 0)
        error = (w[:, i] - q) / upper[i, i]
        w[:, i:] -= np.outer(error, upper[i, i:])
        w[:, i] = q
    return w


@pytest.mark.parametrize("block", [1, 3, 128])
def test_sparsegpt_agrees_with_numpy_whatever_the_block(block: int) -> None:
    layer, x = linear(drawn(4, 7)), drawn(20, 7, seed=1) @ drawn(7, 7, seed=2)
    criterion, scoring = SparseGPT(damping=0.02, block=block), scoring_of(layer, x)
    kept = drawn(4, 7, seed=3) > 0
    expected = of_the_original(as_array(layer.weight), as_array(x), kept.numpy(), 0.02)
    values = criterion.remaining(scoring, {"weight": kept})["weight"]
    np.testing.assert_allclose(values.detach(), expected, rtol=1e-3, atol=1e-5)


def test_weights_that_are_removed_first_are_compensated_by_least_squares() -> None:
    # All later weights are free to change, so the best approximation is reached.
    layer, x = linear(drawn(3, 6)), drawn(20, 6, seed=1)
    kept = torch.tensor([[False] * 2 + [True] * 4]).expand(3, 6)
    values = SparseGPT(damping=1e-9).remaining(scoring_of(layer, x), {"weight": kept})["weight"]
    rows, outputs = as_array(x), as_array(layer(x))
    best, *_ = np.linalg.lstsq(rows[:, 2:], outputs, rcond=None)
    np.testing.assert_allclose(values.detach()[:, 2:], best.T, rtol=1e-3, atol=1e-4)


def test_the_score_of_a_weight_is_the_error_of_its_removal() -> None:
    # For the first input alone, all others may change: the error is w^2 / [H^-1] in the paper.
    layer, x = linear(drawn(1, 5)), drawn(20, 5, seed=1)
    criterion, scoring = SparseGPT(damping=1e-9), scoring_of(layer, x)
    kept = torch.tensor([[False, True, True, True, True]])
    changed = criterion.remaining(scoring, {"weight": kept})["weight"]
    error = (layer(x) - x @ changed.T).square().sum()
    score = criterion(scoring)["weight"][0, 0]
    torch.testing.assert_close(score.float(), error, rtol=1e-3, atol=1e-6)


def test_an_input_that_is_always_zero_needs_no_weight() -> None:
    layer, x = linear(drawn(2, 4)), drawn(9, 4, seed=1) * torch.tensor([1.0, 0, 1, 1])
    errors = SparseGPT()(scoring_of(layer, x))["weight"]
    assert (errors[:, 1] == 0).all()
    assert (errors[:, [0, 2, 3]] > 0).all()


def test_words_do_not_make_up_for_each_other() -> None:
    embedding, words = nn.Embedding(3, 2), torch.tensor([0, 0, 0, 0, 1])
    nn.init.ones_(embedding.weight)
    scoring = scoring_of(embedding, words)
    assert SparseGPT(damping=0)(scoring)["weight"].tolist() == [[4, 4], [1, 1], [0, 0]]
    assert SparseGPT().remaining(scoring, {"weight": torch.ones(3, 2) > 0}) == {}


@pytest.mark.parametrize(
    ("layer", "shape", "features"),
    [
        (nn.Conv2d(4, 6, 3, groups=2), (8, 4, 6, 6), 1),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (8, 4, 5, 5), 1),
        (nn.LSTM(4, 3), (7, 8, 4), 2),
    ],
    ids=str,
)
def test_compensation_brings_the_outputs_of_any_layer_closer(
    layer: nn.Module, shape: tuple[int, ...], features: int
) -> None:
    def outputs() -> Tensor:
        out = layer(x)
        result: Tensor = out[0] if isinstance(layer, nn.LSTM) else out
        return result.detach()

    for parameter in layer.parameters():
        parameter.data = drawn(*parameter.shape) / 2
    x = drawn(*shape).cumsum(features)  # neighbours have something in common
    before, scoring, criterion = outputs(), scoring_of(layer, x), SparseGPT()
    kept = {name: each > each.median() for name, each in criterion(scoring).items()}
    whole = {name: weight.detach().clone() for name, weight in scoring.variables.items()}
    errors = []
    for values in (whole, criterion.remaining(scoring, kept)):
        for name, weight in scoring.variables.items():
            weight.data = values[name] * kept[name]
        errors.append(float((outputs() - before).norm()))
    assert errors[1] < 0.9 * errors[0]


# In a run


def weights_of(begun: Begun) -> dict[str, Tensor]:
    weights = prunable_weights(begun.trainer.model)
    return {name: weight.detach().clone() for name, weight in weights.items()}


def test_every_output_of_wanda_keeps_the_same_number(bench: Workbench) -> None:
    begun = bench.begin()
    begun.run.prune(Weights, wanda, 0.7, scope=PerOutput())
    masks = begun.trainer.units["weights"].masks()
    # Of 6 inputs 1.8 stay in the mean, of 10 inputs 3.
    assert sorted(masks["0.weight"].sum(1).tolist()) == [1] * 2 + [2] * 8
    assert masks["4.weight"].sum(1).tolist() == [3, 3]


def test_sparsegpt_changes_the_weights_that_remain_and_the_event_says_so(bench: Workbench) -> None:
    begun = bench.begin("sparsegpt", schedule="official")
    begun.run.train(epochs=1)
    before = weights_of(begun)
    begun.run.prune(Weights, SparseGPT(), 0.5, scope=per_layer)
    masks, after = begun.trainer.units["weights"].masks(), weights_of(begun)
    assert all((after[name][~mask] == 0).all() for name, mask in masks.items())
    assert all((after[name] != before[name])[mask].any() for name, mask in masks.items())
    event = begun.journal.entries[-1].event
    assert event["kept_sha256"] == digest(masks)
    assert len(event["values_sha256"]) == 16


def test_the_companion_is_masked_and_otherwise_left_alone(bench: Workbench) -> None:
    begun = bench.begin("sparsegpt")
    begun.run.train(epochs=1)
    (companion,) = begun.trainer.stream.companions
    before = {name: weight.clone() for name, weight in prunable_weights(companion).items()}
    begun.run.prune(Weights, SparseGPT(), 0.5)
    masks = begun.trainer.units["weights"].masks()
    for name, weight in prunable_weights(companion).items():
        assert torch.equal(weight, before[name] * masks[name])


@pytest.mark.parametrize("masks", ["shuffled", "inverted"])
def test_other_masks_are_compensated_too(bench: Workbench, masks: str) -> None:
    begun = bench.begin("sparsegpt", masks=masks)
    before = weights_of(begun)
    begun.run.prune(Weights, SparseGPT(), Pattern(2, 4))
    kept, after = begun.trainer.units["weights"].masks(), weights_of(begun)
    assert all((after[name] != before[name])[mask].any() for name, mask in kept.items())
    assert all((after[name][~mask] == 0).all() for name, mask in kept.items())


class Careless(SparseGPT):
    """Changes the network itself, or returns values that are none."""

    how = "in place"

    def remaining(self, scoring: Scoring, kept: Kept) -> dict[str, Tensor]:
        weight = scoring.variables["0.weight"]
        match self.how:
            case "in place":
                weight.data.mul_(2)
                return {}
            case "shape":
                return {"0.weight": torch.ones(3)}
        return {"0.weight": torch.full_like(weight, torch.nan)}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        (
            "in place",
            r"remaining \(test_activations\.py, line \d+\) changed the weights \(0\.weight",
        ),
        ("shape", r"values of shape \(3,\) for '0\.weight', which is no weight of this shape"),
        ("nan", r"gave '0\.weight' a value that is not a finite number"),
    ],
)
def test_values_are_returned_and_not_written(
    bench: Workbench, how: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Careless, "how", how)
    with pytest.raises(RunFailed, match=complaint):
        bench.begin("sparsegpt").run.prune(Weights, Careless(), 0.5)


@pytest.mark.parametrize("pruner", ["wanda", "ria", "sparsegpt", "nm_magnitude"])
@pytest.mark.parametrize(("dense", "position"), [("0.5", 10), ("1", 20)])
def test_the_network_is_dense_for_a_share_of_the_budget(
    bench: Workbench, pruner: str, dense: str, position: int
) -> None:
    record = bench.run(pruner, dense=dense)
    (pruning,) = [event for event in record["events"] if event["verb"] == "prune"]
    assert pruning["position"] == position
    assert record["cost"]["steps"] == 20


def magnitude(scoring: Scoring) -> Scores:
    return {name: w.detach().abs() for name, w in scoring.variables.items()}


def test_a_criterion_without_values_has_no_hash_of_them(bench: Workbench) -> None:
    begun = bench.begin()
    begun.run.prune(Weights, magnitude, 0.5)
    assert "values_sha256" not in begun.journal.entries[-1].event


@pytest.mark.parametrize("pruner", ["wanda", "ria", "sparsegpt"])
def test_a_network_whose_inputs_cannot_be_observed_is_skipped(
    bench: Workbench, pruner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(task: Task, model: nn.Sequential, batch: tuple[Tensor, Tensor]) -> Tensor:
        hidden, last = model[:-1](batch[0]), model.get_parameter("4.weight")
        return nn.functional.cross_entropy(hidden @ last.T, batch[1])

    monkeypatch.setattr(bench.points, "loss", scores)
    why = r"4\.weight cannot be observed: the network multiplies by it with torch\.\w+$"
    with pytest.raises(Skip, match=rf"^{pruner} on points: the input of {why}"):
        bench.run(pruner)
    assert not [*bench.folder.glob("points-*")]
