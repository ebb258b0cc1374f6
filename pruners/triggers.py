"""When to prune: the triggers, which implement `harness.trigger.Trigger`.

A trigger is identified by its constructor arguments; everything it remembers is in ``state()``.
A method passes it to `harness.run.Run.train`, as in ``run.train(until=LazyRegime(0.02))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.scoring import Criterion
from harness.trigger import Masks, Reading
from harness.units import Units

REFERENCES = ("start", "first_epoch")
"""What `LazyRegime` can measure distances from."""


@dataclass
class LazyRegime:
    """Fires when the weights have almost stopped moving away from where they started.

    From then on training is lazy: the tangent kernel hardly changes, and the scores of a pruning
    stay valid (Rachwan et al. 2022, arXiv:2206.10451). Let ``Delta_t`` be the squared distance of
    all prunable weights from their start, relative to their squared norm there. The trigger fires
    at the end of the first epoch ``t >= 2`` with::

        |Delta_t - Delta_(t-1)| / |Delta_1| < threshold

    The published code differs from the paper. It measures distances from the weights after the
    first epoch, so that ``Delta_1`` is the distance covered in the second epoch, and does not
    square them: ``reference="first_epoch"`` and ``norm_power=1`` do the same. The code also counts
    biases and normalisation parameters, which are left out here. The trigger never fires if the
    weights did not move in the first epoch or are not finite.

    Args:
        threshold: in the paper, one minus the target sparsity.
        norm_power: 2 for squared distances, as in the paper; 1 for distances, as in the code.
        reference: "start" for the initial weights, as in the paper; "first_epoch" for those at
            the end of the first epoch, as in the code.
    """

    watches: ClassVar[None] = None
    threshold: float
    norm_power: int = 2
    reference: str = "start"
    _start: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _deltas: list[float] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse unknown norms and references."""
        if self.norm_power not in (1, 2):
            raise RequestError(f"norm_power={self.norm_power}: unknown value; known: 1, 2")
        if self.reference not in REFERENCES:
            known = ", ".join(REFERENCES)
            raise RequestError(f"reference={self.reference}: unknown value; known: {known}")

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the initial weights if they are the reference."""
        self._deltas = []
        if self.reference == "start":
            self._refer_to(weights)

    def _refer_to(self, weights: Mapping[str, Tensor]) -> None:
        self._start = {name: weight.detach().clone() for name, weight in weights.items()}
        self._deltas = [0.0]

    def after_epoch(self, weights: Mapping[str, Tensor]) -> Reading:
        """Compare the change of distance in this epoch with that in the first."""
        if not self._deltas:
            self._refer_to(weights)
            return Reading(value=None, fired=False, threshold=self.threshold)
        start = {name: self._start[name].to(weight.device) for name, weight in weights.items()}
        moved = {name: weight.detach() - start[name] for name, weight in weights.items()}
        relative = (_squared_norm(moved) / _squared_norm(start)).item()
        self._deltas.append(relative if self.norm_power == 2 else math.sqrt(relative))
        first, before, now = self._deltas[1], *self._deltas[-2:]
        value = abs(now - before) / abs(first) if first else math.nan
        if not math.isfinite(value):
            return Reading(value=None, fired=False, threshold=self.threshold)
        fired = len(self._deltas) > 2 and value < self.threshold
        return Reading(value, fired, self.threshold)

    def state(self) -> dict[str, Any]:
        """Return the reference and every Delta so far."""
        return {"start": self._start, "deltas": list(self._deltas)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._start, self._deltas = dict(state["start"]), list(state["deltas"])


@dataclass
class AtEpoch:
    """Fires at the end of a given epoch.

    Args:
        epoch: counted from one, from the beginning of the training that it watches.
    """

    watches: ClassVar[None] = None
    epoch: int
    _ended: int = field(default=0, init=False, repr=False, compare=False)

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Start counting."""
        self._ended = 0

    def after_epoch(self, weights: Mapping[str, Tensor]) -> Reading:
        """Count the epoch."""
        self._ended += 1
        return Reading(float(self._ended), fired=self._ended >= self.epoch)

    def state(self) -> dict[str, Any]:
        """Return the number of epochs that have ended."""
        return {"ended": self._ended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._ended = state["ended"]


@dataclass
class MaskDistance:
    """Fires when the mask that pruning would draw has settled: the early-bird ticket.

    It fires at the end of an epoch if the newest mask differs from each of the ``epochs - 1``
    masks before it in less than ``threshold`` of all entries (You et al. 2020, arXiv:1909.11957).

    Args:
        units: the units that would be pruned.
        criterion: the criterion that would score them.
        target: the sparsity of the mask.
        threshold: the distance, a fraction of all entries, below which masks have settled.
        epochs: the number of masks that are compared, one per epoch.
    """

    units: type[Units]
    criterion: Criterion
    target: float
    threshold: float = 0.1
    epochs: int = 5
    _masks: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def watches(self) -> Masks:
        """Return the masks that this trigger needs."""
        return Masks(self.units, self.criterion, self.target)

    def begin(self, masks: Mapping[str, Tensor]) -> None:
        """Forget earlier masks, and ignore the mask of the initial weights."""
        self._masks = []

    def after_epoch(self, masks: Mapping[str, Tensor]) -> Reading:
        """Compare the mask of this epoch with earlier ones."""
        newest = torch.cat([mask.flatten() for mask in masks.values()])
        older = self._masks[-(self.epochs - 1) :]
        self._masks = [*older, newest]
        if len(older) < self.epochs - 1:
            return Reading(value=None, fired=False, threshold=self.threshold)
        distance = max(float((newest != mask.to(newest.device)).double().mean()) for mask in older)
        return Reading(distance, distance < self.threshold, self.threshold)

    def state(self) -> dict[str, Any]:
        """Return the latest masks."""
        return {"masks": list(self._masks)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._masks = list(state["masks"])


# The lower-case names are for methods of plug-ins that use them.
lazy_regime = LazyRegime
"""Another name of `LazyRegime`."""
at_epoch = AtEpoch
"""Another name of `AtEpoch`."""
mask_distance = MaskDistance
"""Another name of `MaskDistance`."""


def _squared_norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of all squares, in double precision."""
    norms = [torch.linalg.vector_norm(x, dtype=torch.float64) for x in tensors.values()]
    return torch.stack(norms).square().sum()
