"""Multiply-accumulates of a run's training, forward and backward, at the sparsity of each step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from harness.costs.operations import products
from harness.prunable import prunable_weights
from harness.task import Batch, Task

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of the tensors of a batch."""


class Uncountable(Exception):
    """The operations of a network cannot be counted; the message says why."""


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of one call and of its derivative, for any pruning of its weights.

    Attributes:
        per_element: by prunable weight, those with one of its elements: forward, for the gradient
            of the other factor, and for the gradient of the weight.
        rest: forward and backward, those of products without a prunable weight, or with two.
    """

    per_element: Mapping[str, tuple[Fraction, Fraction, Fraction]]
    rest: tuple[int, int]

    @classmethod
    def of(cls, model: nn.Module, run: Callable[[], object]) -> Work:
        """Count a call."""
        sizes = {name: weight.numel() for name, weight in prunable_weights(model).items()}
        nothing = (Fraction(0), Fraction(0), Fraction(0))
        per_element = dict.fromkeys(sizes, nothing)
        forward = backward = 0
        for each in products(model, run):
            match each.weights:
                case [name] if sizes[name]:
                    one = Fraction(each.macs, sizes[name])
                    counts = 1, each.with_gradient - each.learning, each.learning
                    a, b, c = (
                        total + count * one
                        for total, count in zip(per_element[name], counts, strict=True)
                    )
                    per_element[name] = a, b, c
                case _:
                    forward += each.macs
                    backward += each.macs * each.with_gradient
        return cls(per_element, (forward, backward))

    def forward(self, left: Mapping[str, int]) -> int:
        """Return the multiply-accumulates of the call.

        Args:
            left: the number of elements that remain of each prunable weight.
        """
        of_weights = sum(each[0] * left[name] for name, each in self.per_element.items())
        return round(of_weights) + self.rest[0]

    def backward(self, left: Mapping[str, int], dense: Mapping[str, int] | None = None) -> int:
        """Return the multiply-accumulates of the derivative.

        Args:
            left: the number of elements that remain of each prunable weight.
            dense: the number of elements of which the gradient is computed, if it is not only
                that of what remains. A method that grows weights where they were removed asks for
                such a dense gradient (RigL, Evci et al. 2020, arXiv:1911.11134).
        """
        learned = left if dense is None else dense
        of_weights = sum(
            others * left[name] + own * learned[name]
            for name, (_, others, own) in self.per_element.items()
        )
        return round(of_weights) + self.rest[1]


class TrainingOperations:
    """Counts the multiply-accumulates of training steps and of scoring passes.

    The definition, which is that of ``cost.train_macs`` in a record:

    * The forward pass of a batch counts as `harness.costs.operations` counts it. Products with
      removed weights do not count, whether the weights are masked or cut out.
    * The backward pass counts every product once more for each of its two factors that has a
      gradient: the weights of a layer and its inputs. The inputs of the first layer have none, and
      neither have frozen parameters, such as those that ``run.train(only=...)`` leaves out. So the
      backward pass of a plain network is twice the forward pass, less the first layer's inputs.
      Of a weight's gradient only the part of the weights that remain counts, although torch
      computes all of it: a sparse kernel would not.
    * A pass over a scoring batch counts in the same way: each evaluation of its loss as a forward
      pass, each derivative as a backward pass, and the derivative of a gradient as another one.
      SynFlow's passes over its input of ones count like those over a batch of one sample.
    * Gradients at removed places count in full where a method asks for them (`Work.backward`).
    * A teacher adds its forward pass to each step (``teacher=RUN``).
    * Elementwise work does not count: optimizer, normalisation, penalties, clipping. Neither do
      what a stream computes to make a batch, such as the actions and targets of an agent, and the
      suite's own instruments.

    Rewound steps count, as in ``cost.steps``. The number is computed from shapes and masks, so it
    is the same on every machine. It costs one evaluation of the loss for each shape of a batch:
    after a pruning, only arithmetic. (A network that is cut and multiplies activations, as in
    attention, is counted anew.)

    The products are those of the task's scoring loss, which uses the network in the same way as the
    training loss and, since it can be differentiated twice, hides none of them in a function of its
    own.

    Args:
        task: gives the loss.
        instrument: a context that is left out of the method's costs.
    """

    def __init__(self, task: Task, instrument: Callable[[], AbstractContextManager[None]]) -> None:
        self._task = task
        self._instrument = instrument
        self._known: dict[tuple[object, ...], Work] = {}

    def step(self, model: nn.Module, batch: Batch) -> Work:
        """Return the work of a training step with a batch."""
        return self._work("step", model, batch, self._task.scoring_loss)

    def scoring(self, model: nn.Module, batch: Batch) -> Work:
        """Return the work of a pass over a scoring batch, for a model in scoring mode."""
        return self._work("scoring", model, batch, self._task.scoring_loss)

    def flow(self, model: nn.Module) -> Work:
        """Return the work of a pass of SynFlow, for a model without signs."""
        return self._work("flow", model, (), lambda model, _: self._task.flow(model))

    def _work(
        self,
        kind: str,
        model: nn.Module,
        batch: Batch,
        loss: Callable[[nn.Module, Batch], Tensor],
    ) -> Work:
        learning = tuple(name for name, each in model.named_parameters() if each.requires_grad)
        key = kind, shapes_of(batch), learning
        network = tuple(tuple(each.shape) for each in model.parameters())
        for known in (key, (*key, network)):
            if known in self._known:
                return self._known[known]
        with (
            self._instrument(),
            _leaving_no_trace(model),
            torch.enable_grad(),
            # Nothing is differentiated, so the memory of a step would be used for nothing.
            saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing),
        ):
            if kind == "step":
                model.train()
            try:
                work = Work.of(model, lambda: loss(model, batch))
            except (RuntimeError, NotImplementedError) as error:
                first_line = str(error).partition("\n")[0]
                raise Uncountable(f"torch cannot count the operations: {first_line}") from error
        # Cutting changes products of activations, whose number is known for this network only.
        self._known[(*key, network) if any(work.rest) else key] = work
        return work


def shapes_of(batch: Batch) -> Shapes:
    """Return what the number of operations depends on in a batch."""
    return tuple(tuple(each.shape) for each in tree_leaves(batch) if isinstance(each, Tensor))


def elements_left(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of elements that remain of each prunable weight.

    Args:
        model: the network.
        masks: the kept weights, boolean, by name; weights without a mask are dense.
    """
    return {
        name: int(masks[name].count_nonzero()) if name in masks else weight.numel()
        for name, weight in prunable_weights(model).items()
    }


@contextmanager
def _leaving_no_trace(model: nn.Module) -> Iterator[None]:
    """Put copies in the place of buffers, and restore modes and random states.

    Not even a counter of changes in a buffer may tell that the model has run: a criterion may be
    scoring.
    """
    copies = {id(buffer): buffer.clone() for buffer in model.buffers()}
    buffers = [
        (module._buffers, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    modes = {module: module.training for module in model.modules()}
    python, numpy = random.getstate(), np.random.get_state()
    devices: list[Any] = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    try:
        for own, name, buffer in buffers:
            own[name] = copies[id(buffer)]
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for own, name, buffer in buffers:
            own[name] = buffer
        random.setstate(python)
        np.random.set_state(numpy)
        for module, training in modes.items():
            module.training = training
