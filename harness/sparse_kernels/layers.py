"""Forward passes of masked layers on sparse matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from harness.sparse_kernels.matrix import MOST_ENTRIES
from harness.sparse_kernels.operators import ConvolutionOperator, LinearOperator

Forward = Callable[..., Any]


def linear_forward(module: nn.Linear, masks: Mapping[str, Tensor]) -> Forward:
    """Return the forward pass of a linear layer."""
    operator = LinearOperator(masks["weight"])
    # nn.Module finds an attribute ten times as slowly.
    parameters = cast(dict[str, nn.Parameter], module._parameters)

    def forward(input: Tensor) -> Tensor:  # noqa: A002
        return operator(input, parameters["weight"], parameters["bias"])

    return forward


def convolution_forward(module: _ConvNd, masks: Mapping[str, Tensor]) -> Forward:
    """Return the forward pass of a convolution; too large a matrix is never made."""
    operator = ConvolutionOperator(module, masks["weight"])

    def forward(input: Tensor) -> Tensor:  # noqa: A002
        images = input
        if module.padding_mode != "zeros":
            images = F.pad(images, module._reversed_padding_repeated_twice, module.padding_mode)
        if images.dim() == operator.sample_dimensions:
            return operator(images.unsqueeze(0), module.weight, module.bias).squeeze(0)
        if operator.entries(images) > MOST_ENTRIES:
            return operator.dense(images, module.weight, module.bias)
        return operator(images, module.weight, module.bias)

    return forward


def lstm_cell_forward(module: nn.LSTMCell, masks: Mapping[str, Tensor]) -> Forward:
    """Return the forward pass of an LSTM cell."""
    step = _LSTMStep(module, masks, "")

    def forward(input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:  # noqa: A002
        if input.dim() != 2:
            return type(module).forward(module, input, hx)
        if hx is None:
            zeros = input.new_zeros(len(input), module.hidden_size)
            hx = (zeros, zeros)
        return step(step.project(input), hx)

    return forward


def lstm_forward(module: nn.LSTM, masks: Mapping[str, Tensor]) -> Forward:
    """Return the forward pass of an LSTM over a sequence, in all its layers and directions."""
    directions = ("", "_reverse") if module.bidirectional else ("",)
    steps = [
        [_LSTMStep(module, masks, f"_l{layer}{direction}") for direction in directions]
        for layer in range(module.num_layers)
    ]

    def forward(input: Any, hx: tuple[Tensor, Tensor] | None = None) -> Any:  # noqa: A002
        if not isinstance(input, Tensor) or input.dim() != 3:
            return type(module).forward(module, input, hx)
        sequence = input.transpose(0, 1) if module.batch_first else input
        if hx is None:
            number, batch = module.num_layers * len(directions), sequence.shape[1]
            width = module.proj_size or module.hidden_size
            hx = (
                sequence.new_zeros(number, batch, width),
                sequence.new_zeros(number, batch, module.hidden_size),
            )
        states = list(zip(*hx, strict=True))
        last: list[tuple[Tensor, Tensor]] = []
        for layer, of_directions in enumerate(steps):
            outputs = []
            for number, step in enumerate(of_directions):
                output, state = step.over(sequence, states[len(last)], backwards=number == 1)
                outputs.append(output)
                last.append(state)
            sequence = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if layer < len(steps) - 1:
                sequence = F.dropout(sequence, module.dropout, module.training)
        output = sequence.transpose(0, 1) if module.batch_first else sequence
        return output, tuple(torch.stack(part) for part in zip(*last, strict=True))

    return forward


class _LSTMStep:
    """One layer and direction of an LSTM.

    Args:
        module: that has the weights.
        masks: of its weights; those that have none are whole.
        suffix: of the names of these weights.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor], suffix: str) -> None:
        self._module = module
        self._suffix = suffix
        self._operators = {
            name: LinearOperator(masks[name + suffix])
            for name in ("weight_ih", "weight_hh", "weight_hr")
            if name + suffix in masks
        }

    def project(self, inputs: Tensor) -> Tensor:
        """Return what the gates get from the input."""
        return self._times("weight_ih", inputs, "bias_ih")

    def __call__(self, projected: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the next hidden and cell state.

        Args:
            projected: what the gates get from the input (batch, 4 hidden).
            state: hidden and cell state.
        """
        hidden, cell = state
        gates = projected + self._times("weight_hh", hidden, "bias_hh")
        i, f, g, o = gates.chunk(4, dim=1)
        if torch.is_grad_enabled():
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            cell = (f.sigmoid_() * cell).addcmul_(i.sigmoid_(), g.tanh_())
            hidden = cell.tanh().mul_(o.sigmoid_())
        if "weight_hr" in self._operators:
            hidden = self._times("weight_hr", hidden, "")
        return hidden, cell

    def over(
        self, sequence: Tensor, state: tuple[Tensor, Tensor], backwards: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the hidden states (length, batch, hidden) and the last state."""
        projected = self.project(sequence).unbind(0)
        hidden = []
        for step in reversed(projected) if backwards else projected:
            state = self(step, state)
            hidden.append(state[0])
        return torch.stack(hidden[::-1] if backwards else hidden), state

    def _times(self, weight: str, inputs: Tensor, bias: str) -> Tensor:
        return self._operators[weight](
            inputs,
            getattr(self._module, weight + self._suffix),
            getattr(self._module, bias + self._suffix, None) if bias else None,
        )


def normalization_forward(module: nn.modules.batchnorm._BatchNorm) -> Forward:
    """Return a batch normalization that is as fast in the layout of these kernels as in C order.

    Samples become positions, which makes no difference to statistics over both.
    """
    dense = type(module).forward

    def forward(input: Tensor) -> Tensor:  # noqa: A002
        if input.is_contiguous() or input.stride(0) != 1:
            return dense(module, input)
        samples, channels, *size = input.shape
        unused = [1] * (len(size) - 2)
        positions = [-1] if len(size) < 2 else [-1, samples]
        turned = input.movedim(0, -1).reshape(1, channels, *unused, *positions)
        return dense(module, turned).view(channels, *size, samples).movedim(-1, 0)

    return forward


def dropout_forward(module: nn.Dropout) -> Forward:
    """Return a dropout that drops the same features in any layout.

    torch draws random numbers in the order of the memory.
    """
    dense = type(module).forward

    def forward(input: Tensor) -> Tensor:  # noqa: A002
        return dense(module, input.contiguous() if module.training else input)

    return forward


FORWARDS: Mapping[Callable[..., Any], Callable[..., Forward]] = {
    nn.Linear.forward: linear_forward,
    nn.Conv1d.forward: convolution_forward,
    nn.Conv2d.forward: convolution_forward,
    nn.Conv3d.forward: convolution_forward,
    nn.LSTMCell.forward: lstm_cell_forward,
    nn.LSTM.forward: lstm_forward,
}
"""For each forward pass of torch's, what builds its sparse counterpart from module and masks."""
