"""A network as a program: what it takes and returns, and its code as plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RunFailed
from harness.export import formats
from harness.export.export import FORMATS
from harness.export.plain_torch import write_plain_torch
from harness.export.program import Computation, Program, trace
from harness.network import Network
from harness.results.example import example
from harness.storage.store import Store
from tests.helpers.points import Points
from tests.helpers.workbench import CPU


class Handed(Points):
    """The points, six numbers for each sample, and further arguments for the network."""

    further: Mapping[str, Any] = {}

    def inference(self, model: nn.Module, batch: Any) -> Any:
        points, _ = batch
        further = {name: make(points) for name, make in self.further.items()}
        return model(points, **further)


def program_of(model: nn.Module, **further: Callable[[Tensor], Any]) -> Program:
    """Return the program of a network that takes the points, and what is made of them."""
    task = Handed({"batch_size": 4, "source": "synthetic"}, Path(), CPU)
    task.further = further
    return trace(Network(task, model.eval(), {}), 5, seed=0)


def loaded(program: Program, folder: Path) -> Computation:
    write_plain_torch(program, folder, "a run")
    return formats.load("safetensors", folder)


class Centred(nn.Module):
    """Has a parameter of its own, a buffer, a constant, tied weights, and three outputs."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([1.0, 2, 3, 4, 5, 6]))
        self.register_buffer("mean", torch.full((6,), 0.5))
        self.inner = nn.ModuleDict({"first": nn.Linear(6, 6), "second": nn.Linear(6, 6)})
        self.inner["second"].weight = self.inner["first"].weight

    def forward(self, points: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        moved = points - self.mean + self.shift
        places = torch.arange(6, device=points.device)
        hidden = self.inner["second"](self.inner["first"](moved)).relu_()
        return hidden * places, {"moved": moved, "constant": moved * torch.tensor(2.0)}


def test_all_kinds_of_tensors_and_outputs_survive(tmp_path: Path) -> None:
    program = program_of(Centred())
    network = loaded(program, tmp_path)
    for size in (1, 2, 5):
        wanted, found = program.outputs(size), program.outputs(size, network)
        assert len(wanted) == 3
        assert all(torch.equal(*pair) for pair in zip(wanted, found, strict=True))


def test_inputs_and_outputs_have_names_and_shapes() -> None:
    inputs, outputs = program_of(Centred()).shapes()
    assert inputs == {"points": ["batch", 6]}
    assert outputs == {f"output_{place}": ["batch", 6] for place in range(3)}
    assert program_of(nn.Linear(6, 2)).shapes()[1] == {"output": ["batch", 2]}


def test_the_loaded_network_has_the_parameters_and_buffers_of_the_original(tmp_path: Path) -> None:
    network = loaded(program_of(Centred()), tmp_path)
    assert isinstance(network, nn.Module)
    names = [name for name, _ in network.named_parameters()]
    assert names == ["shift", "inner.first.weight", "inner.first.bias", "inner.second.bias"]
    assert "mean" in dict(network.named_buffers())
    assert torch.equal(network.get_parameter("shift"), torch.tensor([1.0, 2, 3, 4, 5, 6]))


def test_the_plain_network_computes_on_the_device_of_its_inputs(tmp_path: Path) -> None:
    """Tensors without storage stand in for those of a GPU."""
    network = loaded(program_of(Centred()), tmp_path)
    assert isinstance(network, nn.Module)
    first, *_ = network.to("meta")(torch.zeros(2, 6, device="meta"))
    assert first.device.type == "meta"


def test_the_plain_network_can_be_trained_further(tmp_path: Path) -> None:
    network = loaded(program_of(nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.5))), tmp_path)
    assert isinstance(network, nn.Module)
    network(torch.ones(3, 6)).sum().backward()
    gradient = network.get_parameter("0.weight").grad
    assert gradient is not None
    assert torch.equal(gradient, torch.full((2, 6), 3.0))


def test_two_inputs_have_one_number_of_samples_in_every_format(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, points: Tensor, right: Tensor) -> Tensor:
            return points + 2 * right

    program = program_of(Sum(), right=lambda points: points.flip(1))
    for name, each in FORMATS.items():
        if all(find_spec(package) for package in each.needs):
            folder = tmp_path / name
            folder.mkdir()
            formats.write(name, program, folder, example(), Store(tmp_path))
            assert formats.difference(name, program, folder, (1, 5)) == (0, 0)


@pytest.mark.parametrize("scale", [2.0, torch.tensor(2.0), torch.ones(3)])
def test_a_network_that_takes_anything_but_samples_is_refused(scale: Any) -> None:
    class Scaled(nn.Module):
        def forward(self, points: Tensor, scale: Any) -> Tensor:
            return points

    with pytest.raises(RunFailed, match=r"calls the network with \(points, scale\), which are not"):
        program_of(Scaled(), scale=lambda points: scale)


def test_a_network_that_decides_by_its_data_is_refused() -> None:
    class Undecided(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return points if points.sum() > 0 else -points

    with pytest.raises(RunFailed) as refused:
        program_of(Undecided())
    (line,) = str(refused.value).splitlines()
    assert line.startswith("torch.export cannot trace the network: ")


def test_no_folder_of_this_machine_is_named(tmp_path: Path) -> None:
    program = program_of(nn.Linear(6, 2))
    write_plain_torch(program, tmp_path, "a run")
    torch.export.save(program.exported, tmp_path / "network.pt2")
    for file in tmp_path.iterdir():
        assert str(Path(torch.__file__).parent).encode() not in file.read_bytes(), file
