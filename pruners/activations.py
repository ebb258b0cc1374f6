"""How to prune by what layers read: criteria that look at activations.

``x`` is the input of a weight ``w`` in the scoring batches, and ``|x|`` the norm of all its values
(`harness.layer_inputs.LayerInputs`). The weight of a layer is taken as a matrix ``W`` of outputs by
inputs; a convolution has an input for each position of its kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.scoring import Scores, Scoring
from harness.units import Kept


def wanda(scoring: Scoring) -> Scores:
    """Score by ``|w| |x|``, the norm of what a weight adds to its output.

    Wanda, Sun et al. 2024, arXiv:2306.11695.
    """
    squares = scoring.inputs.squares()
    return {name: w.detach().abs() * squares[name].sqrt() for name, w in scoring.variables.items()}


def ria(scoring: Scoring, power: float = 0.5) -> Scores:
    """Score by ``(|w| / sum |W_row| + |w| / sum |W_column|) |x|^power``.

    A weight counts relative to the others of its output and of its input. RIA, Zhang et al. 2024,
    openreview.net/forum?id=Tr0lPx9woF.

    Args:
        scoring: the network.
        power: of the norms of inputs, ``a`` in the paper.
    """
    squares, scores = scoring.inputs.squares(), {}
    for name, variable in scoring.variables.items():
        matrix, shape = scoring.inputs.matrices[name], tuple(variable.shape)
        size = matrix.unfolded(variable.detach().abs()).flatten(2)
        tiny = torch.finfo(size.dtype).tiny
        columns, rows = (size.sum(side, keepdim=True).clamp_min(tiny) for side in (1, 2))
        relative = size / rows + size / columns
        scores[name] = matrix.folded(relative, shape) * squares[name].pow(power / 2)
    return scores


@dataclass(frozen=True)
class SparseGPT:
    """Scores by the error that remains after the other weights have made up for the removal.

    ``w^2 / u^2`` is the squared error of a layer's outputs if a weight is removed and those at
    later inputs of the same output are changed to compensate. ``u`` is the weight's entry on the
    diagonal of the upper Cholesky factor ``U`` of the inverse of ``H = X X^T``, dampened. Then
    `remaining` gives these changes, input by input: ``w_later -= (w / u) U_later``. SparseGPT,
    Frantar and Alistarh 2023, arXiv:2301.00774.

    Words of an embedding are never read together, so its weights cannot make up for each other. An
    embedding whose weight is that of a layer, too, counts as that layer (see
    `harness.layer_inputs.LayerInputs.products`).

    Args:
        damping: what is added to the diagonal of ``H``, as a share of its mean.
        block: inputs whose changes are added up before later ones get them, for speed.
    """

    damping: float = 0.01
    block: int = 128

    def __call__(self, scoring: Scoring) -> Scores:
        """Return the errors."""
        scores: Scores = {}
        matrices, variables = scoring.inputs.matrices, scoring.variables
        words = [name for name in variables if matrices[name].is_lookup]
        for name, counts in scoring.inputs.squares(words).items():
            damping = self.damping * counts.mean()
            scores[name] = variables[name].detach().square() * (counts + damping)
        for name, factor, unread in self._factors(scoring):
            rows = matrices[name].unfolded(variables[name].detach().double()).flatten(2)
            u = factor.diagonal(dim1=1, dim2=2)
            errors = (rows / u.unsqueeze(1)).square().masked_fill(unread.unsqueeze(1), 0)
            scores[name] = matrices[name].folded(errors, tuple(variables[name].shape))
        return scores

    def remaining(self, scoring: Scoring, kept: Kept) -> dict[str, Tensor]:
        """Return the weights that make up for the others."""
        values: dict[str, Tensor] = {}
        for name, factor, _ in self._factors(scoring):
            matrix, variable = scoring.inputs.matrices[name], scoring.variables[name]
            rows = matrix.unfolded(variable.detach().double()).flatten(2).clone()
            removed = ~matrix.unfolded(kept[name]).flatten(2)
            inputs = rows.shape[2]
            for start in range(0, inputs, self.block):
                end = min(start + self.block, inputs)
                errors = torch.zeros_like(rows[:, :, start:end])
                for place in range(start, end):
                    error = rows[:, :, place] * removed[:, :, place] / factor[:, None, place, place]
                    rows[:, :, place:end] -= error[:, :, None] * factor[:, None, place, place:end]
                    errors[:, :, place - start] = error
                rows[:, :, end:] -= errors @ factor[:, start:end, end:]
            values[name] = matrix.folded(rows, tuple(variable.shape)).to(variable.dtype)
        return values

    def _factors(self, scoring: Scoring) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield each weight's ``U`` (groups, inputs, inputs), and which inputs are always 0."""
        matrices = scoring.inputs.matrices
        multiplied = [name for name in scoring.variables if not matrices[name].is_lookup]
        for name, products in scoring.inputs.products(multiplied):
            dampened = products.double()
            diagonal = dampened.diagonal(dim1=1, dim2=2)
            unread = diagonal == 0
            diagonal.masked_fill_(unread, 1)
            diagonal += self.damping * diagonal.mean(1, keepdim=True)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(dampened))
            yield name, torch.linalg.cholesky(inverse, upper=True), unread
