"""The task that `harness.own_task.task_from` makes from a network and datasets."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate

from harness.data.description import DataDescription
from harness.errors import RequestError, place
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices

VALIDATION_SHARE = 10
"""One training pair in so many is for validation, if there is no dataset for it."""

READ_AT_ONCE = 256
"""How many pairs are read, and evaluated, at a time."""

BASELINE_STEPS = 100
"""Steps of the optimization of the constant outputs."""


class Given(Protocol):
    """The arguments of `task_from`, which describes them."""

    @property
    def source(self) -> Path:
        """The file that calls it."""

    @property
    def model(self) -> Callable[[], nn.Module]:
        """Returns a new network."""

    @property
    def train(self) -> Dataset[Any]:
        """Pairs for training."""

    @property
    def test(self) -> Dataset[Any]:
        """Pairs for the test."""

    @property
    def validation(self) -> Dataset[Any] | None:
        """Pairs for validation."""

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Of outputs and targets."""

    @property
    def metric(self) -> Callable[[Tensor, Tensor], float | Tensor] | None:
        """Of outputs and targets."""

    @property
    def fingerprint(self) -> str | None:
        """Identifies the data."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the decorator of a task takes."""


class DatasetTask(Task):
    """Pairs of inputs and targets from datasets; loss and metric are functions of the outputs.

    Args:
        own: the arguments of `task_from`.
        settings: the recipe.
        data_folder: not used; the datasets know where their data are.
        device: of batches and models.
    """

    def __init__(
        self,
        own: Given,
        settings: Mapping[str, Any],
        data_folder: Path,
        device: torch.device,
    ) -> None:
        super().__init__(settings, data_folder, device)
        self._own = own
        self._loss = own.loss or F.cross_entropy
        self.outputs_are = "logits" if own.loss is None else None
        train, held_out = _numbers(own)
        self._train = train
        self._parts: dict[Split, tuple[Dataset[Any], Sequence[int]]] = {
            "validation": held_out,
            "test": (own.test, range(_length(own.test, "test"))),
        }
        self.steps_per_epoch = -(-len(train) // settings["batch_size"])
        # Read here, because a traced pass must not contain what a dataset computes.
        self._sample = self._read(own.train, train[:1].tolist(), 0)

    def model(self) -> nn.Module:
        """Return a new network.

        Raises:
            RequestError: the function returns something else.
        """
        network = self._own.model()
        if not isinstance(network, nn.Module):
            raise RequestError(
                f"task_from: {place(self._own.model)} returns {type(network).__name__}, "
                "not a torch.nn.Module"
            )
        return network

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches; what the dataset draws at random depends on the position."""
        return ShuffledBatches(
            len(self._train), self.settings["batch_size"], seed, self._training_batch
        )

    def _training_batch(self, indices: Tensor, generator: Generator) -> Batch:
        return self._read(self._own.train, self._train[indices].tolist(), generator.initial_seed())

    def _read(self, dataset: Dataset[Any], numbers: Sequence[int], seed: int) -> Batch:
        inputs, targets = _pairs(dataset, numbers, seed)
        return inputs.to(self.device), targets.to(self.device)

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five training batches, equal for all methods."""
        chosen = scoring_indices(len(self._train), self.settings["batch_size"], seed)
        return [self._read(self._own.train, self._train[n].tolist(), 0) for n in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the outputs."""
        return self._loss(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the metric of all outputs of a split."""
        dataset, numbers = self._parts[split]
        answers = [
            (model(inputs), targets)
            for inputs, targets in (self._read(dataset, n, 0) for n in _pieces(numbers))
        ]
        outputs, targets = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return {str(self._own.arguments["metric"]): self._metric(outputs, targets)}

    def _metric(self, outputs: Tensor, targets: Tensor) -> float:
        if self._own.metric is not None:
            return float(self._own.metric(outputs, targets))
        if self._own.loss is not None:
            return float(self._own.loss(outputs, targets))
        return 100 * float((outputs.argmax(1) == targets).double().mean())

    def baseline(self) -> float:
        """Return the test metric of the constant outputs with the smallest training loss."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            shape = self.model().to(self.device).eval()(self.one_sample()[0]).shape[1:]
        constant = torch.zeros(shape, device=self.device, requires_grad=True)
        targets = self._targets(self._own.train, self._train.tolist())
        optimiser = torch.optim.LBFGS([constant], max_iter=BASELINE_STEPS)

        def closure() -> float:
            optimiser.zero_grad()
            with torch.enable_grad():
                loss = self._loss(constant.expand(len(targets), *shape), targets)
                loss.backward()
            return float(loss.detach())

        optimiser.step(closure)
        tested = self._targets(*self._parts["test"])
        return self._metric(constant.detach().expand(len(tested), *shape), tested)

    def _targets(self, dataset: Dataset[Any], numbers: Sequence[int]) -> Tensor:
        return torch.cat([self._read(dataset, piece, 0)[1] for piece in _pieces(numbers)])

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the outputs (samples, outputs)."""
        outputs: Tensor = model(batch[0])
        return outputs.flatten(1)

    def inference(self, model: nn.Module, batch: Batch) -> object:
        """Return the network's outputs."""
        return model(batch[0])

    def one_sample(self) -> Batch:
        """Return the first training pair."""
        return self._sample


def described(own: Given) -> DataDescription:
    """Describe the datasets; the hash covers every pair, or the fingerprint that was given."""
    train, (validation, held_out) = _numbers(own)
    test = range(_length(own.test, "test"))
    whole = hashlib.sha256(f"{len(train)} {len(held_out)} {len(test)}\n".encode())
    if own.fingerprint is not None:
        whole.update(own.fingerprint.encode())
    else:
        for dataset, numbers in (
            (own.train, train.tolist()),
            (validation, held_out),
            (own.test, test),
        ):
            for piece in _pieces(numbers):
                for tensor in _pairs(dataset, piece, 0):
                    whole.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
                    whole.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    division = "" if own.validation is not None else "; validation split off train with seed 0"
    return DataDescription(
        "real",
        f"datasets of {own.source.name} ({len(train)} train, {len(held_out)} validation, "
        f"{len(test)} test{division})",
        whole.hexdigest(),
    )


def _numbers(own: Given) -> tuple[Tensor, tuple[Dataset[Any], Sequence[int]]]:
    """Return the numbers of the training pairs, and the dataset and numbers for validation."""
    length = _length(own.train, "train")
    if own.validation is not None:
        held_out = range(_length(own.validation, "validation"))
        return torch.arange(length), (own.validation, held_out)
    if length < VALIDATION_SHARE:
        raise RequestError(
            f"task_from: train has {length} pairs; it needs at least {VALIDATION_SHARE}, of which "
            "a tenth is for validation"
        )
    order = torch.randperm(length, generator=Generator().manual_seed(0))
    count = length // VALIDATION_SHARE
    return order[count:].sort().values, (own.train, order[:count].sort().values.tolist())


def _length(dataset: Dataset[Any], name: str) -> int:
    if not isinstance(dataset, Sized):
        raise RequestError(
            f"task_from: {name} has no length: it has to be a map-style dataset, with __len__"
        )
    length = len(dataset)
    if length == 0:
        raise RequestError(f"task_from: {name} is empty")
    return length


def _pieces(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), READ_AT_ONCE):
        yield numbers[start : start + READ_AT_ONCE]


def _pairs(dataset: Dataset[Any], numbers: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of some pairs, on the CPU.

    Raises:
        RequestError: an item is not a pair of tensors, arrays or numbers.
    """
    with _seeded(seed):
        items = [dataset[number] for number in numbers]
    if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        raise RequestError(
            f"task_from: an item of {type(dataset).__name__} is {type(items[0]).__name__}, "
            "not a pair of an input and a target"
        )
    try:
        inputs, targets = default_collate(items)
    except (TypeError, RuntimeError) as error:
        raise RequestError(
            f"task_from: items of {type(dataset).__name__} cannot be put into a batch: "
            f"{' '.join(str(error).split())}"
        ) from None
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        raise RequestError(
            f"task_from: an item of {type(dataset).__name__} is not a pair of tensors, arrays or "
            "numbers"
        )
    return inputs, targets


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers of torch, NumPy and Python, and restore their states afterwards."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
