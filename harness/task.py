"""The contract of a task: data, model, loss, metric and training recipe."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.utils._pytree import tree_map_only

from harness.data.loading import loaded
from harness.errors import RunFailed, place
from harness.seeds import derive
from harness.settings import Recipe

Batch = Any
"""What a task's stream yields and its loss takes: usually a tuple of tensors."""

Split = Literal["validation", "test"]
"""The data that a network is evaluated on."""

CPU = torch.device("cpu")
"""The default device of batches."""

_Draw = tuple[Tensor, Generator]


class Stream(Protocol):
    """The endless training batches of one run; its state holds everything that it remembers."""

    companions: Sequence[nn.Module]
    """Networks that must be pruned with the model, such as a target network."""

    def next(self, model: nn.Module) -> Batch:
        """Return the next batch; streams of reinforcement learning act with ``model``."""

    def state(self) -> dict[str, Any]:
        """Return the state from which it can continue: tensors, numbers, strings and containers."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""


class Task(ABC):
    """A task in one profile, registered with `harness.registry.task`.

    The engine tests the last weights, once; a pruner never sees test data.

    Args:
        settings: all settings of the profile, with overrides applied (see the decorator).
        data_folder: the folder that tasks read data from.
        device: where batches and models live.
    """

    steps_per_epoch: int
    """Optimizer steps in one epoch."""

    scoring_batch_count: ClassVar[int] = 5

    outputs_are: Literal["logits", "values"] | None = None
    """What `loss_and_outputs` returns, which decides how a network learns from a teacher.

    Logits (..., classes), log-probabilities included, are compared as distributions; values, as in
    regression, by their squared difference. None: the task does not say, and a run with a teacher
    is refused.
    """

    def __init__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> None:
        self.settings = settings
        self.data_folder = data_folder
        self.device = device

    @property
    def recipe(self) -> Recipe:
        """How the network is trained: the settings that every task has."""
        return Recipe.of(self.settings)

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a new network, initialised from torch's current random state."""

    @abstractmethod
    def stream(self, model: nn.Module, seed: int) -> Stream:
        """Return the training batches of a run with this seed."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean training loss of a batch, a scalar."""

    def loss_and_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return `loss`, and the differentiable outputs that it was computed from.

        Runs with a teacher call it for the network in training, and for the teacher. By default
        the outputs are what the model returns when `loss` calls it. A task overrides it if `loss`
        calls parts of the model, or calls it several times.

        Raises:
            RunFailed: `loss` does not call the model exactly once, or gets no tensor from it.
        """
        returned: list[object] = []
        handle = model.register_forward_hook(lambda *call: returned.append(call[-1]))
        try:
            loss = self.loss(model, batch)
        finally:
            handle.remove()
        match returned:
            case [Tensor() as outputs]:
                return loss, outputs
        raise RunFailed(
            f"{place(self.loss)} does not get its outputs, as one tensor, from one call of the "
            f"model; {type(self).__name__} needs a loss_and_outputs(model, batch) of its own"
        )

    @abstractmethod
    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five training batches of the recipe's size, without augmentation.

        They come from a random stream of their own, equal for all methods and events of a seed.
        """

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss that criteria differentiate, once or twice: by default `loss`.

        Steps of training are counted with it, so it uses the network as `loss` does.
        """
        return self.loss(model, batch)

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the metrics of a model in evaluation mode, by name, the main one among them."""

    @abstractmethod
    def baseline(self) -> float:
        """Return the test metric of the best predictor that ignores its input."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the network's differentiable outputs (samples, outputs) for a batch."""

    @abstractmethod
    def inference(self, model: nn.Module, batch: Batch) -> object:
        """Compute what a user of the finished network would compute for a batch's inputs."""

    @abstractmethod
    def one_sample(self) -> Batch:
        """Return a batch of one sample, for counting operations."""

    def by_length(self, batch: Batch) -> Mapping[int, Batch]:
        """Return a batch whose input sequences are cut to several lengths, by length.

        The inference of each is measured. The last is the batch itself: no network has to read
        more than it was built for. By default there is none, because inputs are no sequences. A
        task of sequences overrides it, with the lengths of `lengths_up_to`.
        """
        return {}

    def forward(self, model: nn.Module) -> Tensor:
        """Return the outputs for one sample; units trace this call through the network."""
        return self.outputs(model, self.one_sample())

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed outputs, before any softmax, for an input of ones.

        This is the objective of SynFlow; the model is in double precision, without signs and
        `harness.scoring.WithoutBarriers`. By default the input is `one_sample` with ones for all
        floating-point numbers. A task overrides it if `outputs` end in a softmax, or if its inputs
        are not floating-point numbers.
        """
        ones = tree_map_only(Tensor, _ones_like, self.one_sample())
        return self.outputs(model, ones).sum()


def lengths_up_to(longest: int) -> list[int]:
    """Return an eighth, a quarter, half and all of a length, rounded up."""
    return sorted({-(-longest // part) for part in (8, 4, 2, 1)})


def _ones_like(tensor: Tensor) -> Tensor:
    return torch.ones_like(tensor, dtype=torch.double) if tensor.is_floating_point() else tensor


class ShuffledBatches:
    """Batches of a fixed data set, reshuffled each epoch; implements `Stream`.

    Order and augmentation are functions of the seed and the position, so the position is the
    whole state.

    Args:
        samples: size of the training set; the last batch of an epoch may be smaller.
        batch_size: samples in a batch.
        seed: the run's seed.
        collate: makes a batch from sample indices, or from what ``read`` returned for them; the
            generator is for augmentation.
        read: loads samples into tensors on the CPU; for a GPU, in advance (`harness.data.loading`).
            It uses the same generator as ``collate``, before it.
        device: where ``collate`` gets the loaded tensors.
    """

    companions: Sequence[nn.Module] = ()

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        collate: Callable[[Any, Generator], Batch],
        read: Callable[[Tensor, Generator], tuple[Tensor, ...]] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._collate = collate
        self._read = read
        self._device = device
        self._coming: Iterator[tuple[_Draw, tuple[Tensor, ...]]] | None = None
        self._position = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one pass over the data, rounded up."""
        return -(-self._samples // self._batch_size)

    def next(self, model: nn.Module) -> Batch:
        """Return the batch at the current position, and advance."""
        material: Any
        if (read := self._read) is None:
            material, augmentation = self._draw(self._position)
        else:
            if self._coming is None:
                draws = map(self._draw, itertools.count(self._position))
                self._coming = loaded(lambda draw: read(*draw), draws, self._device)
            (_, augmentation), material = next(self._coming)
        self._position += 1
        return self._collate(material, augmentation)

    def _draw(self, position: int) -> _Draw:
        """Return the sample indices of a batch, and the generator of its augmentation."""
        epoch, index = divmod(position, self.batches_per_epoch)
        if epoch != self._epoch:
            generator = Generator().manual_seed(derive(self._seed, "order", epoch))
            self._order = torch.randperm(self._samples, generator=generator)
            self._epoch = epoch
        chosen = self._order[index * self._batch_size :][: self._batch_size]
        augmentation = Generator().manual_seed(derive(self._seed, "augmentation", position))
        return chosen, augmentation

    def state(self) -> dict[str, Any]:
        """Return the position."""
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a position."""
        self._position = state["position"]
        self._coming = None


def scoring_indices(samples: int, batch_size: int, seed: int) -> list[Tensor]:
    """Return the sample indices of the scoring batches, drawn without replacement.

    A training set too small for five different batches is reshuffled and used again.
    """
    generator = torch.Generator().manual_seed(derive(seed, "scoring"))
    whole_batches = max(samples // batch_size, 1)
    batches: list[Tensor] = []
    while len(batches) < Task.scoring_batch_count:
        order = torch.randperm(samples, generator=generator)
        batches += order[: whole_batches * batch_size].split(batch_size)
    return batches[: Task.scoring_batch_count]
