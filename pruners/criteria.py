"""How to prune: what a weight, or the gate of a channel, is worth.

A criterion scores variables ``v``, which are weights, or gates ``c = 1`` on channels. The larger
the score, the more worth keeping. One function serves both kinds: SNAP is SNIP on gates, and
CroP-S is CroP on gates. ``g`` is the gradient of the training loss summed over the scoring
batches, zero where pruned. ``H`` is the Hessian of the same sum over all variables together,
including the blocks between layers. Magnitudes are taken after the sums.

Every criterion returns a tensor for each variable, by name and of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.scoring import Scores, Scoring, require_twice_differentiable


def random(scoring: Scoring) -> Scores:
    """Score by independent normal numbers: the control that every criterion has to beat."""
    return {
        name: torch.randn(variable.shape, generator=scoring.generator).to(variable.device)
        for name, variable in sorted(scoring.variables.items())
    }


def magnitude(scoring: Scoring) -> Scores:
    """Score by ``|v|`` (Han et al. 2015, arXiv:1506.02626)."""
    return {name: v.detach().abs() for name, v in scoring.variables.items()}


def dense_gradient(scoring: Scoring) -> Scores:
    """Score by ``|g|`` of one scoring batch, drawn at random; removed weights have a gradient, too.

    The growth criterion of RigL (Evci et al. 2020, arXiv:1911.11134).
    """
    batch = int(torch.randint(len(scoring.losses), (1,), generator=scoring.generator))
    g = scoring.gradient(dense=True, batches=[batch])
    return {name: gradient.abs() for name, gradient in g.items()}


def snip(scoring: Scoring) -> Scores:
    """Score by ``|v . g|``, the connection sensitivity (Lee et al. 2019, arXiv:1810.02340).

    Deviations: five batches in place of one; biases are not scored; the scores are not divided by
    their sum, which would not change their ranking.
    """
    g = scoring.gradient()
    return {name: (v.detach() * g[name]).abs() for name, v in scoring.variables.items()}


def grasp(scoring: Scoring) -> Scores:
    """Score by ``v . H g``, with its sign (GraSP, Wang et al. 2020, arXiv:2002.07376).

    Removing ``v`` changes ``|g|^2`` by ``-2 v . H g`` to first order. The authors remove the
    largest ``-v . H g``, so that the weights that sustain the gradient flow stay. (Some later
    copies of their code keep the largest ``-v . H g`` instead.)

    Deviations: the logits are not divided by a temperature of 200; the layers are not
    reinitialised for scoring; the batches are those of every other criterion, not balanced by
    class.
    """
    hg = hessian_gradient(scoring)
    return {name: v.detach() * hg[name] for name, v in scoring.variables.items()}


def crop(scoring: Scoring) -> Scores:
    """Score by ``|v . H g|``, which preserves the gradient flow.

    CroP, Rachwan et al. 2022, arXiv:2206.10451.
    """
    hg = hessian_gradient(scoring)
    return {name: (v.detach() * hg[name]).abs() for name, v in scoring.variables.items()}


def synflow(scoring: Scoring) -> Scores:
    """Score by ``v . dR/dv``, the synaptic flow (Tanaka et al. 2020, arXiv:2006.05467).

    ``R`` is the summed output of the network for an input of ones, with all weights replaced by
    their magnitudes. The score needs no data and is never negative. It is computed in double
    precision, because products over many layers leave the range of single precision.
    """
    with scoring.without_signs() as flow:
        variables = scoring.variables.values()  # including frozen ones: all have a gradient here
        gradients = torch.autograd.grad(flow(), list(variables), materialize_grads=True)
        scores = [v.detach() * g for v, g in zip(variables, gradients, strict=True)]
    return dict(zip(scoring.variables, scores, strict=True))


def lamp(scoring: Scoring) -> Scores:
    """Score by ``v^2 / sum u^2``, over the weights ``u`` of the layer that are not smaller.

    The largest weight of a layer scores 1, so that every layer keeps one. LAMP, layer-adaptive
    magnitude-based pruning, Lee et al. 2021, arXiv:2010.07611.
    """
    return {
        name: lamp_shares(v.detach().flatten().double().square()).view_as(v)
        for name, v in scoring.variables.items()
    }


def lamp_shares(squares: Tensor) -> Tensor:
    """Divide each value by the sum of all that are not smaller; among equal ones, of earlier.

    Args:
        squares: the squares of a layer's weights, or the squared norms of its filters, a vector.
    """
    largest_first = squares.argsort(descending=True, stable=True)
    in_order = squares[largest_first].double()
    shares = torch.where(in_order > 0, in_order / in_order.cumsum(0), 0)
    return torch.empty_like(shares).index_copy(0, largest_first, shares)


@dataclass(frozen=True)
class HTS:
    """Scores by ``|v . g + v^2 h / 2|``, where ``h`` is the diagonal of the Hessian.

    With a minus, it would be the change of the loss to second order when ``v`` is removed; with the
    plus of the authors, it is the change when ``v`` is doubled. HTS, Gollini Navarrete et al. 2025,
    arXiv:2502.11450.

    Deviations: as in `hessian_diagonal`; and the authors divide the logits by 200, and first let
    normalisation see data.

    Args:
        draws: of `hessian_diagonal`.
        removal: whether the first term has the sign of a removal.
    """

    draws: int = 2
    removal: bool = False

    def __call__(self, scoring: Scoring) -> Scores:
        """Return the scores."""
        g, h = scoring.gradient(), hessian_diagonal(scoring, self.draws)
        sign = -1 if self.removal else 1
        return {
            name: (sign * v.detach() * g[name] + v.detach().square() * h[name] / 2).abs()
            for name, v in scoring.variables.items()
        }


def hessian_diagonal(scoring: Scoring, draws: int) -> dict[str, Tensor]:
    """Return an unbiased estimate of the diagonal of ``H``, the mean of ``z . H z`` over draws.

    The entries of ``z`` are 1 or -1 at random, and 0 where pruned (Hutchinson 1989; Bekas et al.
    2007, doi:10.1016/j.apnum.2007.01.003). It is exact where ``H`` is diagonal.

    Deviation of HTS: each scoring batch gets draws of its own, where the authors take ten for ten
    samples of each class.

    Args:
        scoring: the variables, and the losses whose sum has the Hessian ``H``.
        draws: how many vectors ``z`` each scoring batch gets.
    """
    total = {name: torch.zeros_like(variable) for name, variable in scoring.variables.items()}
    learning = scoring.learning()
    for _ in range(draws if learning else 0):
        for loss in scoring.losses:
            z = {name: _signs(v, scoring) * scoring.alive[name] for name, v in learning.items()}
            for name, product in curvature_product(loss, learning, learning, z).items():
                total[name].add_(z[name] * product / draws)
    return total


def _signs(variable: Tensor, scoring: Scoring) -> Tensor:
    """Draw 1 or -1 for each entry of a variable."""
    bits = torch.randint(2, variable.shape, generator=scoring.generator)
    return (2 * bits - 1).to(variable)


def hessian_gradient(scoring: Scoring) -> dict[str, Tensor]:
    """Return ``H g``, which is the gradient of ``|g|^2 / 2`` if no variable is pruned.

    It is ``(sum of H_b)(sum of g_b)`` over the scoring batches ``b``, not the sum of ``H_b g_b``.
    ``g`` is treated as a constant, and is zero for pruned variables.
    """
    g = scoring.gradient()
    total = {name: torch.zeros_like(variable) for name, variable in scoring.variables.items()}
    learning = scoring.learning()
    for loss in scoring.losses if learning else ():
        product_of_batch = curvature_product(loss, learning, learning, g)
        for name, product in product_of_batch.items():
            total[name].add_(product)
    return total


def curvature_product(
    loss: Callable[[], Tensor],
    variables: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    vector: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return ``d/d(others) <vector, g(variables)>`` of one loss, for a constant vector.

    This is the Hessian times the vector if ``others`` are the same variables, and an off-diagonal
    block of the Hessian times the vector if not. It is zero where the gradient is constant.

    Args:
        loss: recomputes the loss.
        variables: whose gradient ``g`` is taken; frozen ones are left out.
        others: with respect to which the product is differentiated.
        vector: a tensor for each variable, of its shape.
    """
    learning = {name: variable for name, variable in variables.items() if variable.requires_grad}
    value = loss()
    require_twice_differentiable(value)
    gradient = torch.autograd.grad(
        value, list(learning.values()), create_graph=True, materialize_grads=True
    )
    curved = {name: g for name, g in zip(learning, gradient, strict=True) if g.requires_grad}
    if not curved:
        return {name: torch.zeros_like(variable) for name, variable in others.items()}
    products = torch.autograd.grad(
        list(curved.values()),
        list(others.values()),
        [vector[name] for name in curved],
        materialize_grads=True,
    )
    return dict(zip(others, products, strict=True))
