"""A finished network as a program of torch: what it computes, for any number of samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from harness.errors import RunFailed
from harness.network import Network
from harness.task import Batch, Task
from harness.units import all_masks

BATCH = "batch"
"""The name of the first dimension of every input, the number of samples."""

TRACED_SAMPLES = 3
"""With how many samples a network is traced; a program of one sample would fit no other number."""

Computation = Callable[..., Any]
"""Computes the outputs for inputs, given by position."""


@dataclass(frozen=True)
class Program:
    """A network in evaluation mode, traced with training samples.

    Attributes:
        network: the network, on the CPU.
        samples: training samples as the network takes them, by the name of the input.
        exported: its program, in which the number of samples is free.
    """

    network: Network
    samples: Mapping[str, Tensor]
    exported: ExportedProgram

    @property
    def has_masks(self) -> bool:
        """Whether weights were removed that are still there, as zeros."""
        masks = all_masks(self.network.units.values()).values()
        return not all(bool(mask.all()) for mask in masks)

    @property
    def first_names(self) -> dict[str, str]:
        """For each tensor that the program reads, the first name of the same tensor."""
        firsts: dict[object, str] = {}
        return {
            name: firsts.setdefault((each.data_ptr(), each.shape) if each.numel() else name, name)
            for name, each in self._tensors()
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their first names: parameters, buffers and constants."""
        return {name: each for name, each in self._tensors() if name == self.first_names[name]}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        stored = {**self.exported.constants, **self.exported.state_dict}
        for spec in self.exported.graph_signature.input_specs:
            if spec.target is not None:
                yield spec.target, stored[spec.target].detach()

    def inputs(self, size: int) -> tuple[Tensor, ...]:
        """Return the first samples, as many as wanted."""
        return tuple(tensor[:size].clone() for tensor in self.samples.values())

    def outputs(self, size: int, compute: Computation | None = None) -> list[Tensor]:
        """Return the outputs for the first samples.

        Args:
            size: the number of samples.
            compute: what computes them; by default the network itself.
        """
        compute = self.network.model if compute is None else compute
        with torch.no_grad():
            return outputs_of(compute(*self.inputs(size)))

    def shapes(self) -> tuple[dict[str, list[int | str]], dict[str, list[int | str]]]:
        """Return the shapes of inputs and outputs by name, where `BATCH` is the number of samples.

        A single output is called ``output``, and several ``output_0``, ``output_1`` ...
        """
        few, many = self.outputs(1), self.outputs(2)
        inputs = {name: [BATCH, *tensor.shape[1:]] for name, tensor in self.samples.items()}
        outputs = {
            name: [a if a == b else BATCH for a, b in zip(one.shape, two.shape, strict=True)]
            for name, one, two in zip(output_names(len(few)), few, many, strict=True)
        }
        return inputs, outputs


def output_names(number: int) -> list[str]:
    """Return the names of a number of outputs."""
    return ["output"] if number == 1 else [f"output_{place}" for place in range(number)]


def outputs_of(returned: object) -> list[Tensor]:
    """Return the tensors in what a network returns."""
    return [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]


def trace(network: Network, samples: int, seed: int) -> Program:
    """Return the program of a network.

    Args:
        network: in evaluation mode, on the CPU.
        samples: how many samples it will be compared with, at most five.
        seed: of the run, which decides the samples.

    Raises:
        RunFailed: the network takes anything but tensors whose first dimension is the number of
            samples, or torch cannot trace it.
    """
    inputs = network_inputs(network.task, network.model, samples, seed)
    few = tuple(tensor[:TRACED_SAMPLES] for tensor in inputs.values())
    shapes = tuple({0: Dim(BATCH)} for _ in few)
    try:
        with torch.no_grad():
            exported = torch.export.export(network.model, few, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of many kinds, all of which say that the network is unusual
        raise RunFailed(f"torch.export cannot trace the network: {first_line(error)}") from error
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    return Program(network, inputs, exported)


def network_inputs(task: Task, model: nn.Module, count: int, seed: int) -> dict[str, Tensor]:
    """Return what a task hands to its network, by the name of the argument.

    Args:
        task: the task.
        model: its network, in evaluation mode.
        count: the number of samples, at most five.
        seed: of the run, which decides the samples.

    Raises:
        RunFailed: these are not tensors whose first dimension is the number of samples.
    """
    calls: list[dict[str, Tensor]] = []
    for batch in task.scoring_batches(seed):
        calls.append(_arguments(task, model, batch))
        if sum(len(next(iter(inputs.values()))) for inputs in calls) >= count:
            break
    return {name: torch.cat([inputs[name] for inputs in calls])[:count] for name in calls[0]}


def _arguments(task: Task, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the arguments of the first call of the network in an inference."""
    calls: list[inspect.BoundArguments] = []
    signature = inspect.signature(model.forward)

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(signature.bind(*args, **kwargs))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            task.inference(model, batch)
    finally:
        handle.remove()
    where = f"{type(task).__name__}.inference"
    if not calls:
        raise RunFailed(f"{where} does not call the network, so its inputs are not known")
    inputs, *_ = calls
    lengths = {
        len(value) if isinstance(value, Tensor) and value.dim() > 0 else None
        for value in inputs.arguments.values()
    }
    if len(lengths) != 1 or None in lengths or inputs.kwargs:
        raise RunFailed(
            f"{where} calls the network with ({', '.join(inputs.arguments)}), which are not all "
            "positional tensors with the number of samples as their first dimension"
        )
    return dict(inputs.arguments)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty, or its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
