"""What the network of a run costs, as it is and as it would be after a pruning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
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

Instrument = Callable[[], AbstractContextManager[None]]
"""Gives a context that is left out of the method's costs."""

_ROUNDS = 3
"""How often a network and the dense one are timed in turn; of each the shortest median counts."""


class NetworkCosts:
    """Counts or measures the costs of one run's network, by the kinds of `harness.budget`.

    Build it while the network is dense.

    Args:
        task: what the network is used for.
        model: the dense network.
        batch: the batch whose inference is timed.
        times: where measured times are kept, so that a resumed run gets the same.
        instrument: a context that is left out of the method's costs.
        seconds: how long one timing takes.
        interrupted: says whether the process has been asked to stop.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        batch: Batch,
        times: Path,
        instrument: Instrument,
        seconds: float,
        interrupted: Callable[[], bool],
    ) -> None:
        self._task = task
        self._batch = batch
        self._times = Times(times)
        self._instrument = instrument
        self._seconds = seconds
        self._interrupted = interrupted
        self._parameters = {name: p.numel() for name, p in model.named_parameters()}
        self._dense_macs, by_weight = self._operations(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        weights = prunable_weights(model).items()
        self._per_weight = {
            names[id(weight)]: by_weight[name] // weight.numel()
            for name, weight in weights
            if weight.numel()
        }
        # Otherwise there are products without prunable weights, or between two of them.
        self._is_sum = self._dense_macs == sum(
            self._per_weight[name] * self._parameters[name] for name in self._per_weight
        )

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
                return self._dense_macs
            case "params":
                return sum(self._parameters.values())
            case "bytes":
                return self._dense_bytes
            case "latency":
                return self._dense_seconds
        raise ValueError(f"no such cost: {kind}")

    def macs(self, prospect: Prospect) -> int:
        """Return the multiply-accumulates of one sample with weights that remain."""
        if self._is_sum:
            elements = prospect.elements
            return sum(each * elements[name] for name, each in self._per_weight.items())
        dense, by_weight = self._operations(network := prospect.network())
        removed = 0.0
        for name, weight in prunable_weights(network).items():
            if name in prospect.masks and weight.numel():
                share = 1 - int(prospect.masks[name].count_nonzero()) / weight.numel()
                removed += by_weight[name] * share
        return round(dense - removed)

    def _operations(self, model: nn.Module) -> tuple[int, dict[str, int]]:
        task, sample = self._task, self._task.one_sample()
        with scoring_mode(model, batch_statistics=False):
            return all_operations(model, lambda: task.inference(model, sample))

    @cached_property
    def _dense_bytes(self) -> int:
        with torch.random.fork_rng(devices=[]):
            return len(network_file.contents(self._task.model().state_dict(), {}))

    @cached_property
    def _dense_network(self) -> nn.Module:
        """A dense network with other weights, which do not matter for its speed."""
        with torch.random.fork_rng(devices=[]):
            return self._task.model().to(self._task.device).eval()

    @cached_property
    def _dense_seconds(self) -> float:
        seconds: float
        with self._instrument():
            seconds = self._times.get("dense", lambda: self._time(self._dense_network))
        return seconds

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
        for _ in range(_ROUNDS):
            own.append(self._time(network))
            dense.append(self._time(self._dense_network))
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
