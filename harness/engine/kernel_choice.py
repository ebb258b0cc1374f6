"""After each pruning: which masked layers a run executes with sparse kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

from harness.record import SparseKernels
from harness.settings import Recipe
from harness.task import Batch
from harness.training.kernels import DENSE, Kernels
from harness.training.optimization import build_optimiser
from harness.training.trainer import Trainer, differentiate

_SECONDS, _SMOKE_SECONDS = 0.1, 0.01
"""How long each layer, and each kind of optimizer step, is measured."""


class KernelChoice:
    """Chooses kernels by measurement, once for each pruning.

    Other kernels round differently. So an interrupted run must use the same layers again: they
    are part of the journal and of each checkpoint.

    Args:
        trainer: the network in training.
        batch: on which a forward and a backward pass are timed.
        recipe: gives the optimizer.
        is_smoke: whether short measurements are enough.
        alone: a context in which no other process of this project measures on the device.
    """

    def __init__(
        self,
        trainer: Trainer,
        batch: Batch,
        recipe: Recipe,
        is_smoke: bool,
        alone: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._trainer = trainer
        self._batch = batch
        self._recipe = recipe
        self._seconds = _SMOKE_SECONDS if is_smoke else _SECONDS
        self._alone = alone

    def after_pruning(self, earlier: Mapping[str, Any] | None) -> SparseKernels:
        """Choose, let the trainer follow, and return what the record says of it.

        Args:
            earlier: what the journal says, if an earlier attempt of the run has chosen.
        """
        self._trainer.use(DENSE)
        chosen = self._measured() if earlier is None else cast(SparseKernels, earlier)
        self._trainer.use(Kernels(tuple(chosen["layers"]), chosen["contiguous"], chosen["steps"]))
        return chosen

    def _measured(self) -> SparseKernels:
        trainer = self._trainer
        masks = {name: mask for name, mask in trainer.masks().items() if not bool(mask.all())}
        if not masks:
            return {
                "layers": [],
                "dense": {},
                "passes": None,
                "contiguous": False,
                "steps": False,
                "step": None,
            }
        # Imported here because it imports SciPy, which other runs do not need.
        from harness.sparse_kernels import CLEARLY_FASTER, choose_kernels, ratio_of_steps

        model, training = trainer.model, trainer.model.training
        model.train()
        try:
            with self._alone():
                choice = choose_kernels(
                    model, masks, self._passes, training=True, seconds=self._seconds
                )
                step = ratio_of_steps(
                    model, masks, partial(build_optimiser, recipe=self._recipe), self._seconds
                )
        finally:
            model.train(training)
        dense: dict[str, list[str]] = {}
        for name, reason in choice.reasons.items():
            dense.setdefault(reason, []).append(name)
        return {
            "layers": list(choice.layers),
            "dense": dense,
            "passes": choice.ratio if choice.layers else choice.ratio_all_sparse,
            "contiguous": choice.contiguous,
            "steps": step <= CLEARLY_FASTER,
            "step": step,
        }

    def _passes(self) -> None:
        trainer = self._trainer
        trainer.model.zero_grad(set_to_none=True)
        differentiate(trainer.task, trainer.model, self._batch, precision=trainer.precision)
