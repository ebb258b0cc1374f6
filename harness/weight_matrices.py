"""Every prunable weight as a matrix of outputs by inputs, whatever its layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from harness.prunable import LAYERS, prunable_weights


@dataclass(frozen=True)
class WeightMatrix:
    """Which dimensions of a weight count its outputs, and which its inputs.

    Attributes:
        groups: the groups of a convolution, whose inputs are apart; 1 for other layers.
        inputs_first: whether the inputs come before the outputs, as in transposed convolutions, and
            in embeddings, whose inputs are the words.
        is_lookup: whether the inputs are one-hot, and read by looking them up: an embedding.
    """

    groups: int = 1
    inputs_first: bool = False
    is_lookup: bool = False

    @staticmethod
    def of(layer: nn.Module) -> WeightMatrix:
        """Return how the weights of a layer are laid out."""
        if isinstance(layer, nn.Embedding):
            return WeightMatrix(inputs_first=True, is_lookup=True)
        if isinstance(layer, _ConvNd):
            return WeightMatrix(layer.groups, layer.transposed)
        return WeightMatrix()

    def unfolded(self, weight: Tensor) -> Tensor:
        """Return a weight as (groups, outputs, inputs, positions of the kernel).

        Outputs and inputs are those of a group. ``flatten(2)`` gives the matrix of each group.
        """
        first, second, *_ = weight.shape
        if self.inputs_first:
            parts = weight.reshape(self.groups, first // self.groups, second, -1)
            return parts.transpose(1, 2)
        return weight.reshape(self.groups, first // self.groups, second, -1)

    def folded(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor of the weight's shape; the inverse of `unfolded`.

        Args:
            matrix: of shape (groups, outputs, inputs, positions), with any of them flattened.
            shape: the shape of the weight.
        """
        first, second, *kernel = shape
        if not self.inputs_first:
            return matrix.reshape(shape)
        parts = matrix.reshape(self.groups, second, first // self.groups, *kernel)
        return parts.transpose(1, 2).reshape(shape)


def weight_matrices(model: nn.Module) -> dict[str, WeightMatrix]:
    """Return the layout of each prunable weight, by name.

    A weight that several layers share has the layout of the first that multiplies by it; an
    embedding does not.
    """
    names = {id(weight): name for name, weight in prunable_weights(model).items()}
    found: dict[str, WeightMatrix] = {}
    for layer in model.modules():
        if not isinstance(layer, LAYERS):
            continue
        for parameter in layer.parameters():
            name = names.get(id(parameter))
            if name is not None and (name not in found or found[name].is_lookup):
                found[name] = WeightMatrix.of(layer)
    return {name: found[name] for name in names.values()}
