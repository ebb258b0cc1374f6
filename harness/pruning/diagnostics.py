"""The quantities on which the paper's argument rests: gradient flow and the tangent kernel."""

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

    Only the remaining variables count.
    """
    batches = len(scoring.losses)
    return sum(
        float((gradient.double() / batches).square().sum())
        for gradient in scoring.gradient().values()
    )


class TangentKernel:
    """The empirical neural tangent kernel on a fixed probe batch.

    Each sample has one scalar output: the network's outputs projected on a direction that depends
    only on the seed. With J its Jacobian with respect to the parameters, the kernel is J Jᵀ
    (Jacot et al., arXiv:1806.07572). The probe batch is the beginning of the first scoring batch.

    Args:
        task: computes the outputs.
        batch: the probe batch.
        seed: the run's seed.
        batch_statistics: whether BatchNorm uses batch statistics, as while scoring.
    """

    def __init__(self, task: Task, batch: Batch, seed: int, batch_statistics: bool) -> None:
        self._task = task
        self._batch = batch
        self._seed = seed
        self._batch_statistics = batch_statistics
        self._kernels: dict[str, Tensor] = {}

    def start(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Measure the initial kernel."""
        self._kernels = {"initial": self.kernel(model, masks)}
        self._kernels["latest"] = self._kernels["initial"]

    def after_epoch(self, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """Compare the kernel with the initial one and with the one measured last.

        The last one was measured at the end of the previous epoch, or after a pruning or rewinding
        since then. Norms are Frobenius norms.

        Args:
            model: the network.
            masks: the kept weights by name, for weights that were pruned.

        Returns:
            change: ‖K - K₀‖ / ‖K₀‖.
            alignment: ⟨K, K₀⟩ / (‖K‖ ‖K₀‖), 1 where only the scale differs.
            epoch_change: ‖Kₜ - Kₜ₋₁‖ / ‖Kₜ₋₁‖.
            drift: ‖Kₜ - Kₜ₋₁‖ / ‖K₁ - K₀‖, which is 1 for the first epoch.
            matrix: the kernel, rows of samples.
        """
        initial, before = self._kernels["initial"], self._kernels["latest"]
        kernel = self._kernels["latest"] = self.kernel(model, masks)
        first = self._kernels.setdefault("after_first_epoch", kernel)
        moved = distance(kernel, before)
        return {
            "change": relative(distance(kernel, initial), initial),
            "alignment": alignment(kernel, initial),
            "epoch_change": relative(moved, before),
            "drift": relative(moved, first - initial),
            "matrix": rows_of(kernel),
        }

    def after_pruning(self, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """Compare the kernel with the one before the pruning, which was measured last.

        Args:
            model: the network.
            masks: the kept weights by name, for weights that were pruned.

        Returns:
            change: ‖K_after - K_before‖ / ‖K_before‖.
            alignment: ⟨K_after, K_before⟩ / (‖K_after‖ ‖K_before‖).
            before, after: the kernels, rows of samples.
        """
        before = self._kernels["latest"]
        kernel = self._kernels["latest"] = self.kernel(model, masks)
        return {
            "change": relative(distance(kernel, before), before),
            "alignment": alignment(kernel, before),
            "before": rows_of(before),
            "after": rows_of(kernel),
        }

    def measure(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Measure the kernel with which the next one is compared."""
        self._kernels["latest"] = self.kernel(model, masks)

    def kernel(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the kernel (samples, samples) in double precision.

        Removed weights do not learn, so they take no part in the kernel.
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

    def state(self) -> dict[str, Tensor]:
        """Return the kernels with which later ones are compared."""
        return dict(self._kernels)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state."""
        self._kernels = dict(state)


def distance(kernel: Tensor, other: Tensor) -> float:
    """Return the Frobenius norm of the difference of two kernels."""
    return float((kernel - other).norm())


def alignment(kernel: Tensor, other: Tensor) -> float | None:
    """Return the cosine of the angle between two kernels; None if one of them is zero."""
    norms = float(kernel.norm() * other.norm())
    return float((kernel * other).sum()) / norms if norms else None


def relative(length: float, reference: Tensor) -> float | None:
    """Return a length as a multiple of the norm of the reference; None if that is zero."""
    norm = float(reference.norm())
    return length / norm if norm else None


def rows_of(kernel: Tensor) -> list[list[float]]:
    """Return a kernel with seven significant digits, for the record."""
    return [[float(f"{value:.7g}") for value in row] for row in kernel.tolist()]


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
