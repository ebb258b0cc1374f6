"""A masked weight as a sparse matrix: products with it, with its transpose, and its gradient.

Activations are feature-major here: (features, samples) in C order, so that one stored weight
meets a row of samples that is contiguous in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from scipy.sparse import coo_array
from torch import Tensor

MKL = torch.backends.mkl.is_available()

MOST_ENTRIES = 2**23
"""Layers whose matrix has more entries are executed densely: 28 bytes an entry, 235 MB in all."""


@dataclass(frozen=True)
class Places:
    """Where the surviving weights of a layer stand in the matrix that multiplies its input.

    The layout is compressed sparse rows. A convolution's weight stands in one place for each
    output position that it contributes to.
    """

    shape: tuple[int, int]
    """Rows (outputs) and columns (inputs)."""
    row_starts: Tensor
    """Where each row begins (rows + 1), int32, for which MKL needs no conversion."""
    columns: Tensor
    """The column of each entry, int32."""
    sources: Tensor
    """The position of each entry in the flattened weight, int64."""
    once: bool
    """Whether no weight has two places."""

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        rows: np.ndarray[tuple[int], np.dtype[np.int64]],
        columns: np.ndarray[tuple[int], np.dtype[np.int64]],
        sources: np.ndarray[tuple[int], np.dtype[np.int64]],
        once: bool,
    ) -> Places:
        """Sort entries, no two of which share a place, by row and column."""
        numbers = np.arange(len(rows))
        matrix = coo_array((numbers, (rows, columns)), shape=shape).tocsr()
        matrix.sort_indices()
        return cls(
            shape,
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(sources[matrix.data]),
            once,
        )

    def transposed(self) -> Places:
        """Return the places in the transposed matrix, of the same weights."""
        starts = self.row_starts.numpy()
        rows = np.repeat(np.arange(self.shape[0]), np.diff(starts))
        columns = self.columns.numpy().astype(np.int64)
        return Places.of(self.shape[::-1], columns, rows, self.sources.numpy(), self.once)


def linear_places(mask: Tensor) -> Places:
    """Return the places of a matrix (outputs, inputs)."""
    rows, columns = mask.numpy().nonzero()
    sources = rows * mask.shape[1] + columns
    return Places.of((mask.shape[0], mask.shape[1]), rows, columns, sources, once=True)


@dataclass(frozen=True)
class Window:
    """How a convolution moves over its input; each field has one value for each dimension."""

    size: tuple[int, ...]
    """The input's spatial size."""
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    """Zeros before and after the input."""
    dilation: tuple[int, ...]
    groups: int

    def positions(self, kernel: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of the output for a kernel of a size."""
        return tuple(
            (size + sum(padding) - dilation * (length - 1) - 1) // stride + 1
            for size, padding, dilation, length, stride in zip(
                self.size, self.padding, self.dilation, kernel, self.stride, strict=True
            )
        )


def convolution_places(mask: Tensor, window: Window) -> Places:
    """Return the places of a convolution's matrix: (channels x positions) of output and input.

    Args:
        mask: the surviving weights (output channels, input channels / groups, *kernel).
        window: how the kernel moves; padding that is not of zeros has to be in the input already.
    """
    outputs, inputs_of_group, *kernel = mask.shape
    positions = window.positions(kernel)
    output, channel, *offsets = mask.numpy().nonzero()
    channel = output // (outputs // window.groups) * inputs_of_group + channel
    sources = np.flatnonzero(mask.numpy())
    row, column = output[:, None], channel[:, None]
    inside = np.ones_like(row, dtype=bool)
    for dimension, offset in enumerate(offsets):
        steps = np.arange(positions[dimension]) * window.stride[dimension]
        start = offset * window.dilation[dimension] - window.padding[dimension][0]
        place = start[:, None] + steps
        size = window.size[dimension]
        row = _extended(row, np.arange(len(steps))[None], len(steps))
        column = _extended(column, place, size)
        inside = (inside[:, :, None] & ((place >= 0) & (place < size))[:, None]).reshape(row.shape)
    shape = (outputs * prod(positions), inputs_of_group * window.groups * prod(window.size))
    sources = np.broadcast_to(sources[:, None], row.shape)
    return Places.of(shape, row[inside], column[inside], sources[inside], once=False)


def _extended(
    index: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    inner: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    size: int,
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return flat indices with one more dimension: (weights, positions x inner)."""
    extended = index[:, :, None] * size + inner[:, None]
    return extended.reshape(len(index), index.shape[1] * inner.shape[1])


class SparseMatrix:
    """A CSR copy of a dense weight that is refreshed when the weight has changed.

    The weight stays the parameter: optimizers, checkpoints and masks know nothing of this copy.
    Changes are seen through the weight's version counter, which ``weight.data`` goes around.

    Args:
        places: where the surviving weights stand.
        weight: the dense weight, which gives the type of the numbers.
    """

    def __init__(self, places: Places, weight: Tensor) -> None:
        self.places = places
        self._matrix = _Values(places, weight)
        self._transposed: _Values | None = None
        self._products: _Values | None = None
        self._gradient: Tensor | None = None

    def times(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Compute the matrix times inputs, plus a bias.

        Args:
            inputs: (columns, samples), in C order.
            weight: the dense weight.
            bias: one number for each (rows / biases) rows that follow each other.
            out: where the output goes, (rows, samples) in C order.
        """
        _multiply(self._matrix.refreshed(weight), inputs, bias, out)

    def transposed_times(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        """Compute the transposed matrix times a gradient.

        Args:
            gradient: (rows, samples), in C order.
            weight: the dense weight.
            out: where the product goes, (columns, samples) in C order.
        """
        if self._transposed is None:
            self._transposed = _Values(self.places.transposed(), weight)
        _multiply(self._transposed.refreshed(weight), gradient, None, out)

    def weight_gradient(self, pairs: Iterable[tuple[Tensor, Tensor]], weight: Tensor) -> Tensor:
        """Return the gradient of the weight: zero where it was removed.

        Args:
            pairs: gradients (rows, samples) and inputs (columns, samples), whose samples are
                summed over.
            weight: the dense weight.
        """
        if self._products is None:
            self._products = _Values(self.places, weight)
        sums = self._products.zeroed()
        values = sums.values()
        if len(values):
            for gradient, inputs in pairs:
                torch.sparse.sampled_addmm(sums, gradient, inputs.t(), out=sums)
        dense = self._zeros(weight)
        if self.places.once:
            dense.scatter_(0, self.places.sources, values)
        else:
            dense.index_add_(0, self.places.sources, values)
        return dense.view(weight.shape)

    def _zeros(self, weight: Tensor) -> Tensor:
        """Return zeros, in the memory of the last gradient if nobody has that any more.

        Memory that is new to the process takes several times as long to fill.
        """
        if self._gradient is None or _users(self._gradient) > ALONE:
            self._gradient = weight.new_zeros(weight.numel(), requires_grad=False)
            return self._gradient.view(-1)
        return self._gradient.zero_().view(-1)


class _Values:
    """The values of a weight at places."""

    def __init__(self, places: Places, weight: Tensor) -> None:
        self._places = places
        # Tensors made in inference mode could not be refreshed in training.
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            # The layout is called a beta feature, once in a process.
            warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
            values = torch.zeros(len(places.columns), dtype=weight.dtype)
            self._matrix = torch.sparse_csr_tensor(
                places.row_starts, places.columns, values, places.shape, check_invariants=False
            )
        self._values = values
        self._seen = values  # a reference, so that no other weight can get its address
        self._address = self._version = -1

    def refreshed(self, weight: Tensor) -> Tensor:
        """Return the matrix with the weight's present values."""
        version = -1 if weight.is_inference() else weight._version
        if version != self._version or version < 0 or weight.data_ptr() != self._address:
            self._seen = weight.detach()
            self._address, self._version = weight.data_ptr(), version
            flat = self._seen.reshape(-1)
            torch.index_select(flat, 0, self._places.sources, out=self._values)
        return self._matrix

    def zeroed(self) -> Tensor:
        """Return the matrix with zeros for values."""
        self._values.zero_()
        return self._matrix


def _users(tensor: Tensor) -> int:
    """Return how many tensors and storages refer to a tensor's memory."""
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


ALONE = _users(torch.empty(1))
"""What `_users` returns of memory that has one tensor."""


def _multiply(matrix: Tensor, dense: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Write a CSR matrix times a dense one, plus a bias, into ``out``."""
    if not MKL or not dense.numel():
        # torch's own kernel, which is slower.
        out.copy_(torch.ops.aten._sparse_mm_reduce_impl(matrix, dense, "sum")[0])
        if bias is not None:
            out.view(len(bias), -1).add_(bias.unsqueeze(1))
    elif bias is None:
        torch.addmm(out, matrix, dense, beta=0, out=out)
    elif len(bias) == len(out):
        torch.addmm(bias.unsqueeze(1), matrix, dense, out=out)
    else:
        out.view(len(bias), -1).copy_(bias.unsqueeze(1))
        torch.addmm(out, matrix, dense, out=out)
