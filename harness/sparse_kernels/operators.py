"""The linear maps of masked weights as products of sparse matrices, with gradients."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from harness.sparse_kernels.matrix import (
    SparseMatrix,
    Window,
    convolution_places,
    linear_places,
)

SAMPLES_AT_ONCE = 512
"""Samples that are multiplied in one go. More go through in pieces that stay in the cache, and
come out in C order; up to that many, activations stay feature-major from layer to layer."""


@contextmanager
def in_one_piece() -> Iterator[None]:
    """Multiply any number of samples in one go, so that all outputs are feature-major."""
    global SAMPLES_AT_ONCE
    before, SAMPLES_AT_ONCE = SAMPLES_AT_ONCE, sys.maxsize
    try:
        yield
    finally:
        SAMPLES_AT_ONCE = before


class Operator(ABC):
    """The linear map of one masked weight: y = M(weight) x + bias.

    The dimensions of the input are those of a batch followed by those of a sample.
    """

    sample_dimensions = 1
    """How many of the input's last dimensions belong to one sample."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask.cpu()
        self._shapes: dict[torch.Size, _Shape] = {}

    @abstractmethod
    def matrix(self, inputs: Tensor, weight: Tensor) -> SparseMatrix:
        """Return the sparse matrix for inputs of a shape."""

    @abstractmethod
    def features(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the shape of one sample's output."""

    @abstractmethod
    def dense(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the same output by torch's dense kernel."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output, by the dense kernel where numbers or tracing demand that."""
        if not _plain(inputs, weight):
            return self.dense(inputs, weight, bias)
        if torch.is_grad_enabled() and (
            inputs.requires_grad
            or weight.requires_grad
            or (bias is not None and bias.requires_grad)
        ):
            return cast(Tensor, _Product.apply(self, inputs, weight, bias))
        return self.product(inputs, weight, bias)

    def product(
        self,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        turned: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the output by the sparse kernel, without a graph.

        Args:
            inputs: (*batch, *sample).
            weight: the dense weight.
            bias: one number for each output or output channel.
            turned: gets the feature-major input, for the backward pass; not that of many samples.
        """
        shape = self._shapes.get(inputs.shape) or self._shape(inputs, weight)
        matrix = shape.matrix
        rows = inputs if inputs.dim() == 2 else inputs.reshape(shape.samples, shape.columns)
        if shape.samples <= SAMPLES_AT_ONCE:
            # No view: autograd refuses that views of its functions are changed in place.
            output = inputs.new_empty_strided(shape.output, shape.strides)
            flat = output if output.dim() == 2 else output.view(shape.samples, shape.rows)
            columns = _feature_major(rows) if turned is None else _turned(rows)
            if turned is not None:
                turned.append(columns)
            matrix.times(columns, weight, bias, flat.t())
            return output
        output = inputs.new_empty(shape.output)
        flat = output.view(shape.samples, shape.rows)
        pieces = zip(flat.split(SAMPLES_AT_ONCE), rows.split(SAMPLES_AT_ONCE), strict=True)
        for piece, part in pieces:
            product = _scratch("product", shape.rows, len(part), inputs)
            matrix.times(_feature_major(part), weight, bias, product)
            piece.copy_(product.t())
        return output

    def gradients(
        self,
        gradient: Tensor,
        inputs: Tensor,
        weight: Tensor,
        needed: tuple[bool, bool, bool],
        turned: Sequence[Tensor] = (),
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of input, weight and bias from that of the output.

        Args:
            gradient: of the output.
            inputs: of the forward pass.
            weight: of the forward pass.
            needed: which of the three are wanted.
            turned: what `product` put there.
        """
        shape = self._shapes.get(inputs.shape) or self._shape(inputs, weight)
        matrix = shape.matrix
        outer = _pieces(gradient.reshape(shape.samples, shape.rows))
        d_inputs = d_weight = d_bias = None
        if needed[0]:
            d_rows = [inputs.new_empty(shape.columns, piece.shape[1]) for piece in outer]
            for piece, product in zip(outer, d_rows, strict=True):
                matrix.transposed_times(piece, weight, product)
            flat = d_rows[0].t() if len(d_rows) == 1 else torch.cat([part.t() for part in d_rows])
            d_inputs = flat.view(inputs.shape)
        if needed[1]:
            inner = turned or _pieces(inputs.reshape(shape.samples, shape.columns))
            d_weight = matrix.weight_gradient(zip(outer, inner, strict=True), weight)
        if needed[2]:
            channels = self.mask.shape[0]
            sums = [piece.view(channels, -1).sum(1) for piece in outer]
            d_bias = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        return d_inputs, d_weight, d_bias

    def _shape(self, inputs: Tensor, weight: Tensor) -> _Shape:
        """Work out what follows from the shape of inputs, once."""
        batch = tuple(inputs.shape[: inputs.dim() - self.sample_dimensions])
        features, samples = self.features(inputs), prod(batch)
        matrix = self.matrix(inputs, weight)
        strides = (*_strides(batch), *(stride * samples for stride in _strides(features)))
        shape = _Shape(matrix, samples, (*batch, *features), strides)
        self._shapes[inputs.shape] = shape
        return shape


class _Shape:
    """What follows from the shape of an input.

    Args:
        matrix: what multiplies it.
        samples: how many there are.
        output: the output's shape.
        strides: of an output whose samples are contiguous.
    """

    def __init__(
        self,
        matrix: SparseMatrix,
        samples: int,
        output: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None:
        self.matrix = matrix
        self.rows, self.columns = matrix.places.shape
        self.samples = samples
        self.output = output
        self.strides = strides


class LinearOperator(Operator):
    """A matrix (outputs, inputs)."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask)
        self._matrix: SparseMatrix | None = None

    def matrix(self, inputs: Tensor, weight: Tensor) -> SparseMatrix:
        """Return the one matrix."""
        if self._matrix is None:
            self._matrix = SparseMatrix(linear_places(self.mask), weight)
        return self._matrix

    def features(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the number of outputs."""
        return (self.mask.shape[0],)

    def dense(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output of `torch.nn.functional.linear`."""
        return F.linear(inputs, weight, bias)


class ConvolutionOperator(Operator):
    """A convolution in one to three dimensions.

    It is unrolled: a matrix from all input to all output positions and channels, in which a
    surviving weight has an entry for each output position, so that nothing is copied as by im2col
    and stride, dilation and groups cost nothing. There is one matrix for each size of images.

    Args:
        module: the layer, for its geometry.
        mask: of its weight.
    """

    def __init__(self, module: _ConvNd, mask: Tensor) -> None:
        super().__init__(mask)
        self.sample_dimensions = mask.dim() - 1
        self._weights = int(mask.count_nonzero())
        self._module = module
        padding = module._reversed_padding_repeated_twice[::-1]
        zeros = module.padding_mode == "zeros"
        self._padding = tuple(
            (before, after) if zeros else (0, 0)
            for after, before in zip(padding[::2], padding[1::2], strict=True)
        )
        self._matrices: dict[tuple[int, ...], SparseMatrix] = {}

    def window(self, size: tuple[int, ...]) -> Window:
        """Return how the kernel moves over images of a size."""
        module = self._module
        return Window(
            size,
            module.stride,
            self._padding,
            module.dilation,
            module.groups,
        )

    def positions(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the spatial size of the output."""
        return self.window(tuple(inputs.shape[2:])).positions(self.mask.shape[2:])

    def entries(self, inputs: Tensor) -> int:
        """Return at most how many entries the matrix has."""
        return self._weights * prod(self.positions(inputs))

    def matrix(self, inputs: Tensor, weight: Tensor) -> SparseMatrix:
        """Return the matrix for images of a size."""
        size = tuple(inputs.shape[2:])
        if size not in self._matrices:
            self._matrices[size] = SparseMatrix(
                convolution_places(self.mask, self.window(size)), weight
            )
        return self._matrices[size]

    def features(self, inputs: Tensor) -> tuple[int, ...]:
        """Return channels and positions."""
        return (self.mask.shape[0], *self.positions(inputs))

    def dense(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output of torch's convolution of padded images."""
        images = F.pad(inputs, [side for pair in self._padding[::-1] for side in pair])
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.mask.dim() - 3]
        module = self._module
        return convolve(images, weight, bias, module.stride, 0, module.dilation, module.groups)


class _Product(torch.autograd.Function):
    """``apply(operator, inputs, weight, bias)`` returns the output.

    The gradient of the weight is zero at removed places. With ``create_graph`` the backward pass
    is that of the dense kernel with masks, which can be differentiated any number of times.
    """

    @staticmethod
    def forward(
        ctx: Any, operator: Operator, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Return the output."""
        ctx.operator = operator
        ctx.save_for_backward(inputs, weight, bias)
        ctx.turned = []
        return operator.product(
            inputs, weight, bias, ctx.turned if ctx.needs_input_grad[2] else None
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of inputs, weight and bias."""
        inputs, weight, bias = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            found = ctx.operator.gradients(gradient, inputs, weight, needed, ctx.turned)
            return (None, *found)
        mask = ctx.operator.mask.to(weight.dtype)
        output = ctx.operator.dense(inputs, weight * mask, bias)
        wanted = [
            tensor for tensor, need in zip((inputs, weight, bias), needed, strict=True) if need
        ]
        grads = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True))
        return (None, *(next(grads) if need else None for need in needed))


def _plain(inputs: Tensor, weight: Tensor) -> bool:
    """Return whether the sparse kernel knows what is to be computed."""
    return (
        type(inputs) in (Tensor, nn.Parameter)
        and inputs.dtype is weight.dtype
        and inputs.is_cpu
        and weight.is_cpu
        and not torch._C._is_any_autocast_enabled()
        and not torch._C._are_functorch_transforms_active()
    )


_buffers = threading.local()
LARGEST_BUFFER = 2**20
"""Numbers in a buffer that is kept; taking new memory from the system takes as long as its use."""


def _scratch(purpose: str, rows: int, columns: int, like: Tensor) -> Tensor:
    """Return memory for numbers that are needed until the next call for the same purpose."""
    size = rows * columns
    if size > LARGEST_BUFFER:
        return like.new_empty(rows, columns)
    key = f"{purpose} {like.dtype}"
    buffer: Tensor | None = getattr(_buffers, key, None)
    if buffer is None or len(buffer) < size:
        with torch.inference_mode(False):
            buffer = torch.empty(size, dtype=like.dtype)
        setattr(_buffers, key, buffer)
    return buffer[:size].view(rows, columns)


def _feature_major(rows: Tensor) -> Tensor:
    """Return (samples, features) as (features, samples) in C order, in a buffer if it has to."""
    turned = rows.t()
    if turned.is_contiguous():
        return turned
    return _turn(turned.detach(), _scratch("turned", turned.shape[0], turned.shape[1], rows))


def _turn(turned: Tensor, out: Tensor) -> Tensor:
    """Copy a matrix of Fortran order into one of C order.

    torch copies two-dimensional tensors block by block. That takes a third longer than line by
    line, except where all lines begin at the same place of the cache.
    """
    if turned.shape[0] % 128 == 0:
        return out.copy_(turned)
    out.unsqueeze(0).copy_(turned.unsqueeze(0))
    return out


def _turned(rows: Tensor) -> Tensor:
    """Return (samples, features) as (features, samples) in C order, for keeps."""
    turned = rows.t()
    if turned.is_contiguous():
        return turned
    return _turn(turned, torch.empty(turned.shape, dtype=rows.dtype))


def _pieces(rows: Tensor) -> list[Tensor]:
    """Return (samples, features) as feature-major pieces of few samples."""
    if len(rows) <= SAMPLES_AT_ONCE:
        return [_turned(rows)]
    return [_turned(piece) for piece in rows.split(SAMPLES_AT_ONCE)]


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of C order."""
    return tuple(accumulate(shape[:0:-1], mul, initial=1))[::-1] if shape else ()
