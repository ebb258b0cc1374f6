"""What the paper's argument rests on, measured: gradient flow and the tangent kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from harness.scoring import Scoring, scoring_mode
from harness.seeds import derive
from harness.task import Batch, Task

PROBES = 16
"""Samples of the probe batch."""


def gradient_flow(scoring: Scoring) -> float:
    """Return the squared norm of the mean gradient over the scoring batches.

    Only the variables that are still there count.
    """
    batches = len(scoring.losses)
    return sum(
        float((gradient.double() / batches).square().sum())
        for gradient in scoring.gradient().values()
    )


class TangentKernel:
    """The empirical neural tangent kernel on a fixed probe batch.

    One scalar output per sample: the network's outputs projected on a direction that depends on
    the seed only. With J its Jacobian with respect to the parameters, the kernel is J Jᵀ
    (Jacot et al., arXiv:1806.07572). The probe is the first scoring batch: its first samples.

    Args:
        task: gives the outputs.
        batch: the probe batch.
        seed: the run's seed.
        batch_statistics: as while scoring.
    """

    def __init__(self, task: Task, batch: Batch, seed: int, batch_statistics: bool) -> None:
        self._task = task
        self._batch = batch
        self._seed = seed
        self._batch_statistics = batch_statistics
        self.reference: Tensor | None = None

    def measure(self, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, float]:
        """Compare the kernel with the first one that was measured.

        Args:
            model: whose kernel it is.
            masks: the weights that are left, by name, where some were removed.

        Returns:
            change: ‖K - K₀‖ / ‖K₀‖ in the Frobenius norm.
            alignment: ⟨K, K₀⟩ / (‖K‖ ‖K₀‖), 1 where only the scale differs.
        """
        kernel = self.kernel(model, masks)
        if self.reference is None:
            self.reference = kernel
        first = self.reference
        return {
            "change": float((kernel - first).norm() / first.norm()),
            "alignment": float((kernel * first).sum() / (kernel.norm() * first.norm())),
        }

    def kernel(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the kernel (samples, samples) in double precision.

        What was removed learns no more, so it has no part in the kernel.
        """
        probe = _Probe(self._task, model, self._batch, self._seed)
        parameters = {name: parameter.detach() for name, parameter in probe.named_parameters()}
        left = {f"model.{name}": mask for name, mask in masks.items()}

        def outputs(values: Mapping[str, Tensor]) -> Tensor:
            result: Tensor = functional_call(probe, dict(values))
            return result

        with scoring_mode(model, self._batch_statistics):
            values, pull_back, *_ = vjp(outputs, parameters)
            jacobian = []
            for direction in torch.eye(len(values), device=values.device, dtype=values.dtype):
                (gradients,) = pull_back(direction)
                row = [(g * left.get(name, 1)).flatten() for name, g in gradients.items()]
                jacobian.append(torch.cat(row))
        rows = torch.stack(jacobian).double()
        return rows @ rows.T

    def state(self) -> dict[str, Any]:
        """Return the reference kernel."""
        return {} if self.reference is None else {"reference": self.reference}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a reference kernel."""
        self.reference = state.get("reference")


class _Probe(nn.Module):
    """One scalar output for each sample of the probe batch."""

    def __init__(self, task: Task, model: nn.Module, batch: Batch, seed: int) -> None:
        super().__init__()
        self.model = model
        self._task = task
        self._batch = batch
        self._seed = derive(seed, "probe")

    def forward(self) -> Tensor:
        outputs = self._task.outputs(self.model, self._batch)[:PROBES]
        generator = torch.Generator().manual_seed(self._seed)
        direction = torch.randn(outputs[0].numel(), generator=generator)
        projected: Tensor = outputs.flatten(1) @ direction.to(outputs)
        return projected.div(len(direction) ** 0.5)
