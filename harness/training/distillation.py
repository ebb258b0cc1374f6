"""Learning from the outputs of a teacher, beside the data (``teacher=RUN``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.conditions import Conditions
from harness.errors import RequestError, Skip
from harness.spec import Plan
from harness.task import Batch, Task


class Teacher:
    """A trained network whose outputs another network learns to give.

    The training loss of a run with a teacher is::

        (1 - weight) * L + weight * D

    ``L`` is the task's loss, and ``D`` compares the outputs of both networks for the same batch,
    augmentation included. ``D`` is `divergence` for logits, and the mean squared difference for
    values. The teacher is in evaluation mode and never changes.

    Criteria score by the task's own loss, without the teacher.

    Args:
        task: says what networks return.
        model: the teacher.
        weight: the condition ``distill_weight``.
        temperature: the condition ``temperature``; for logits only.

    Raises:
        Skip: the task does not say what its networks return.
    """

    def __init__(self, task: Task, model: nn.Module, weight: float, temperature: float) -> None:
        if task.outputs_are is None:
            raise Skip(
                f"{type(task).__name__} cannot have a teacher: it does not say whether its "
                "outputs_are 'logits' or 'values'"
            )
        self._task = task
        self.model = model.eval().requires_grad_(False)
        self._weight = weight
        self._temperature = temperature

    @classmethod
    def of(cls, plan: Plan, task: Task) -> Teacher | None:
        """Return the teacher of a run; None for a run without one.

        Raises:
            Skip: the task does not say what its networks return.
            RequestError: the teacher is damaged or another network, or there is a temperature for
                outputs that are no logits.
        """
        if plan.teacher is None:
            return None
        conditions = plan.conditions
        if task.outputs_are == "values" and conditions.temperature != Conditions.temperature:
            raise RequestError(
                f"temperature={conditions.temperature:g} is for logits; the outputs of "
                f"{plan.spec.task} are values"
            )
        model = task.model().to(task.device)
        plan.teacher.load_into(model)
        return cls(task, model, conditions.distill_weight, conditions.temperature)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the training loss of a network that learns from the teacher, a scalar."""
        loss, outputs = self._task.loss_and_outputs(model, batch)
        with torch.no_grad():
            _, taught = self._task.loss_and_outputs(self.model, batch)
        if self._task.outputs_are == "logits":
            difference = divergence(outputs, taught, self._temperature)
        else:
            difference = F.mse_loss(outputs, taught)
        return (1 - self._weight) * loss + self._weight * difference


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 KL(softmax(taught / T) || softmax(logits / T))``, the mean over all samples.

    Softened targets are those of Hinton et al. 2015 (arXiv:1503.02531). The factor ``T^2`` keeps
    the size of the gradients independent of the temperature.

    Args:
        logits: of the network in training (..., classes); log-probabilities will do.
        taught: of the teacher, likewise.
        temperature: ``T``.
    """
    student, teacher = (F.log_softmax(each / temperature, dim=-1) for each in (logits, taught))
    pointwise = F.kl_div(student, teacher, reduction="none", log_target=True)
    return temperature**2 * pointwise.sum(-1).mean()
