"""A criterion looks, a method calls verbs: neither changes anything by itself."""

from __future__ import annotations

import copy
import textwrap

import pytest
import torch
from torch import nn
from workbench import Begun, Workbench

from harness.errors import RunFailed
from harness.pruning.unchanged import by_values
from harness.scoring import Scores, Scoring
from pruners import criteria
from pruners.channels.units import Channels
from pruners.weights import Weights

CHANGES = {
    "v['0.weight'].data.abs_()": "the weights (0.weight)",
    "v['0.weight'].data.copy_(v['0.weight'].data.flip(0))": "the weights (0.weight)",
    "next(iter(v.values())).data = torch.zeros(10, 6)": "the weights (0.weight)",
    "torch.rand(3)": "the random state of torch",
    "numpy.random.rand()": "the random state of NumPy",
    "random.random()": "the random state of Python",
}
METHOD = """
import copy, gc, random, numpy, torch
def looking(scoring):
    v, model = scoring.variables, scoring.units
    {change}
    return {{name: weight.detach().abs() for name, weight in v.items()}}
run.prune(Weights, looking, run.sparsity)
run.train()
"""


@pytest.mark.parametrize("change", CHANGES)
def test_a_criterion_that_changes_something_is_refused(bench: Workbench, change: str) -> None:
    with pytest.raises(RunFailed) as refusal:
        bench.with_method(METHOD.format(change=change)).run("tried")
    (line,) = str(refusal.value).splitlines()
    assert line.startswith("the criterion looking (tried.py, line ")
    assert f" changed {('the ' + CHANGES[change].removeprefix('the '))}" in line


def test_buffers_and_the_optimisers_state_are_weights_of_a_kind(bench: Workbench) -> None:
    for kind, number in (("buffers", 0), ("optimiser's state", 1)):
        begun = bench.begin()
        begun.run.train(steps=2)
        norm = begun.trainer.model[1]  # type: ignore[index]
        state = next(iter(begun.trainer.optimiser.state.values()))["momentum_buffer"]
        touched = (norm.running_mean, state)[number]

        def looking(scoring: Scoring, touched: torch.Tensor = touched) -> Scores:
            touched.add_(1)
            return criteria.magnitude(scoring)

        with pytest.raises(RunFailed, match=f"looking .* changed the {kind} "):
            begun.run.prune(Weights, looking, 0.5)


def test_what_is_put_back_was_not_changed(begun: Begun) -> None:
    def out_and_back(scoring: Scoring) -> Scores:
        weights = [v.detach().clone() for v in scoring.variables.values()]
        state = torch.get_rng_state()
        with torch.no_grad():
            for variable in scoring.variables.values():
                variable.mul_(torch.rand(variable.shape))
            for variable, weight in zip(scoring.variables.values(), weights, strict=True):
                variable.copy_(weight)
        torch.set_rng_state(state)
        return criteria.magnitude(scoring)

    begun.run.prune(Weights, out_and_back, 0.5)


def test_gradients_of_an_own_backward_are_those_of_the_scoring_batches_alone(begun: Begun) -> None:
    begun.run.train(steps=2)  # which leaves gradients behind
    seen: list[Scores] = []

    def backward(scoring: Scoring) -> Scores:
        expected = criteria.snip(scoring)
        for loss in scoring.losses:
            loss().backward()
        scores = {name: (v * v.grad).abs() for name, v in scoring.variables.items()}
        seen.extend([expected, scores])
        return scores

    begun.run.prune(Weights, backward, 0.5)
    for name, score in seen[0].items():
        torch.testing.assert_close(seen[1][name].detach(), score)
    assert all(p.grad is None for p in begun.trainer.model.parameters())


def test_what_learns_is_put_back(begun: Begun) -> None:
    def freezing(scoring: Scoring) -> Scores:
        scores = criteria.magnitude(scoring)
        for variable in scoring.variables.values():
            variable.requires_grad_(False)
        return scores

    begun.run.prune(Weights, freezing, 0.5)
    assert all(p.requires_grad for p in begun.trainer.model.parameters())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("kept['0.weight'].data.abs_(); kept['0.weight'].data.mul_(2)", "weights (0.weight)"),
        ("torch.nn.init.zeros_(kept['4.weight'])", "weights (4.weight)"),
        ("torch.rand(1)", "random state of torch"),
        ("random.random()", "random state of Python"),
    ],
)
def test_a_method_that_changes_something_between_its_verbs_is_refused(
    bench: Workbench, change: str, what: str
) -> None:
    body = f"""
    import random, torch
    kept = {{}}
    def looking(scoring):
        kept.update(scoring.variables)
        return magnitude(scoring)
    run.prune(Weights, looking, run.sparsity)
    {change}
    run.train()
    """
    with pytest.raises(RunFailed) as refusal:
        bench.with_method(textwrap.dedent(body)).run("tried")
    assert f"the pruner tried changed the {what} between two verbs" in str(refusal.value)


@pytest.mark.parametrize(
    "criterion", [criteria.synflow, criteria.snip, criteria.crop, criteria.grasp, criteria.random]
)
@pytest.mark.parametrize("units", [Weights, Channels])
def test_our_own_leave_everything_alone(
    begun: Begun, criterion: object, units: type[Weights]
) -> None:
    begun.run.train(steps=2)
    begun.run.prune(units, criterion, 0.3)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_checksum_sees_values_and_places(dtype: torch.dtype) -> None:
    model = nn.Module()
    values = torch.arange(200_000, dtype=torch.float32).fmod(250).to(dtype)
    model.weight = nn.Parameter(values)
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("flag", torch.tensor([True, False]))
    optimiser = torch.optim.SGD(model.parameters())
    states = [by_values(model, optimiser)]
    for change in (lambda w: w.flip(0), lambda w: -w, lambda w: w.roll(70_001), lambda w: w + 1):
        before = model.weight.data
        model.weight.data = change(before)
        states.append(by_values(model, optimiser))
        model.weight.data = copy.deepcopy(before)
    values_seen = [state["weights"]["weight"] for state in states]
    assert len(set(map(str, values_seen))) == 5
    assert by_values(model, optimiser)["weights"] == states[0]["weights"]


@pytest.fixture
def begun(bench: Workbench) -> Begun:
    return bench.begin()
