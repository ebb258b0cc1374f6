"""A network as a function of its weights, for criteria that look at other weights than its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from harness.errors import RequestError, RunFailed, nearest
from harness.task import Batch, Task

Counting = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Takes an evaluation, and returns a function that computes the same and is counted."""


class FunctionalNetwork:
    """Loss and outputs of a network as functions of its parameters; the network does not change.

    The functions take values by the names of parameters, and can be differentiated with respect to
    them. Parameters without a value keep their own.

    Args:
        task: computes losses and outputs.
        model: the network.
        variables: its prunable weights. These names stand for them.
        batches: the scoring batches.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        variables: Mapping[str, Tensor],
        batches: Sequence[Batch],
    ) -> None:
        self._task = task
        self._evaluated = _Evaluated(model)
        self._batches = batches
        variable_of = {id(variable): name for name, variable in variables.items()}
        self._parameters = {
            variable_of.get(id(parameter), name): parameter
            for name, parameter in model.named_parameters()
        }
        self._names = list(self._parameters)
        self._counted: Counting = lambda evaluation: evaluation

    def counted(self, counting: Counting) -> FunctionalNetwork:
        """Return a network that computes the same, and whose evaluations are counted."""
        other = copy.copy(self)
        other._counted = counting
        return other

    @property
    def batches(self) -> int:
        """The number of scoring batches."""
        return len(self._batches)

    def parameters(self, *, learning: bool = False) -> dict[str, Tensor]:
        """Return copies of the parameters, tied ones once: of all, or of all but frozen ones."""
        return {
            name: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if parameter.requires_grad or not learning
        }

    def loss(self, values: Mapping[str, Tensor], number: int) -> Tensor:
        """Return the training loss of a scoring batch at these values, a scalar.

        Args:
            values: a tensor for each parameter that does not keep its own, of its shape.
            number: of the batch, from 0; after the last comes the first again.
        """
        batch = self._batches[number % self.batches]
        return self._at(values, lambda model: self._task.scoring_loss(model, batch))

    def outputs(self, values: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the outputs (samples, outputs) for a batch at these values; see `loss`."""
        return self._at(values, lambda model: self._task.outputs(model, batch))

    def noise(self, generator: Generator) -> Batch:
        """Return one of the scoring batches, with standard normal numbers in place of real numbers.

        Whole numbers, such as those of words, stay.
        """
        number = int(torch.randint(self.batches, (), generator=generator))

        def drawn(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            return torch.randn(tensor.shape, generator=generator).to(tensor)

        noise: Batch = tree_map_only(Tensor, drawn, self._batches[number])
        return noise

    def initial(self, generator: Generator) -> dict[str, Tensor]:
        """Return the parameters of another new network of the task.

        Raises:
            RequestError: this network has other shapes, because it has lost channels.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            model = self._task.model().to(self._task.device)
        drawn = [parameter.detach() for parameter in model.parameters()]
        own = self._parameters.values()
        if [each.shape for each in drawn] != [each.shape for each in own]:
            raise RequestError(
                "this criterion draws new networks, whose shapes are those of the dense network; "
                "this one has lost channels"
            )
        return dict(zip(self._names, drawn, strict=True))

    def _at(self, values: Mapping[str, Tensor], compute: Callable[[nn.Module], Tensor]) -> Tensor:
        for name, value in values.items():
            if name not in self._parameters:
                raise RunFailed(
                    f"the network has no parameter {name!r}{nearest(name, self._parameters)}"
                )
            if value.shape != self._parameters[name].shape:
                raise RunFailed(
                    f"the value of {name!r} has the shape {tuple(value.shape)}, and the parameter "
                    f"{tuple(self._parameters[name].shape)}"
                )
        inner = {f"model.{name}": value for name, value in values.items()}
        return self._counted(partial(functional_call, self._evaluated, inner, (compute,)))()


class _Evaluated(nn.Module):
    """Computes something with a model, in the form that `torch.func.functional_call` takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[nn.Module], Tensor]) -> Tensor:
        return compute(self.model)
