"""The training loop: one model, one optimizer, one stream of batches, two clocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import Diverged, RunFailed, place
from harness.operations import Penalty
from harness.seeds import derive
from harness.task import Batch, Split, Task
from harness.trained_network import TrainedNetwork
from harness.training.distillation import Teacher
from harness.training.evaluation import evaluate
from harness.training.kernels import DENSE, DENSE_EXECUTION, Execution, Kernels
from harness.training.optimization import build_optimiser, build_schedule
from harness.training.precision import FLOAT32, Precision
from harness.units import Kept, Units, all_masks

AfterBackward = Callable[[nn.Module], None]
"""Reads the gradients of a step."""

UnitsOf = Callable[[str], type[Units]]
"""Finds a kind of units by its registered name."""


class Trainer:
    """A model in training.

    ``position`` (in steps) is rewound, and decides the learning rate and the data order; ``spent``
    is never rewound, and decides budget and cost. All randomness of a step is a function of the
    seed and the position, so no generator's state has to be saved.

    Args:
        task: gives model, data and recipe.
        seed: the run's seed.
        schedule: a name in `harness.training.optimization.SCHEDULES`.
        precision: precision and layout of a step.
        initial: the trained network to start from; None for new weights drawn from the seed.
        warmup: the share of the budget over which the learning rate rises.
        teacher: a network whose outputs are learnt beside the data; None for the data alone.

    Raises:
        RequestError: ``initial`` is another network.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        schedule: str,
        precision: Precision = FLOAT32,
        initial: TrainedNetwork | None = None,
        warmup: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:
        recipe = task.recipe
        self.task = task
        self.seed = seed
        self.kernels = DENSE
        self.precision = precision
        self._initial = initial
        self._begin()
        steps = recipe.epochs * task.steps_per_epoch
        self.schedule = build_schedule(schedule, recipe.learning_rate, steps, warmup)
        self.spent = 0
        self.anchor: int | None = None
        self._clip = float(recipe.clip)
        self.teacher = teacher

    def _begin(self) -> None:
        """Build the dense network of the seed, its batches and its optimizer."""
        task = self.task
        torch.manual_seed(derive(self.seed, "weights"))
        self.model = task.model().to(task.device)
        if self._initial is not None:
            self._initial.load_into(self.model)
        self.stream = task.stream(self.model, self.seed)
        self.optimiser = build_optimiser(self.model.parameters(), task.recipe)
        self.units: dict[str, Units] = {}
        self._execution = DENSE_EXECUTION
        self.position = 0
        self._loss_sum = torch.zeros((), device=task.device)
        self._loss_count = 0

    @property
    def end(self) -> int:
        """The position at which the budget ends."""
        return self.schedule.length(self.anchor)

    def masks(self) -> Kept:
        """Return the masks of the weights that are zeroed in place, by name."""
        return all_masks(self.units.values())

    def use(self, kernels: Kernels) -> None:
        """Execute the network with these kernels from now on; `DENSE` releases it from them."""
        self.kernels = kernels
        self.follow_units()

    def follow_units(self) -> None:
        """Let sparse kernels follow the masks; to be called whenever units have changed."""
        self._execution = Execution(self.kernels, self.model, self.masks())

    def evaluate(self, split: Split, metric: str | None = None) -> dict[str, float]:
        """Return the task's metrics of the network; see `harness.training.evaluation.evaluate`."""
        with self._execution.evaluation():
            return evaluate(self.task, self.model, split, metric)

    def step(
        self, penalty: Penalty | None = None, after_backward: AfterBackward | None = None
    ) -> Batch:
        """Take one optimizer step, densely if somebody reads the gradients; return its batch.

        Sparse kernels give no gradients of removed weights.
        """
        self._seed_step()
        batch = self.stream.next(self.model)
        self._set_rate()
        self.model.train()
        loss = update(
            self.task,
            self.model,
            self.optimiser,
            tuple(self.units.values()),
            batch,
            self._clip,
            penalty,
            after_backward,
            self.precision,
            self._execution if after_backward is None else DENSE_EXECUTION,
            self.teacher,
        )
        self._loss_sum += loss
        self._loss_count += 1
        self.position += 1
        self.spent += 1
        return batch

    def _seed_step(self) -> None:
        seed = derive(self.seed, "step", self.position)
        # A hundred times faster than torch.manual_seed.
        torch.default_generator.manual_seed(seed)
        if self.task.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def mean_loss(self) -> float:
        """Return the mean training loss since the last call.

        Raises:
            Diverged: the loss, or a weight after the last step, is not finite.
        """
        mean = float(self._loss_sum) / max(self._loss_count, 1)
        self._loss_sum.zero_()
        self._loss_count = 0
        if mean - mean != 0:
            raise Diverged(f"the training loss became {mean} before step {self.position}")
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            raise Diverged(f"the weights were not finite after step {self.position}")
        return mean

    def _set_rate(self) -> None:
        rate = self.schedule.at(self.position, self.anchor)
        for group in self.optimiser.param_groups:
            group["lr"] = rate.learning_rate
            if rate.momentum is not None and "betas" in group:
                group["betas"] = (rate.momentum, group["betas"][1])
            elif rate.momentum is not None:
                group["momentum"] = rate.momentum

    def snapshot(self) -> dict[str, Any]:
        """Return what rewinding restores: weights, optimizer, place in schedule and data."""
        return {
            "units": {name: units.state() for name, units in self.units.items()},
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "stream": self.stream.state(),
            "position": self.position,
            "loss": [float(self._loss_sum), self._loss_count],
        }

    def rewind(self, snapshot: Mapping[str, Any], weights: bool = True) -> None:
        """Return to a snapshot; what is pruned stays pruned.

        The network may have been larger then. So a dense one is built, cut to its size at the
        snapshot, filled, and cut again to its present size.

        Args:
            snapshot: the moment.
            weights: whether weights and optimizer return to it, and not only schedule and data.
        """
        model, optimiser = self.model.state_dict(), self.optimiser.state_dict()
        kinds = {name: type(units) for name, units in self.units.items()}
        pruned = {name: units.state() for name, units in self.units.items()}
        self._begin()
        self._load(snapshot, kinds.__getitem__)
        self._remove(pruned, kinds.__getitem__)
        if not weights:
            self.optimiser.load_state_dict(optimiser)
            for network in (self.model, *self.stream.companions):
                network.load_state_dict(model)
        self.follow_units()
        self.anchor = None if self.anchor is None else self.position

    def remove_again(self) -> None:
        """Prune again, after training diverged and left NaN in pruned weights."""
        for units in self.units.values():
            units.apply(self.model, self.optimiser, self.stream.companions, units.alive())

    def redraw(self) -> None:
        """Draw new weights for the remaining network; pruned units stay pruned."""
        torch.manual_seed(derive(self.seed, "redrawn weights"))
        drawn = self.task.model().to(self.task.device)
        for units in self.units.values():
            type(units)(drawn, self.task.forward).restore(drawn, units.state())
        for model in (self.model, *self.stream.companions):
            model.load_state_dict(drawn.state_dict())
        self.optimiser.state.clear()

    def state(self) -> dict[str, Any]:
        """Return the state from which another process can continue."""
        kernels = {} if self.kernels == DENSE else {"kernels": asdict(self.kernels)}
        return {**self.snapshot(), "spent": self.spent, "anchor": self.anchor, **kernels}

    def restore(self, state: Mapping[str, Any], units_of: UnitsOf) -> None:
        """Continue from a state in a new process; ``units_of`` finds units by name."""
        self._load(state, units_of)
        self.spent = state["spent"]
        self.anchor = state["anchor"]
        self.use(Kernels(**state.get("kernels", {})))

    def _load(self, state: Mapping[str, Any], units_of: UnitsOf) -> None:
        """Prune the new dense network as in a state, and load its weights."""
        self._remove(state["units"], units_of)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.stream.restore(state["stream"])
        self.position = state["position"]
        self._loss_sum.fill_(state["loss"][0])
        self._loss_count = state["loss"][1]

    def _remove(self, states: Mapping[str, Mapping[str, Any]], units_of: UnitsOf) -> None:
        """Remove everything that is removed in the states of units."""
        for name, state in states.items():
            if name not in self.units:
                self.units[name] = units_of(name)(self.model, self.task.forward)
            self.units[name].restore(self.model, state, self.optimiser, self.stream.companions)


def update(
    task: Task,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    units: Sequence[Units],
    batch: Batch,
    clip: float,
    penalty: Penalty | None = None,
    after_backward: AfterBackward | None = None,
    precision: Precision = FLOAT32,
    execution: Execution = DENSE_EXECUTION,
    teacher: Teacher | None = None,
) -> Tensor:
    """Compute one training step and return its loss, detached.

    Pruned weights take no part in the gradient norm and in the optimizer's moments, and are zero
    afterwards.
    """
    optimiser.zero_grad(set_to_none=True)
    with execution.passes():
        loss = differentiate(task, model, batch, penalty, precision, teacher)
    if after_backward is not None:
        after_backward(model)
    for each in units:
        each.before_step(model)
    if clip > 0:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    execution.step(optimiser)
    for each in units:
        each.after_step(model)
    return loss


def differentiate(
    task: Task,
    model: nn.Module,
    batch: Batch,
    penalty: Penalty | None = None,
    precision: Precision = FLOAT32,
    teacher: Teacher | None = None,
) -> Tensor:
    """Compute the gradients of the loss of a batch, and return the loss, detached."""
    loss_of = task.loss if teacher is None else teacher.loss
    with precision.autocast(task.device):
        loss = loss_of(model, precision.laid_out(batch))
    _require_loss(task, loss)
    objective = loss if penalty is None else loss + penalty(model)
    objective.backward()
    return loss.detach()


def _require_loss(task: Task, loss: object) -> None:
    """Check that a task returned a loss.

    Raises:
        RunFailed: it is not a scalar that depends on the model.
    """
    if not isinstance(loss, Tensor):
        raise RunFailed(f"{place(task.loss)} returned a {type(loss).__name__}, not a tensor")
    if loss.shape != ():
        raise RunFailed(
            f"{place(task.loss)} returned a tensor of shape {tuple(loss.shape)}; a loss is a "
            "scalar: return its mean"
        )
    if not loss.requires_grad:
        raise RunFailed(
            f"{place(task.loss)} returned a loss that depends on no trainable parameter"
        )
