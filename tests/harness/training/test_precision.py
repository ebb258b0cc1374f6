"""Precision and memory layout apply to training steps alone."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from harness.network import build_task
from harness.pruning.event import digest
from harness.task import Batch, Task
from harness.training.precision import FLOAT32, Precision
from harness.training.trainer import Trainer, update
from tests.helpers.workbench import CPU, Workbench


class Watched:
    """A task that remembers the images its loss was given and the outputs of the network."""

    device = CPU

    def __init__(self) -> None:
        self.images = self.outputs = torch.empty(0)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.images, self.outputs = batch[0], model(batch[0])
        return nn.functional.cross_entropy(self.outputs.mean((2, 3)), batch[1])


def step(precision: Precision) -> tuple[Watched, nn.Module, Tensor]:
    """Take a step of two convolutions on four images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    batch = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    task = Watched()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = update(cast(Task, task), model, optimiser, (), batch, 0.0, precision=precision)
    return task, model, loss


def test_a_step_in_bfloat16_keeps_weights_loss_and_gradients_in_float32() -> None:
    task, model, loss = step(Precision(dtype="bfloat16"))
    assert task.outputs.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert {w.dtype for w in model.parameters()} == {torch.float32}
    assert {w.grad.dtype for w in model.parameters() if w.grad is not None} == {torch.float32}
    _, exact, exact_loss = step(FLOAT32)
    assert loss != exact_loss
    assert float(loss) == pytest.approx(float(exact_loss), rel=0.02)
    torch.testing.assert_close(
        model.get_parameter("0.weight"), exact.get_parameter("0.weight"), atol=0.01, rtol=0.05
    )


def test_channels_last_changes_the_layout_and_no_value() -> None:
    task, model, loss = step(Precision(channels_last=True))
    plain, expected, expected_loss = step(FLOAT32)
    assert task.images.is_contiguous(memory_format=torch.channels_last)
    assert task.outputs.is_contiguous(memory_format=torch.channels_last), "layers keep the layout"
    assert plain.images.is_contiguous()
    assert torch.equal(task.images, plain.images)
    torch.testing.assert_close(loss, expected_loss)
    weight = model.get_parameter("0.weight")
    torch.testing.assert_close(weight, expected.get_parameter("0.weight"))
    assert weight.is_contiguous()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((2, 3, 4, 5), torch.channels_last), ((2, 3, 4, 5, 6), torch.channels_last_3d)],
)
def test_images_and_volumes_are_laid_out_anywhere_in_a_batch(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    table = torch.zeros(2, 3)
    laid_out = Precision(channels_last=True).laid_out({"deep": [torch.zeros(shape)], "t": table})
    assert laid_out["deep"][0].is_contiguous(memory_format=layout)
    assert laid_out["t"] is table


def test_a_run_trains_in_the_precision_of_its_conditions_and_scores_in_float32(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, torch.dtype] = {}
    loss = bench.points.loss

    def watched(task: Task, model: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            seen["training" if model.training else "scoring"] = task.outputs(model, batch).dtype
        return loss(task, model, batch)

    monkeypatch.setattr(bench.points, "loss", watched)
    record = bench.run("crop_u", precision="bfloat16")
    assert record["status"] == "done"
    assert record["spec"]["overrides"] == {"precision": "bfloat16"}
    assert seen == {"training": torch.bfloat16, "scoring": torch.float32}


def test_precision_decides_the_result_and_the_identity_of_a_run(bench: Workbench) -> None:
    plans = [bench.plan("dense"), bench.plan("dense", precision="bfloat16")]
    assert plans[0].identity != plans[1].identity

    def trained(plan: Any) -> str:
        precision = Precision.of(plan.conditions)
        trainer = Trainer(build_task(plan, CPU), 0, "equal", precision)
        trainer.step()
        return digest(trainer.model.state_dict())

    assert trained(plans[0]) != trained(plans[1])
