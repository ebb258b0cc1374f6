"""The file of a network: what it contains comes back, and damage is noticed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.errors import RequestError, RunFailed
from harness.storage.network_file import load, load_weights, save_weights
from tests.helpers.first_format import write_first_format


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def assert_same(loaded: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert loaded[name].shape == tensor.shape, name
        assert bits(loaded[name]) == bits(tensor), name


def stored_names(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def pruned(shape: tuple[int, ...], density: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < density
    return torch.randn(shape, generator=generator).masked_fill(~mask, 0), mask


def test_a_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    weight, mask = pruned((30, 4, 3, 3), 0.1)
    state = {
        "pruned.weight": weight,
        "odd": torch.tensor([-0.0, torch.nan, torch.inf, 1e-45]),
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "double": torch.randn(2).double(),
        "counter": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "nothing": torch.zeros(0, 3),
        "images": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 5).T,
        "name:with.colon": torch.ones(1),
    }
    size = save_weights(tmp_path / "weights", state, {"pruned.weight": mask})
    assert size == (tmp_path / "weights").stat().st_size
    assert_same(load_weights(tmp_path / "weights"), state)


def test_a_saved_network_gives_the_same_outputs(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 5)).eval()
    weight, mask = pruned((30, 40), 0.05)
    model[0].load_state_dict({"weight": weight, "bias": torch.randn(30)})
    save_weights(tmp_path / "weights", model.state_dict(), {"0.weight": mask})
    again = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 5)).eval()
    again.load_state_dict(load_weights(tmp_path / "weights"))
    inputs = torch.randn(8, 40)
    assert torch.equal(model(inputs), again(inputs))


@settings(max_examples=20, deadline=None)
@given(
    kept=st.sets(st.integers(0, 199_999), max_size=40),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_any_mask_comes_back(
    tmp_path_factory: pytest.TempPathFactory, kept: set[int], dtype: torch.dtype
) -> None:
    path = tmp_path_factory.mktemp("any") / "weights"
    weight = torch.zeros(400, 500, dtype=dtype)
    mask = torch.zeros(400, 500, dtype=torch.bool)
    mask.view(-1)[sorted(kept)] = True
    weight[mask] = torch.arange(1, len(kept) + 1, dtype=dtype)
    save_weights(path, {"weight": weight}, {"weight": mask})
    assert_same(load_weights(path), {"weight": weight})


@pytest.mark.parametrize(
    ("density", "bytes_per_kept_place", "encoding"),
    [
        (0.5, 2, "bitmask"),  # one bit for each of two elements
        (0.02, 1, "gaps8"),
        (0.001, 2, "gaps16"),
    ],
)
def test_positions_take_the_shortest_encoding(
    tmp_path: Path, density: float, bytes_per_kept_place: float, encoding: str
) -> None:
    weight, mask = pruned((1000, 500), density)
    size = save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
    kept = int(mask.sum())
    places = 500_000 / 8 if encoding == "bitmask" else bytes_per_kept_place * kept
    assert size == pytest.approx(4 * kept + places, rel=0.02, abs=600)
    with safe_open(tmp_path / "weights", framework="pt") as file:
        assert f'"{encoding}"' in file.metadata()["network"]
    assert_same(load_weights(tmp_path / "weights"), {"weight": weight})


def test_gaps_of_every_length_around_the_codes_come_back(tmp_path: Path) -> None:
    gaps = [0, 1, 253, 254, 255, 256, 509, 510, 511, 65_534, 65_535, 65_536, 131_070]
    mask = torch.zeros(400_000, dtype=torch.bool)
    mask[torch.tensor(gaps).add(1).cumsum(0) - 1] = True
    for every in (1, 7):  # the second fills the gaps so that 8 bits are shorter than 16
        mask[300_000::every] |= every > 1
        weight = torch.where(mask, 2.0, 0.0)
        save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
        assert_same(load_weights(tmp_path / "weights"), {"weight": weight})


def test_a_kept_weight_that_is_zero_is_kept(tmp_path: Path) -> None:
    mask = torch.zeros(100, dtype=torch.bool)
    mask[[3, 50]] = True
    weight = torch.zeros(100)
    weight[50] = -0.0
    save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
    with safe_open(tmp_path / "weights", framework="pt") as file:
        assert bits(file.get_tensor("weight:values")) == bits(torch.tensor([0.0, -0.0]))


def test_a_dense_weight_is_stored_unchanged(tmp_path: Path) -> None:
    weight, mask = pruned((10, 10), 0.99)
    save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
    assert stored_names(tmp_path / "weights") == {"weight"}
    assert_same(load_weights(tmp_path / "weights"), {"weight": weight})


def test_tied_weights_are_stored_once_and_loaded_as_one(tmp_path: Path) -> None:
    weight, mask = pruned((50, 40), 0.1)
    state = {"embedding.weight": weight, "head.weight": weight.view(50, 40)}
    for name in state:  # whichever of the names has the mask
        save_weights(tmp_path / "weights", state, {name: mask})
        assert stored_names(tmp_path / "weights") == {
            "embedding.weight:places",
            "embedding.weight:values",
        }
        loaded = load_weights(tmp_path / "weights")
        assert_same(loaded, state)
        assert loaded["head.weight"] is loaded["embedding.weight"]


def test_views_that_merely_overlap_are_stored_separately(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    state = {"whole": whole, "part": whole[:3], "turned": whole.view(2, 3).T}
    save_weights(tmp_path / "weights", state, {})
    assert_same(load_weights(tmp_path / "weights"), state)


def test_removed_weights_must_be_zero(tmp_path: Path) -> None:
    mask = torch.tensor([True, False])
    with pytest.raises(ValueError, match="weight: a removed weight is not 0"):
        save_weights(tmp_path / "weights", {"weight": torch.ones(2)}, {"weight": mask})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="cannot write"):
        save_weights(tmp_path / "missing" / "weights", {"weight": torch.ones(2)}, {})


def test_damage_is_noticed_anywhere_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    weight, mask = pruned((30, 20), 0.1)
    save_weights(path, {"weight": weight, "bias": torch.ones(3)}, {"weight": mask})
    content = path.read_bytes()
    (header_length,) = struct.unpack("<Q", content[:8])
    in_layout = content.index(b"bitmask" if b"bitmask" in content else b"gaps8")
    for place in (0, in_layout, 8 + header_length + 3, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(RequestError, match="damaged"):
            load_weights(path)
    for length in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RequestError, match="damaged"):
            load_weights(path)


def test_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with pytest.raises(RequestError, match="no such file"):
        load_weights(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(RequestError, match="format"):
        load_weights(path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(RequestError, match="is not a weights file"):
        load_weights(path)


def assert_same_units(path: Path, units: dict[str, dict[str, Any]]) -> None:
    loaded = load(path).units
    assert loaded is not None
    assert {kind: list(state) for kind, state in loaded.items()} == {
        kind: list(state) for kind, state in units.items()
    }
    for kind, state in units.items():
        for name, value in state.items():
            again = loaded[kind][name]
            if isinstance(value, Tensor):
                assert (again.dtype, again.shape) == (value.dtype, value.shape), name
                assert bits(again) == bits(value), name
            else:
                assert again == value


def test_masks_are_restored_from_the_positions_of_the_weights(tmp_path: Path) -> None:
    weight, mask = pruned((300, 200), 0.02)
    state = {"pruned": weight, "dense": torch.randn(300, 200), "tied": weight}
    masks = {"pruned": mask, "dense": torch.ones(300, 200, dtype=torch.bool)}
    without = save_weights(tmp_path / "weights", state, masks)
    size = save_weights(tmp_path / "weights", state, masks, {"weights": masks})
    assert size - without < 200
    assert_same_units(tmp_path / "weights", {"weights": masks})
    assert_same(load_weights(tmp_path / "weights"), state)


def test_the_mask_of_a_dense_weight_takes_space_only_if_a_kept_weight_is_zero(
    tmp_path: Path,
) -> None:
    weight, mask = pruned((100, 100), 0.99)
    size = save_weights(tmp_path / "weights", {"w": weight}, {"w": mask}, {"weights": {"w": mask}})
    assert_same_units(tmp_path / "weights", {"weights": {"w": mask}})
    weight[mask] = torch.zeros(int(mask.sum())).index_fill(0, torch.arange(3, 9000), 1.0)
    more = save_weights(tmp_path / "weights", {"w": weight}, {"w": mask}, {"weights": {"w": mask}})
    assert 100 * 100 / 8 <= more - size < 100 * 100 / 8 + 200
    assert_same_units(tmp_path / "weights", {"weights": {"w": mask}})


def test_the_state_of_units_comes_back_bit_by_bit(tmp_path: Path) -> None:
    units = {
        "channels": {
            "first": torch.tensor([0, 1, 2, 3]),
            "second": torch.tensor([3, 77, 511]),
            "none": torch.zeros(0, dtype=torch.int64),
            "huge": torch.tensor([5, 2**62]),
            "disordered": torch.tensor([3, 1, 2]),
            "flags": torch.tensor([[True, False], [False, False]]),
            "values": torch.randn(3),
            "counts": [1, 2, {"a": "b"}],
        },
        "nothing": {},
    }
    save_weights(tmp_path / "weights", {"w": torch.ones(2)}, {}, units)
    assert_same_units(tmp_path / "weights", units)
    assert_same(load_weights(tmp_path / "weights"), {"w": torch.ones(2)})


def test_a_kept_channel_takes_a_byte_at_most(tmp_path: Path) -> None:
    kept = {f"group{number}": torch.arange(0, 512, 2) for number in range(20)}
    state = {"w": torch.ones(2)}
    names = {name: numbers[:0] for name, numbers in kept.items()}
    without = save_weights(tmp_path / "weights", state, {}, {"channels": names})
    size = save_weights(tmp_path / "weights", state, {}, {"channels": kept})
    assert size - without < 20 * 256


def test_a_state_of_units_that_cannot_be_stored_is_reported_in_one_line(tmp_path: Path) -> None:
    units = {"mine": {"thing": {1, 2}}}
    with pytest.raises(
        RunFailed, match=r"^units 'mine': 'thing' of their state is of the type set"
    ):
        save_weights(tmp_path / "weights", {"w": torch.ones(2)}, {}, units)


SAVES = """
import sys
from pathlib import Path
import torch
from harness.storage.network_file import save_weights

weight, mask = torch.zeros(50, 40), torch.zeros(50, 40, dtype=torch.bool)
mask[::7, ::3] = True
weight[mask] = torch.arange(1.0, 1 + int(mask.sum()))
state = {name: weight.clone() for name in {"a", "b", "c", "d"}}
names = sorted(state)
state = {name: state[name] for name in names} | {"e": torch.ones(3), "f": torch.ones(3).half()}
masks = {name: mask for name in names}
for number in range(5):
    path = Path(sys.argv[1]) / str(number)
    save_weights(path, state, masks, {"weights": masks, "channels": {"g": torch.arange(9)}})
"""


def test_equal_networks_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    processes = []
    for seed in ("0", "1"):
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SAVES, str(tmp_path / seed)]
        processes.append(subprocess.Popen(command, env=environment))
    assert [process.wait() for process in processes] == [0, 0]
    contents = [path.read_bytes() for path in tmp_path.glob("*/*")]
    assert len(contents) == 10
    assert len(set(contents)) == 1


def test_a_file_of_the_first_format_is_read(tmp_path: Path) -> None:
    layout = {"pruned": {"w": {"shape": [2, 4], "encoding": "bitmask"}}, "tied": {"v": "w"}}
    stored = {
        "w:values": torch.tensor([1.0, 2.0]),
        "w:places": torch.tensor([0b01000001], dtype=torch.uint8),
    }
    write_first_format(tmp_path / "weights", layout, stored)
    weights, units = load(tmp_path / "weights")
    expected = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 2.0]])
    assert_same(weights, {"w": expected, "v": expected})
    assert units is None
