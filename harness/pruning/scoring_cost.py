"""What it costs to score: the passes that a criterion takes, their operations, time and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.costs.meter import CostMeter
from harness.costs.training_operations import (
    TrainingOperations,
    Uncountable,
    Work,
    elements_left,
)
from harness.scoring import Scoring
from harness.task import Batch, Task
from harness.units import Kept, Units


@dataclass(frozen=True)
class Passes:
    """Passes through the network.

    A forward pass is an evaluation of the loss of one scoring batch. A backward pass is a
    derivative of that loss; a derivative of a gradient, as in a product with the Hessian, is
    another one.
    """

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward)

    def __sub__(self, other: Passes) -> Passes:
        return Passes(self.forward - other.forward, self.backward - other.backward)

    def macs(
        self, work: Work, left: Mapping[str, int], dense: Mapping[str, int] | None = None
    ) -> int:
        """Return the multiply-accumulates of these passes; for the arguments see `Work`."""
        return self.forward * work.forward(left) + self.backward * work.backward(left, dense)


class ScoringCost:
    """Counts and measures the scoring of one run.

    Memory is measured the first time that a criterion scores units of a kind. Later it takes as
    much, or less if channels were cut out of the network; and measuring takes time.

    Attributes:
        passes: all passes over scoring batches so far.

    Args:
        meter: what the run costs.
        task: gives the loss.
    """

    def __init__(self, meter: CostMeter, task: Task) -> None:
        self.passes = Passes()
        self._meter = meter
        self._operations = TrainingOperations(task, meter.instrument)
        self._with_known_memory: set[tuple[str, type[Units | None]]] = set()

    @contextmanager
    def of(
        self, model: nn.Module, masks: Kept, batch: Batch, scoring: Scoring, criterion: str
    ) -> Iterator[Scoring]:
        """Count and measure a context in which a criterion scores.

        What an instrument scores is not a cost of the method, and is left out.

        Args:
            model: the network, in scoring mode.
            masks: the kept weights, by name.
            batch: a scoring batch.
            scoring: what the criterion would see.
            criterion: where it is defined.

        Yields:
            What it sees instead.
        """
        if self._meter.is_paused:
            yield scoring
            return
        counter = PassCounter()
        flow_work: list[Work] = []

        @contextmanager
        def without_signs() -> Iterator[Callable[[], Tensor]]:
            with scoring.without_signs() as flow:
                # Counted here, because its input of ones fits the network without signs only.
                with self._noting_failure():
                    flow_work[:] = [self._operations.flow(model)]
                yield counter.counted(flow, of_data=False)

        known = self._with_known_memory
        scored = criterion, type(scoring.units)
        with self._meter.scoring(measures_memory=scored not in known), counter:
            parts = {each.name: getattr(scoring, each.name) for each in fields(scoring)}
            parts["losses"] = [counter.counted(loss) for loss in scoring.losses]
            parts["without_signs"] = without_signs
            if scoring.network is not None:
                parts["network"] = scoring.network.counted(counter.counted)
            parts["inputs"] = scoring.inputs.observed_in(parts["losses"])
            yield CountedScoring(**parts, counter=counter)
        known.add(scored)
        passes = counter.data + counter.dense
        self.passes += passes
        if (passes, counter.flow) == (Passes(), Passes()):
            return
        with self._meter.instrument(takes_memory=False), self._noting_failure():
            left = elements_left(model, masks)
            macs = sum(counter.flow.macs(work, left) for work in flow_work)
            if passes != Passes():
                work = self._operations.scoring(model, batch)
                macs += counter.data.macs(work, left)
                macs += counter.dense.macs(work, left, dense=elements_left(model, {}))
            self._meter.count(macs=macs, passes=passes.forward + passes.backward)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except Uncountable as error:
            self._meter.cannot_count(str(error))


class PassCounter(TorchFunctionMode):
    """Counts the passes of one scoring, within its context.

    If a criterion adds up the losses of several batches and differentiates the sum, it takes as
    many backward passes.

    Attributes:
        data: passes over scoring batches.
        dense: those for a gradient at removed places, too.
        flow: passes of SynFlow, which take no data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.data = self.dense = self.flow = Passes()
        self._is_dense = False

    @contextmanager
    def asking(self, *, dense: bool) -> Iterator[None]:
        """Count passes over data in a context as those for a dense gradient, or not."""
        before, self._is_dense = self._is_dense, dense
        try:
            yield
        finally:
            self._is_dense = before

    def counted(self, run: Callable[[], Tensor], *, of_data: bool = True) -> Callable[[], Tensor]:
        """Return a function that computes the same, and whose passes are counted."""

        def add(passes: Passes) -> None:
            if not of_data:
                self.flow += passes
            elif self._is_dense:
                self.dense += passes
            else:
                self.data += passes

        def counting() -> Tensor:
            add(Passes(forward=1))
            value = run()
            if value.requires_grad:
                value.register_hook(lambda _: add(Passes(backward=1)))
            return value

        return counting

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        before = self.data, self.dense, self.flow
        result = func(*args, **(kwargs or {}))
        if func in _DERIVATIVES and (self.data, self.dense, self.flow) == before:
            self.data += Passes(backward=1)  # of a gradient, which does not pass through the loss
        return result


@dataclass(frozen=True)
class CountedScoring(Scoring):
    """A scoring whose passes are counted, and which notes whether a gradient is dense."""

    counter: PassCounter = field(default_factory=PassCounter)

    def gradient(
        self, *, dense: bool = False, batches: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Return the summed gradient; see `Scoring.gradient`."""
        with self.counter.asking(dense=dense):
            return super().gradient(dense=dense, batches=batches)


_DERIVATIVES = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
