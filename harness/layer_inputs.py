"""What the prunable weights of a network are multiplied by: second moments of layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from harness.errors import Skip
from harness.prunable import prunable_weights
from harness.weight_matrices import WeightMatrix, weight_matrices

_PATCHES_AT_ONCE = 2**24
"""Entries of patches that exist at a time: 64 MiB in single precision."""
_PRODUCTS_AT_ONCE = 2**26
"""Entries of all products that exist at a time, unless one weight has more: 256 MiB."""


class LayerInputs:
    """The inputs of a network's layers over some batches.

    A weight's input is what it is multiplied by: the features of a linear layer, the patches of a
    convolution, one-hot words for an embedding, the inputs and the hidden states of a recurrent
    layer at every time step. Calls of torch's functions are watched, so nothing of the network
    changes, and a weight is recognised wherever it is used. All uses are summed.

    Args:
        model: the network, in the mode in which it is observed.
        passes: each passes one batch through the network.
    """

    def __init__(self, model: nn.Module, passes: Sequence[Callable[[], object]]) -> None:
        self._model = model
        self._passes = passes

    @cached_property
    def matrices(self) -> dict[str, WeightMatrix]:
        """How each weight is laid out, by name."""
        return weight_matrices(self._model)

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        return {name: w.detach() for name, w in prunable_weights(self._model).items()}

    def observed_in(self, passes: Sequence[Callable[[], object]]) -> LayerInputs:
        """Return the inputs of the same network in other passes."""
        return LayerInputs(self._model, passes)

    def squares(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return for each weight a tensor of its shape: the sum of the squares of its inputs.

        The sum runs over all samples, places, time steps and uses. It is the diagonal of
        ``X X^T``, for each entry of the weight that of the input that it is multiplied by.

        Args:
            names: of the weights; None for all.

        Raises:
            Skip: the input of a weight cannot be observed.
        """
        wanted = self._weights if names is None else names
        observer = self._observed(_Observer(self._of(wanted), lambda inputs: inputs.squares()))
        return {
            name: torch.stack(
                [_spread(each, matrix, self._weights[name]) for matrix, each in uses.items()]
            ).sum(0)
            for name, uses in observer.uses.items()
        }

    def products(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield ``X X^T`` of each weight: the products of its inputs, summed like `squares`.

        The batches are passed through the network several times, if the products of all weights
        would take too much memory.

        Args:
            names: of the weights.

        Yields:
            The name, and a tensor (groups, inputs, inputs). Its inputs are the columns of the
            weight's matrix, ``matrices[name].unfolded(weight).flatten(2)``. A layer that shares its
            weight with an embedding also has what the embedding reads: single features of a word,
            as often as the word occurs. Here all words occur equally often, as all outputs of a
            layer have the same products.

        Raises:
            Skip: an input cannot be observed, or a weight is shared by layers of two kinds.
        """
        for part in self._in_memory(names):
            observer = _Observer(self._of(part), lambda inputs: inputs.products(), self.matrices)
            for name, uses in self._observed(observer).uses.items():
                yield name, uses[self.matrices[name]]

    def _in_memory(self, names: Iterable[str]) -> Iterator[list[str]]:
        """Split weights so that the products of each part fit into memory together."""
        part: list[str] = []
        taken = 0
        for name in names:
            groups, _, inputs = self.matrices[name].unfolded(self._weights[name]).flatten(2).shape
            size = groups * inputs**2
            if part and taken + size > _PRODUCTS_AT_ONCE:
                yield part
                part, taken = [], 0
            part.append(name)
            taken += size
        if part:
            yield part

    def _of(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: self._weights[name] for name in names}

    def _observed(self, observer: _Observer) -> _Observer:
        """Pass all batches through the network, and return what was observed."""
        for run in self._passes if observer.uses else ():
            with observer:
                run()
        for name, uses in observer.uses.items():
            why = observer.unobservable.get(name, "no layer reads it in the scoring batches")
            if name in observer.unobservable or not uses:
                raise Skip(f"the input of {name} cannot be observed: {why}")
        return observer


class _Inputs(Protocol):
    """The inputs of one call of a layer."""

    def squares(self) -> Tensor:
        """Return the summed squares (groups, inputs)."""

    def products(self) -> Tensor:
        """Return the summed products (groups, inputs, inputs)."""


_Moments = Callable[[_Inputs], Tensor]
_Uses = dict[WeightMatrix, Tensor]
"""The moments of a weight's inputs, by the layout of the layers that used it."""


@dataclass(frozen=True)
class _Features:
    """Rows of features (..., inputs)."""

    features: Tensor

    def squares(self) -> Tensor:
        return self._rows().square().sum(0, keepdim=True)

    def products(self) -> Tensor:
        rows = self._rows()
        return (rows.T @ rows).unsqueeze(0)

    def _rows(self) -> Tensor:
        return self.features.reshape(-1, self.features.shape[-1])


@dataclass(frozen=True)
class _Words:
    """One-hot inputs, as the number of times that each word occurs (words,)."""

    counts: Tensor

    def squares(self) -> Tensor:
        return self.counts.unsqueeze(0)

    def products(self) -> Tensor:
        return self.counts.diag().unsqueeze(0)


@dataclass(frozen=True)
class _Single:
    """The features of words, each read alone, in an embedding with the weight of a layer."""

    counts: Tensor
    features: int

    def squares(self) -> Tensor:
        return self.counts.mean().expand(1, self.features)

    def products(self) -> Tensor:
        return self.squares().diag_embed()


@dataclass(frozen=True)
class _Patches:
    """The places at which the kernel of a convolution reads (samples, channels, *places).

    A transposed convolution is one over an input with zeros in between, with the kernel reversed.
    """

    features: Tensor
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Sequence[tuple[int, int]]
    """Before and after each dimension of the places."""
    dilation: tuple[int, ...]
    groups: int
    transposed: bool

    def squares(self) -> Tensor:
        # All samples at once: the places of their sum are the sums of their places.
        patches = self._patches(self.features.square().sum(0, keepdim=True))
        places = tuple(range(2, 2 + len(self.kernel)))
        return patches.sum(places).reshape(self.groups, -1)

    def products(self) -> Tensor:
        dimensions = len(self.kernel)
        of_one = max(1, self._patches(self.features[:1]).numel())
        channels = self.features.shape[1] // self.groups * self.kernel_size
        total = self.features.new_zeros(self.groups, channels, channels)
        for samples in self.features.split(max(1, _PATCHES_AT_ONCE // of_one)):
            # From (samples, channels, *places, *kernel) to (samples, *places, channels, *kernel).
            places_first = self._patches(samples).movedim(1, 1 + dimensions)
            rows = places_first.reshape(-1, self.groups, channels).transpose(0, 1)
            total += rows.transpose(1, 2) @ rows
        return total

    @property
    def kernel_size(self) -> int:
        """Entries of the kernel."""
        return torch.Size(self.kernel).numel()

    def _patches(self, features: Tensor) -> Tensor:
        """Return a view (samples, channels, *places, *kernel)."""
        patches, stride = features, self.stride
        if self.transposed:
            patches, stride = _spaced(features, stride), (1,) * len(stride)
        # The padding of the last dimension comes first.
        patches = F.pad(patches, [each for pair in reversed(self.padding) for each in pair])
        steps = zip(self.kernel, stride, self.dilation, strict=True)
        for dimension, (size, step, apart) in enumerate(steps, start=2):
            patches = patches.unfold(dimension, (size - 1) * apart + 1, step)[..., ::apart]
        return patches.flip(tuple(range(-len(self.kernel), 0))) if self.transposed else patches


def _spaced(features: Tensor, stride: Sequence[int]) -> Tensor:
    """Put ``stride - 1`` zeros between neighbouring places."""
    places = [(size - 1) * step + 1 for size, step in zip(features.shape[2:], stride, strict=True)]
    spaced = features.new_zeros(*features.shape[:2], *places)
    every = spaced
    for dimension, step in enumerate(stride, start=2):
        every = every.unfold(dimension, 1, step).squeeze(-1)
    every.copy_(features)
    return spaced


def _patches(given: Mapping[str, Any], transposed: bool) -> _Patches:
    """Return the places of a convolution, from the arguments of torch's function."""
    kernel = tuple(given["weight"].shape[2:])

    def each(name: str, default: int) -> tuple[int, ...]:
        value = given.get(name, default)
        sizes = (value,) if isinstance(value, int) else tuple(value)
        return sizes * len(kernel) if len(sizes) == 1 else sizes

    stride, dilation, asked = each("stride", 1), each("dilation", 1), given.get("padding", 0)
    spans = [(size - 1) * apart for size, apart in zip(kernel, dilation, strict=True)]
    if asked == "same":
        padding = [(span // 2, span - span // 2) for span in spans]
    else:
        sizes = (0,) * len(kernel) if asked == "valid" else each("padding", 0)
        padding = [(size, size) for size in sizes]
    if transposed:
        further = each("output_padding", 0)
        padding = [
            (span - before, span - after + more)
            for span, (before, after), more in zip(spans, padding, further, strict=True)
        ]
    features = given["input"]
    if features.ndim == len(kernel) + 1:  # a single sample
        features = features.unsqueeze(0)
    groups = given.get("groups", 1)
    return _Patches(features, kernel, stride, padding, dilation, groups, transposed)


def _spread(moments: Tensor, matrix: WeightMatrix, weight: Tensor) -> Tensor:
    """Return moments (groups, inputs) as a tensor of the weight's shape."""
    groups, outputs, *_ = matrix.unfolded(weight).shape
    return matrix.folded(moments.unsqueeze(1).expand(groups, outputs, -1), tuple(weight.shape))


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_CONVOLUTION[:5], "output_padding", "groups", "dilation")
_CELL = ("input", "hx", "w_ih", "w_hh")
_ATTENTION = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight"),
    *("in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight"),
    *("out_proj_bias", "training", "key_padding_mask", "need_weights", "attn_mask"),
)

_PARAMETERS: Mapping[str, Sequence[str]] = {
    "linear": ("input", "weight"),
    "embedding": ("input", "weight"),
    **{f"conv{n}d": _CONVOLUTION for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _TRANSPOSED for n in (1, 2, 3)},
    **{f"{kind}_cell": _CELL for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    "multi_head_attention_forward": _ATTENTION,
}
"""The parameters of torch's functions that multiply by weights, in order, as far as they matter."""

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Torch's functions for whole sequences."""

_PRODUCTS = (
    *("matmul", "mm", "bmm", "mv", "dot", "inner", "einsum", "tensordot", "bilinear"),
    *("addmm", "addmv", "addbmm", "baddbmm", "__matmul__", "__rmatmul__"),
)
"""Products whose arguments do not say which of them is an input."""


class _Observer(TorchFunctionMode):
    """Watches the calls of torch's functions that multiply by some weights.

    Args:
        weights: the weights, by name.
        moments: what is computed of their inputs.
        matrices: the layouts that all uses must have; None if each may have one of its own.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        moments: _Moments,
        matrices: Mapping[str, WeightMatrix] | None = None,
    ) -> None:
        super().__init__()
        self._weights = weights
        self._moments = moments
        self._matrices = matrices
        self._names = {weight.data_ptr(): name for name, weight in weights.items()}
        self.uses: dict[str, _Uses] = {name: {} for name in weights}
        self.unobservable: dict[str, str] = {}
        """Why the inputs of weights cannot be observed, by name."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, after a look at its arguments."""
        named, name = kwargs or {}, getattr(func, "__name__", "")
        with torch.no_grad():
            if name in _PARAMETERS:
                self._look(
                    func, name, {**dict(zip(_PARAMETERS[name], args, strict=False)), **named}
                )
            elif name in _RECURRENT:
                self._look_at_sequences(func, *args, **named)
            elif name in _PRODUCTS:
                for argument in tree_leaves([args, named]):
                    self._give_up(argument, f"the network multiplies by it with torch.{name}")
        return func(*args, **named)

    def _look(self, func: Callable[..., Any], name: str, given: Mapping[str, Any]) -> None:
        """Add the inputs of a layer, from the arguments of its function by name."""
        if name == "multi_head_attention_forward":
            self._look_at_attention(func, given)
        elif name == "linear":
            self._add(given["weight"], WeightMatrix(), _Features(given["input"]))
        elif name == "embedding":
            words, weight = given["input"], given["weight"]
            if words.is_floating_point():
                words, weight = weight, words  # torch.embedding has them in this order
            counts = words.flatten().bincount(minlength=len(weight)).to(weight.dtype)
            self._add(weight, WeightMatrix(inputs_first=True, is_lookup=True), _Words(counts))
        elif name.endswith("_cell"):
            state = given["hx"] if isinstance(given["hx"], Tensor) else given["hx"][0]
            self._add(given["w_ih"], WeightMatrix(), _Features(given["input"]))
            self._add(given["w_hh"], WeightMatrix(), _Features(state))
        else:
            transposed = name.startswith("conv_transpose")
            patches = _patches(given, transposed)
            self._add(given["weight"], WeightMatrix(patches.groups, transposed), patches)

    def _look_at_attention(self, func: Callable[..., Any], given: Mapping[str, Any]) -> None:
        """Add the input of the output projection: what comes out if that is the identity."""
        weight: Tensor = given["out_proj_weight"]
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        attended, _ = func(**{**given, "out_proj_weight": identity, "out_proj_bias": None})
        self._add(weight, WeightMatrix(), _Features(attended))

    def _look_at_sequences(self, func: Callable[..., Any], *args: Any) -> None:
        """Add the inputs and hidden states of a recurrent layer, one level after the other.

        Sequences are packed, as by `torch.nn.utils.rnn.pack_padded_sequence`, so that there is one
        case only. The backward direction is the forward one on reversed sequences.
        """
        if _is_packed(args):
            rows, sizes, states, weights, biased, levels, *_, both = args
        else:
            features, states, weights, biased, levels, _, _, both, batch_first = args
            steps = features.transpose(0, 1) if batch_first else features
            rows, sizes = steps.flatten(0, 1), torch.full((len(steps),), steps.shape[1])
        directions = 2 if both else 1
        many = len(weights) // (levels * directions)
        for level in range(levels):
            found = []
            for direction in range(directions):
                place = level * directions + direction
                own = weights[place * many : (place + 1) * many]
                initial = _at(states, place)
                order = _reversed(sizes) if direction else torch.arange(len(rows))
                inputs = rows[order]
                hidden = func(inputs, sizes, initial, own, biased, 1, 0.0, False, False)[0]
                first = initial if isinstance(initial, Tensor) else initial[0]
                self._add(own[0], WeightMatrix(), _Features(inputs))
                self._add(own[1], WeightMatrix(), _Features(_before(hidden, first[0], sizes)))
                found.append(hidden[order])
            rows = torch.cat(found, dim=1)

    def _add(self, weight: Tensor, matrix: WeightMatrix, inputs: _Inputs) -> None:
        """Add the moments of an input, if it is multiplied by a weight that is watched."""
        if (name := self._names.get(weight.data_ptr())) is None:
            return
        known = self._weights[name]
        if weight.shape != known.shape or weight.stride() != known.stride():
            self._give_up(weight, "the network multiplies by a part of it, or by its transpose")
            return
        if self._matrices is not None and matrix != self._matrices[name]:
            if not isinstance(inputs, _Words):
                self._give_up(weight, "layers of two kinds share it, and not their inputs")
                return
            matrix, inputs = self._matrices[name], _Single(inputs.counts, weight.shape[1])
        uses, moments = self.uses[name], self._moments(inputs)
        uses[matrix] = uses[matrix] + moments if matrix in uses else moments

    def _give_up(self, weight: object, why: str) -> None:
        if isinstance(weight, Tensor) and (name := self._names.get(weight.data_ptr())):
            self.unobservable[name] = why


def _is_packed(args: Sequence[Any]) -> bool:
    return isinstance(args[1], Tensor) and not args[1].is_floating_point()


def _at(states: Tensor | Sequence[Tensor], place: int) -> Any:
    """Return the initial state, or states, of one level and direction."""
    if isinstance(states, Tensor):
        return states[place : place + 1]
    return [state[place : place + 1] for state in states]


def _starts(sizes: Tensor) -> Tensor:
    """Return the row at which each time step of packed sequences starts."""
    return sizes.cumsum(0) - sizes


def _reversed(sizes: Tensor) -> Tensor:
    """Return the rows of packed sequences, with each sequence turned back to front."""
    lengths = [int((sizes > sequence).sum()) for sequence in range(int(sizes[0]))]
    starts = _starts(sizes).tolist()
    return torch.tensor(
        [
            starts[lengths[sequence] - 1 - step] + sequence
            for step, size in enumerate(sizes.tolist())
            for sequence in range(size)
        ]
    )


def _before(hidden: Tensor, first: Tensor, sizes: Tensor) -> Tensor:
    """Return the hidden state that each row of packed sequences starts from.

    Args:
        hidden: the states after each row (rows, features).
        first: the states before the first time step (sequences, features).
        sizes: the number of sequences at each time step.
    """
    starts = _starts(sizes)
    steps = [hidden[start : start + size] for start, size in zip(starts, sizes[1:], strict=False)]
    return torch.cat([first[: sizes[0]], *steps])
