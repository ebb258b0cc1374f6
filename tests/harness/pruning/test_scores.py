"""Scores that cannot be ranked and networks that cannot be differentiated: one line says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import RunFailed, Skip, place
from harness.prunable import prunable_weights
from harness.scoring import Scores, Scoring
from harness.units import UnreachableSparsity
from pruners import criteria
from pruners.channels.units import Channels
from pruners.functional_criteria import NTKSAP, Force, ProsPr
from pruners.weights import Weights
from tests.helpers.workbench import Begun, Workbench


@pytest.fixture
def begun(bench: Workbench) -> Begun:
    return bench.begin()


def magnitudes(scoring: Scoring) -> dict[str, Any]:
    return {name: v.detach().abs() for name, v in scoring.variables.items()}


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "none": (lambda scores: None, "returned None, not a dictionary with a tensor of scores"),
    "list": (lambda scores: list(scores), "returned a list, not a dictionary"),
    "tensor": (lambda scores: scores["0.weight"], "returned a Tensor, not a dictionary"),
    "name": (
        lambda s: {**s, "0.weigth": 1},
        "'0.weigth', which is not a variable; did you mean '0.",
    ),
    "missing": (lambda s: {"0.weight": s["0.weight"]}, "no score for '4.weight'; expected (2, 10)"),
    "shape": (
        lambda s: {**s, "4.weight": torch.ones(3)},
        "shape (3,) for '4.weight'; expected (2, 10)",
    ),
    "kind": (lambda s: {**s, "4.weight": 1.0}, "returned a float for '4.weight', not a tensor"),
    "complex": (lambda s: {k: v * 1j for k, v in s.items()}, "complex numbers for '0.weight', not"),
    "nan": (lambda s: {k: v * float("nan") for k, v in s.items()}, "is not a finite number"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_result_that_is_no_set_of_scores_is_refused(begun: Begun, kind: str) -> None:
    spoil, complaint = BAD[kind]

    def mine(scoring: Scoring) -> Scores:
        spoiled: Scores = spoil(magnitudes(scoring))
        return spoiled

    with pytest.raises(RunFailed) as refusal:
        begun.run.prune(Weights, mine, 0.5)
    (line,) = str(refusal.value).splitlines()
    assert complaint in line
    number = mine.__code__.co_firstlineno
    assert line.endswith(f": mine (test_scores.py, line {number})")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_scores_of_every_type_can_be_ranked(begun: Begun, dtype: torch.dtype) -> None:
    def mine(scoring: Scoring) -> Scores:
        return {name: (100 * v).to(dtype) for name, v in scoring.variables.items()}

    assert begun.run.prune(Weights, mine, 0.5).sparsity == 0.5


def test_scores_that_require_grad_can_be_ranked(bench: Workbench) -> None:
    def with_gradient(scoring: Scoring) -> Scores:
        return {name: v.abs() for name, v in scoring.variables.items()}

    masks = []
    for criterion in (with_gradient, criteria.magnitude):
        begun = bench.begin()
        begun.run.prune(Weights, criterion, 0.5)
        masks.append(begun.trainer.units["weights"].masks())
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_bfloat16_weights_are_ranked_exactly() -> None:
    model = nn.Linear(8, 4).bfloat16()
    scores = {"weight": model.weight.detach().abs()}
    kept = Weights(model).select(scores, 0.5, lambda shapes, target: None)["weight"]
    assert int(kept.sum()) == 16
    assert scores["weight"][kept].min() >= scores["weight"][~kept].max()


class Odd(nn.Module):
    """A layer and an operation that torch cannot differentiate as usual."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer, self.head = nn.Linear(6, 10), nn.Linear(10, 2)
        self.lstm, self.attention = nn.LSTM(10, 10), nn.MultiheadAttention(10, 2)
        self.encoder = nn.TransformerEncoderLayer(10, 2, 12, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        match self.kind:
            case "sdpa":
                h = F.scaled_dot_product_attention(h[None], h[None], h[None])[0]
            case "attention":
                h = self.attention(h[:, None], h[:, None], h[:, None])[0][:, 0]
            case "encoder":
                h = self.encoder(h[None])[0]
            case "lstm":
                h = self.lstm(h[:, None])[0][:, 0]
            case "checkpoint":
                h = torch.utils.checkpoint.checkpoint(torch.tanh, h, use_reentrant=False)
            case "reentrant":
                h = torch.utils.checkpoint.checkpoint(torch.tanh, h, use_reentrant=True)
            case "once":
                h = Once.apply(h)
            case "margin":
                h = h * F.multi_margin_loss(h, torch.zeros(len(h), dtype=torch.long))
        result: Tensor = self.head(torch.relu(h))
        return result


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def with_network(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module]
) -> Begun:
    monkeypatch.setattr(bench.points, "model", lambda task: make())
    return bench.begin()


@pytest.mark.parametrize("kind", ["sdpa", "attention", "encoder", "lstm", "checkpoint"])
@pytest.mark.parametrize(
    "criterion", [criteria.crop, criteria.snip, criteria.HTS(), Force(0.5), ProsPr(), NTKSAP()]
)
def test_networks_with_fused_kernels_can_be_scored(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, kind: str, criterion: Any
) -> None:
    begun = with_network(bench, monkeypatch, lambda: Odd(kind))
    assert begun.run.prune(Weights, criterion, 0.5).sparsity == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "criterion", "complaint"),
    [
        ("reentrant", criteria.snip, "needs gradients, which torch cannot give through checkpoint"),
        ("once", criteria.crop, "the network's function Once is marked once_differentiable"),
        ("margin", criteria.grasp, "torch has none for multi_margin_loss_backward"),
        ("reentrant", Force(0.5), "needs gradients, which torch cannot give through checkpoint"),
        ("once", ProsPr(), "the network's function Once is marked once_differentiable"),
        ("margin", criteria.HTS(), "torch has none for multi_margin_loss_backward"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*requires_grad=True. Gradients will be None")
def test_others_are_not_for_this_method(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, kind: str, criterion: Any, complaint: str
) -> None:
    begun = with_network(bench, monkeypatch, lambda: Odd(kind))
    with pytest.raises(Skip) as refusal:
        begun.run.prune(Weights, criterion, 0.5)
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"its criterion {place(criterion)} ")
    assert complaint in line
    other = with_network(bench, monkeypatch, lambda: Odd(kind))
    other.run.prune(Weights, criteria.magnitude, 0.5)
    assert other.journal.entries[-1].event["sparsity"] == pytest.approx(0.5, abs=1e-3)


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10), nn.Linear(10, 2))
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "criterion", [criteria.magnitude, criteria.random, criteria.synflow, criteria.lamp, NTKSAP()]
)
def test_criteria_without_gradients_rank_frozen_weights_too(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, criterion: Any
) -> None:
    begun = with_network(bench, monkeypatch, frozen)
    monkeypatch.setattr(
        bench.points, "flow", lambda task, model: model(torch.ones(1, 6).double()).sum()
    )
    begun.run.prune(Weights, criterion, 0.6)
    kept = begun.trainer.units["weights"].masks()
    assert not kept["0.weight"].all()
    event = begun.journal.entries[-1].event
    assert "frozen" not in event
    assert event["gradient_flow"]["before"] > 0
    assert [p.requires_grad for p in begun.trainer.model.parameters()][:3] == [False, False, True]


@pytest.mark.parametrize(
    "criterion",
    [criteria.snip, criteria.grasp, criteria.crop, criteria.HTS(), Force(0.6, 3), ProsPr()],
)
def test_criteria_with_gradients_keep_all_frozen_weights(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, criterion: Any
) -> None:
    begun = with_network(bench, monkeypatch, frozen)
    begun.run.prune(Weights, criterion, 0.6)
    layers = {layer["name"]: layer["kept"] for layer in begun.engine.layers()}
    assert layers["0.weight"] == 60
    assert sum(layers.values()) == 72
    assert begun.journal.entries[-1].event["frozen"] == ["0.weight"]


def test_frozen_weights_make_some_sparsities_unreachable(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = with_network(bench, monkeypatch, frozen)
    with pytest.raises(UnreachableSparsity, match=r"nearest that can is 0\.6666.*0.weight is froz"):
        begun.run.prune(Weights, criteria.snip, 0.9)


def test_channels_of_frozen_layers_have_gates_nevertheless(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = with_network(bench, monkeypatch, frozen)
    assert begun.run.prune(Channels, criteria.snip, 0.3).sparsity >= 0.3
    assert "frozen" not in begun.journal.entries[-1].event


def test_a_network_that_cannot_learn_has_no_gradient_flow(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_frozen() -> nn.Module:
        model = frozen().requires_grad_(False)
        model.get_parameter("3.bias").requires_grad_(True)
        return model

    begun = with_network(bench, monkeypatch, all_frozen)
    begun.run.prune(Weights, criteria.magnitude, 0.5)
    assert begun.journal.entries[-1].event["gradient_flow"] == {"before": 0, "after": 0}
    assert len(prunable_weights(begun.trainer.model)) == 3


@pytest.mark.parametrize(
    ("called", "complaint"),
    [
        (lambda run: run.train(steps=-5), "run.train(steps=-5) is not 0, 1, 2 ... steps"),
        (lambda run: run.train(epochs=-1), "run.train(epochs=-1) is not 0, 1, 2 ... epochs"),
        (lambda run: run.train(epochs=1.5), "run.train(epochs=1.5) is not 0, 1, 2 ... epochs"),
        (lambda run: run.train(at_most=-1), "run.train(at_most=-1) is not 0, 1, 2 ... at most"),
        (lambda run: run.prune(Weights, criteria.magnitude, 2), "2 is outside [0, 1): it is the"),
        (lambda run: run.prune(Weights, criteria.magnitude, 1), "1 is outside [0, 1): it is the"),
        (lambda run: run.prune(Weights, criteria.magnitude, -0.1), "-0.1 is outside [0, 1)"),
        (lambda run: run.prune(Weights, criteria.magnitude, float("nan")), "nan is outside [0, 1)"),
        (lambda run: run.prune(Weights, criteria.magnitude, []), "there is no target in the list"),
        (lambda run: run.prune(Weights, criteria.magnitude, [0.5, 0.2]), "0.2 comes after 0.5"),
        (lambda run: run.prune(Weights, criteria.magnitude, "0.5"), "a target is a number, or a"),
        (lambda run: run.prune(Weights, criteria.magnitude, [0.5, None]), "None is outside [0, 1)"),
    ],
)
def test_an_impossible_request_is_refused_before_anything_is_done(
    begun: Begun, called: Callable[[Any], Any], complaint: str
) -> None:
    with pytest.raises(RunFailed) as refusal:
        called(begun.run)
    assert complaint in str(refusal.value)
    assert begun.run.spent == 0
    assert begun.journal.entries == []


def test_a_sparsity_close_to_one_is_printed_with_all_its_digits(begun: Begun) -> None:
    with pytest.raises(UnreachableSparsity) as refusal:
        begun.run.prune(Weights, criteria.magnitude, 0.99999999999)
    assert str(refusal.value) == (
        "a sparsity of 0.99999999999 cannot be reached; the nearest that can is 0.9875"
    )
