"""What the network of a run costs, as it is and as it would be after a pruning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from harness.costs.operations import all_operations
from harness.costs.timing import time_call
from harness.errors import Interrupted
from harness.prunable import prunable_weights
from harness.scoring import scoring_mode
from harness.storage import files, network_file
from harness.task import Batch, Task
from harness.units import Cost, Prospect

Alone = Callable[[], AbstractContextManager[None]]
"""Gives a context in which no other process of this project measures on the device."""

_ROUNDS = 3
"""How often a network and the dense one are timed in turn; of each the shortest median counts."""


@dataclass(frozen=True)
class _Operations:
    """Multiply-accumulates of the dense network."""

    all: int
    per_weight: Mapping[str, int]
    """By the name of a prunable weight: the operations with each of its elements."""
    is_sum: bool
    """Whether each operation has one prunable weight."""


class NetworkCosts:
    """Counts or measures the costs of one run's network, by the kinds of `harness.budget`.

    Args:
        task: what the network is used for.
        batch: the batch whose inference is timed.
        times: the file of measured times, from which a resumed run gets the same.
        instrument: a context that is left out of the method's costs.
        seconds: how long one timing takes.
        alone: a context in which no other process of this project measures on the device.
        interrupted: says whether the process has been asked to stop.
    """

    def __init__(
        self,
        task: Task,
        batch: Batch,
        times: Path,
        instrument: Callable[[], AbstractContextManager[None]],
        seconds: float,
        alone: Alone,
        interrupted: Callable[[], bool],
    ) -> None:
        self._task = task
        self._batch = batch
        self._times = Times(times)
        self._instrument = instrument
        self._seconds = seconds
        self._alone = alone
        self._interrupted = interrupted

    def of(self, kind: str, units: str) -> Cost:
        """Return a function that gives the cost of a prospect of these units.

        Args:
            kind: a name in `harness.budget.KINDS`.
            units: the registered name of the units.
        """
        match kind:
            case "macs":
                return self.macs
            case "params":
                return lambda prospect: sum(prospect.elements.values())
            case "bytes":
                return partial(_bytes, units)
            case "latency":
                return self._seconds_of
        raise ValueError(f"no such cost: {kind}")

    def dense(self, kind: str) -> float:
        """Return a cost of the dense network."""
        match kind:
            case "macs":
                return self._dense_operations.all
            case "params":
                return sum(self._dense_parameters.values())
            case "bytes":
                return self._dense_bytes
            case "latency":
                return self._dense_seconds
        raise ValueError(f"no such cost: {kind}")

    def macs(self, prospect: Prospect) -> int:
        """Return the multiply-accumulates of one sample with weights that remain."""
        dense, left, masks = self._dense_operations, prospect.elements, prospect.masks
        per_weight, whole = dense.per_weight, self._dense_parameters
        if dense.is_sum:
            return sum(each * left[name] for name, each in per_weight.items())
        if all(left[name] == whole[name] for name in left if name not in masks):
            # Only masked: the other operations are those of the dense network.
            return dense.all - sum(
                each * (whole[name] - left[name]) for name, each in per_weight.items()
            )
        with self._instrument():
            operations, _ = self._operations(prospect.network())
        return operations

    def _new_network(self) -> nn.Module:
        """Build a dense network; its weights are others than those of the run."""
        with torch.random.fork_rng(devices=[]):
            return self._task.model().to(self._task.device).eval()

    @cached_property
    def _timed_network(self) -> nn.Module:
        """The dense network with which others are compared."""
        return self._new_network()

    @cached_property
    def _dense_parameters(self) -> Mapping[str, int]:
        with self._instrument():
            named = self._new_network().named_parameters()
            return {name: parameter.numel() for name, parameter in named}

    @cached_property
    def _dense_bytes(self) -> int:
        with self._instrument():
            return len(network_file.contents(self._new_network().state_dict(), {}))

    @cached_property
    def _dense_operations(self) -> _Operations:
        with self._instrument():
            network = self._new_network()
            everything, by_weight = self._operations(network)
            names = {id(parameter): name for name, parameter in network.named_parameters()}
            per_weight = {
                names[id(weight)]: by_weight[name] // weight.numel()
                for name, weight in prunable_weights(network).items()
                if weight.numel()
            }
        counted = sum(each * self._dense_parameters[name] for name, each in per_weight.items())
        return _Operations(everything, per_weight, counted == everything)

    def _operations(self, model: nn.Module) -> tuple[int, dict[str, int]]:
        task, sample = self._task, self._task.one_sample()
        with scoring_mode(model, batch_statistics=False):
            return all_operations(model, lambda: task.inference(model, sample))

    @cached_property
    def _dense_seconds(self) -> float:
        seconds: float
        with self._instrument():
            seconds = self._times.get("dense", self._time_dense)
        return seconds

    def _time_dense(self) -> float:
        with self._alone():
            return min(self._time(self._timed_network) for _ in range(_ROUNDS))

    def _seconds_of(self, prospect: Prospect) -> float:
        """Return the measured time of a network, relative to the dense one at the same moment."""
        dense = self._dense_seconds
        ratio: float
        shape = json.dumps(dict(sorted(prospect.shape.items())))
        with self._instrument():
            ratio = self._times.get(shape, lambda: self._relative(prospect.network()))
        return dense * ratio

    def _relative(self, network: nn.Module) -> float:
        own, dense = [], []
        with self._alone():
            for _ in range(_ROUNDS):
                own.append(self._time(network))
                dense.append(self._time(self._timed_network))
        return min(own) / min(dense)

    def _time(self, network: nn.Module) -> float:
        """Return how long the inference of a batch takes, in seconds.

        On a CPU, the time in which other programs had the processor is left out.

        Raises:
            Interrupted: the process was asked to stop. The times measured so far are kept.
        """
        if self._interrupted():
            raise Interrupted
        network.eval()

        def inference() -> None:
            with torch.no_grad():
                self._task.inference(network, self._batch)

        timing = time_call(inference, self._task.device, at_most_seconds=self._seconds)
        waited = timing.waited if self._task.device.type == "cpu" else 0.0
        return timing.median_ms * (1 - waited) / 1000


def _bytes(units: str, prospect: Prospect) -> int:
    state = prospect.network().state_dict()
    return len(network_file.contents(state, prospect.masks, {units: prospect.state}))


class Times:
    """Measured times by what was timed, in a file.

    Args:
        path: the file. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, float] = _read(path)

    def get(self, key: str, measure: Callable[[], float]) -> float:
        """Return the time that was measured under a key, in whichever attempt of the run."""
        if key not in self._known:
            self._known[key] = measure()
            files.write(self._path, json.dumps(self._known, indent=1).encode())
        return self._known[key]


def _read(path: Path) -> dict[str, float]:
    try:
        known: Mapping[str, float] = json.loads(path.read_text())
        return {str(key): float(value) for key, value in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # as after a crash of the machine; measured again
