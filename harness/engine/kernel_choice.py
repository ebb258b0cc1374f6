"""Which masked layers a run executes with sparse kernels: measured once for each pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from harness.record import SparseKernels
from harness.settings import Recipe
from harness.task import Batch, Task
from harness.training.kernels import DENSE, Kernels
from harness.training.optimization import build_optimiser
from harness.training.precision import Precision
from harness.training.trainer import Trainer, differentiate
from harness.units import Kept

_SECONDS, _SMOKE_SECONDS = 0.1, 0.01
"""How long each layer, and each kind of optimizer step, is measured."""


class KernelChoice:
    """Chooses kernels for the network in training.

    Sparse kernels round in their own way, so an interrupted run has to use them in the same layers
    again. Its choices are part of the journal and of checkpoints.

    Args:
        trainer: the network in training.
        batch: on which a forward and a backward pass are measured.
        is_smoke: whether short measurements are enough.
        alone: a context in which no other process of this project measures on the device.
        report: receives lines of progress.
    """

    def __init__(
        self,
        trainer: Trainer,
        batch: Batch,
        is_smoke: bool,
        alone: Callable[[], AbstractContextManager[None]],
        report: Callable[[str], None],
    ) -> None:
        self._trainer = trainer
        self._batch = batch
        self._seconds = _SMOKE_SECONDS if is_smoke else _SECONDS
        self._alone = alone
        if not torch.backends.mkl.is_available():
            report("kernels=sparse: this torch has no MKL; its own sparse kernels are tried")

    def after_pruning(
        self, earlier: Mapping[str, Any] | None, measured: bool
    ) -> SparseKernels | None:
        """Choose, let the trainer follow, and return what the record says of it.

        Of frequent prunings, which are not measured, only one that has left half as many weights
        as there were at the last choice is followed by a new one.

        Args:
            earlier: the choice of an earlier attempt of the run; None to measure.
            measured: whether the pruning is.
        """
        trainer, masks = self._trainer, self._trainer.masks()
        left = sum(int(mask.count_nonzero()) for mask in masks.values())
        before = trainer.kernels.weights
        if before is None:
            before = sum(mask.numel() for mask in masks.values())
        if not measured and (not masks or left > before / 2):
            trainer.follow_units()
            return None
        trainer.use(DENSE)
        if earlier is not None:
            chosen = cast(SparseKernels, earlier)
        else:
            with self._alone():
                chosen = measured_kernels(
                    trainer.task,
                    trainer.model,
                    masks,
                    self._batch,
                    trainer.task.recipe,
                    trainer.precision,
                    self._seconds,
                )
        trainer.use(replace(kernels_of(chosen), weights=left))
        return chosen


def kernels_of(chosen: SparseKernels) -> Kernels:
    """Return what a trainer needs to know of a choice."""
    return Kernels(tuple(chosen["layers"]), chosen["contiguous"], chosen["steps"])


def measured_kernels(
    task: Task,
    model: nn.Module,
    masks: Kept,
    batch: Batch,
    recipe: Recipe,
    precision: Precision,
    seconds: float = _SECONDS,
) -> SparseKernels:
    """Measure with which kernels a training step is fastest; the model stays as it is.

    Args:
        task: gives the loss.
        model: the network.
        masks: what survives, by the weight's name.
        batch: on which a forward and a backward pass are measured.
        recipe: gives the optimizer.
        precision: precision and layout of a step.
        seconds: how long to measure each layer, and each kind of optimizer step.
    """
    chosen: SparseKernels = {
        "layers": [],
        "dense": {},
        "passes": None,
        "contiguous": False,
        "steps": False,
        "step": None,
    }
    masks = {name: mask for name, mask in masks.items() if not bool(mask.all())}
    if not masks:
        return chosen
    # Imported here because it imports SciPy, which other runs do not need.
    from harness.sparse_kernels import CLEARLY_FASTER, choose_kernels, ratio_of_steps

    def passes() -> None:
        model.zero_grad(set_to_none=True)
        differentiate(task, model, batch, precision=precision)

    training = model.training
    model.train()
    try:
        choice = choose_kernels(model, masks, passes, training=True, seconds=seconds)
    finally:
        model.train(training)
    build_optimizer = partial(build_optimiser, recipe=recipe)
    chosen["step"] = step = ratio_of_steps(model, masks, build_optimizer, seconds)
    chosen["steps"] = step <= CLEARLY_FASTER
    chosen["layers"] = list(choice.layers)
    chosen["contiguous"] = choice.contiguous
    chosen["passes"] = choice.ratio if choice.layers else choice.ratio_all_sparse
    for name, reason in choice.reasons.items():
        chosen["dense"].setdefault(reason, []).append(name)
    return chosen
