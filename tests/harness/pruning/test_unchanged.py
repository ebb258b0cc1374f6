"""A criterion scores and a method calls verbs; neither may change anything itself."""

from __future__ import annotations

import textwrap

import pytest
import torch
from torch import nn

from harness.errors import RunFailed
from harness.pruning.unchanged import by_values
from harness.scoring import Criterion, Scores, Scoring
from pruners import criteria
from pruners.channels.units import Channels
from pruners.weights import Weights
from tests.helpers.workbench import Begun, Workbench


@pytest.fixture
def begun(bench: Workbench) -> Begun:
    return bench.begin()


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
    assert f" changed {CHANGES[change]}" in line


@pytest.mark.parametrize("kind", ["buffers", "optimizer's state"])
def test_changed_buffers_and_optimiser_states_are_noticed(begun: Begun, kind: str) -> None:
    begun.run.train(steps=2)
    if kind == "buffers":
        touched = begun.trainer.model.get_buffer("1.running_mean")
    else:
        touched = next(iter(begun.trainer.optimiser.state.values()))["momentum_buffer"]

    def changing(scoring: Scoring) -> Scores:
        touched.add_(1)
        return criteria.magnitude(scoring)

    with pytest.raises(RunFailed, match=f"changing .* changed the {kind} "):
        begun.run.prune(Weights, changing, 0.5)


def test_a_change_that_is_undone_is_allowed(begun: Begun) -> None:
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


def test_a_criterion_that_calls_backward_sees_the_gradients_of_scoring_alone(
    begun: Begun,
) -> None:
    begun.run.train(steps=2)  # leaves gradients behind
    seen: list[Scores] = []

    def backward(scoring: Scoring) -> Scores:
        expected = criteria.snip(scoring)
        for loss in scoring.losses:
            loss().backward()
        scores = {n: (v * v.grad).abs() for n, v in scoring.variables.items() if v.grad is not None}
        seen.extend([expected, scores])
        return scores

    begun.run.prune(Weights, backward, 0.5)
    for name, score in seen[0].items():
        torch.testing.assert_close(seen[1][name].detach(), score)
    assert all(p.grad is None for p in begun.trainer.model.parameters())


def test_requires_grad_is_restored_after_scoring(begun: Begun) -> None:
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
def test_our_own_criteria_change_nothing(
    begun: Begun, criterion: Criterion, units: type[Weights | Channels]
) -> None:
    begun.run.train(steps=2)
    begun.run.prune(units, criterion, 0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_checksum_depends_on_values_and_on_their_order(dtype: torch.dtype) -> None:
    values = torch.arange(200_000, dtype=torch.float32).fmod(250).to(dtype)
    weight = nn.Parameter(values)
    model = nn.Module()
    model.register_parameter("weight", weight)
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("flag", torch.tensor([True, False]))
    optimiser = torch.optim.SGD(model.parameters())
    states = [by_values(model, optimiser)]
    for changed in (values.flip(0), -values, values.roll(70_001), values + 1):
        weight.data = changed
        states.append(by_values(model, optimiser))
    weight.data = values.clone()
    values_seen = [state["weights"]["weight"] for state in states]
    assert len(set(map(str, values_seen))) == 5
    assert by_values(model, optimiser)["weights"] == states[0]["weights"]
