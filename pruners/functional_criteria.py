"""How to prune: criteria that look at the network at other weights than its own.

They take the network as a function of its weights, `harness.functional.FunctionalNetwork`, and
score weights only. The notation is that of `pruners.criteria`. Each is an object with its settings:
``run.prune(Weights, Force(run.sparsity, rounds=10), run.sparsity)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.functional import FunctionalNetwork
from harness.scoring import Scores, Scoring
from pruners.criteria import curvature_product
from pruners.distributions import whole_network
from pruners.schedules import geometric_steps


@dataclass(frozen=True)
class Force:
    """Scores by ``|v . g(m v)|``, where what one round has masked may return in the next.

    ``v`` are the dense weights, and ``g(m v)`` is the gradient of the loss at the weights that the
    mask ``m`` leaves. A round keeps the weights with the largest scores in ``m``; its sparsity is
    that of `pruners.schedules.geometric_steps`. The scores are those of the last round, so that a
    pruning to ``sparsity`` completes it. FORCE, de Jorge et al. 2021, arXiv:2006.09081.

    Deviations: every round scores all scoring batches, where the authors take one; their code even
    takes the same one every time. In a run with a budget, the rounds before the last count weights.

    Args:
        sparsity: the fraction of all weights that is removed in the end.
        rounds: how often the weights are scored, at least once.
    """

    sparsity: float
    rounds: int = 60

    def __call__(self, scoring: Scoring) -> Scores:
        """Return the scores of the last round."""
        network, units = scoring.functional(), scoring.units
        assert units is not None
        weights = {name: v.detach() for name, v in scoring.learning().items()}
        scores = _sensitivity(network, weights, weights)
        for sparsity in geometric_steps(self.sparsity, self.rounds)[:-1]:
            mask = units.select(_complete(scoring, scores), sparsity, whole_network)
            masked = {name: v * mask[name] for name, v in weights.items()}
            scores = _sensitivity(network, weights, masked)
        return _complete(scoring, scores)


@dataclass(frozen=True)
class ProsPr:
    """Scores by ``|v . dL(v_M)/dv|``, the effect of a weight on the loss after some training.

    ``v_M`` are the weights after ``steps`` steps of gradient descent from ``v``, each on one
    scoring batch; all other parameters learn along. ``L`` is the loss summed over the scoring
    batches. Without steps, this is SNIP. ProsPr, Alizadeh et al. 2022, arXiv:2202.08132.

    Deviation: the loss after training is that of all scoring batches, where the authors take one.

    Args:
        steps: how many, ``M``.
        learning_rate: of gradient descent, which has no momentum.
    """

    steps: int = 3
    learning_rate: float = 0.1

    def __call__(self, scoring: Scoring) -> Scores:
        """Return the scores."""
        network, weights = scoring.functional(), scoring.learning()
        path = [network.parameters(learning=True)]
        rates = {  # removed weights do not learn
            name: self.learning_rate * scoring.alive.get(name, torch.tensor(True)).to(value)
            for name, value in path[0].items()
        }
        for number in range(self.steps):
            gradient = _gradient(network, path[-1], [number])
            path.append({n: value - rates[n] * gradient[n] for n, value in path[-1].items()})
        slopes = _gradient(network, path[-1])
        # Back through the steps: the derivative of one is the identity minus rates times Hessian.
        for number in reversed(range(self.steps)):
            values = {name: value.requires_grad_() for name, value in path[number].items()}
            arriving = {name: rates[name] * slope for name, slope in slopes.items()}
            loss = partial(network.loss, values, number)
            lost = curvature_product(loss, values, values, arriving)
            slopes = {name: slope - lost[name] for name, slope in slopes.items()}
        scores = {name: (v.detach() * slopes[name]).abs() for name, v in weights.items()}
        return _complete(scoring, scores)


@dataclass(frozen=True)
class NTKSAP:
    """Scores by ``|dR/dm|``, the effect of a weight's mask on the tangent kernel's trace.

    ``R(m) = sum (f(x; m w) - f(x; m (w + epsilon z)))^2`` estimates ``epsilon^2`` times the trace,
    for a newly drawn network ``w`` with outputs ``f``, and inputs ``x`` and perturbations ``z`` of
    standard normal numbers. Neither data nor the network's own weights matter. NTK-SAP, Wang et al.
    2023, arXiv:2304.02840.

    Deviations: inputs that are not real numbers, such as words, are those of a scoring batch; and
    ``f`` are the outputs of the task, which are log-probabilities in language modelling. The
    authors' code draws the new weights into the network that it prunes; here its own stay.

    Args:
        epsilon: the scale of the perturbation.
    """

    epsilon: float = 0.01

    def __call__(self, scoring: Scoring) -> Scores:
        """Return the scores for one new network and one batch of inputs."""
        network, generator = scoring.functional(), scoring.generator
        drawn = network.initial(generator)
        inputs = network.noise(generator)
        masks = {name: alive.to(drawn[name].dtype) for name, alive in scoring.alive.items()}
        for mask in masks.values():
            mask.requires_grad_()
        moved = {
            name: drawn[name] + self.epsilon * torch.randn(m.shape, generator=generator).to(m)
            for name, m in masks.items()
        }
        before = network.outputs(drawn | {n: m * drawn[n] for n, m in masks.items()}, inputs)
        after = network.outputs(drawn | {n: m * moved[n] for n, m in masks.items()}, inputs)
        gradients = _derivative((before - after).square().sum(), masks)
        return {name: gradient.abs() for name, gradient in gradients.items()}


def _sensitivity(
    network: FunctionalNetwork, weights: Mapping[str, Tensor], at: Mapping[str, Tensor]
) -> Scores:
    """Return ``|v . g|`` for weights ``v`` and the gradient at other weights."""
    gradient = _gradient(network, at)
    return {name: (v * gradient[name]).abs() for name, v in weights.items()}


def _gradient(
    network: FunctionalNetwork, at: Mapping[str, Tensor], batches: Iterable[int] | None = None
) -> dict[str, Tensor]:
    """Return the gradient of the summed loss over scoring batches at some values, by name.

    Args:
        network: gives the loss.
        at: the values.
        batches: the numbers of the batches; None for all.
    """
    values = {name: value.detach().requires_grad_() for name, value in at.items()}
    total = {name: torch.zeros_like(value) for name, value in at.items()}
    numbers = range(network.batches) if batches is None else batches
    for number in numbers if values else ():
        for name, gradient in _derivative(network.loss(values, number), values).items():
            total[name].add_(gradient)
    return total


def _derivative(output: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the derivative of a scalar by each tensor, zero where it plays no part."""
    gradients = torch.autograd.grad(output, list(inputs.values()), materialize_grads=True)
    return dict(zip(inputs, gradients, strict=True))


def _complete(scoring: Scoring, scores: Mapping[str, Tensor]) -> Scores:
    """Add frozen weights, which the engine keeps, with the highest score of all."""
    return {
        name: scores[name] if name in scores else torch.full_like(v, torch.finfo(v.dtype).max)
        for name, v in scoring.variables.items()
    }
