from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.costs.disk import load_weights, save_weights
from harness.errors import RequestError, RunFailed


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


def test_a_state_comes_back_bit_by_bit(tmp_path: Path):
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


def test_a_saved_network_gives_the_same_outputs(tmp_path: Path):
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
def test_any_mask_comes_back(tmp_path_factory: pytest.TempPathFactory, kept: set[int], dtype):
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
def test_places_take_the_shortest_encoding(
    tmp_path: Path, density: float, bytes_per_kept_place: float, encoding: str
):
    weight, mask = pruned((1000, 500), density)
    size = save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
    kept = int(mask.sum())
    places = 500_000 / 8 if encoding == "bitmask" else bytes_per_kept_place * kept
    assert size == pytest.approx(4 * kept + places, rel=0.02, abs=600)
    with safe_open(tmp_path / "weights", framework="pt") as file:
        assert f'"{encoding}"' in file.metadata()["layout"]
    assert_same(load_weights(tmp_path / "weights"), {"weight": weight})


def test_gaps_of_every_length_around_the_codes_come_back(tmp_path: Path):
    gaps = [0, 1, 253, 254, 255, 256, 509, 510, 511, 65_534, 65_535, 65_536, 131_070]
    mask = torch.zeros(400_000, dtype=torch.bool)
    mask[torch.tensor(gaps).add(1).cumsum(0) - 1] = True
    for every in (1, 7):  # the second fills the gaps so that 8 bits are shorter than 16
        mask[300_000::every] |= every > 1
        weight = torch.where(mask, 2.0, 0.0)
        save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
        assert_same(load_weights(tmp_path / "weights"), {"weight": weight})


def test_a_kept_weight_that_is_zero_is_kept(tmp_path: Path):
    mask = torch.zeros(100, dtype=torch.bool)
    mask[[3, 50]] = True
    weight = torch.zeros(100)
    weight[50] = -0.0
    save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
    with safe_open(tmp_path / "weights", framework="pt") as file:
        assert bits(file.get_tensor("weight:values")) == bits(torch.tensor([0.0, -0.0]))


def test_a_dense_weight_is_stored_as_it_is(tmp_path: Path):
    weight, mask = pruned((10, 10), 0.99)
    save_weights(tmp_path / "weights", {"weight": weight}, {"weight": mask})
    assert stored_names(tmp_path / "weights") == {"weight"}
    assert_same(load_weights(tmp_path / "weights"), {"weight": weight})


def test_tied_weights_are_stored_once_and_loaded_as_one(tmp_path: Path):
    weight, mask = pruned((50, 40), 0.1)
    state = {"embedding.weight": weight, "head.weight": weight.view(50, 40)}
    for name in state:  # whichever name the mask has
        save_weights(tmp_path / "weights", state, {name: mask})
        assert stored_names(tmp_path / "weights") == {
            "embedding.weight:places",
            "embedding.weight:values",
        }
        loaded = load_weights(tmp_path / "weights")
        assert_same(loaded, state)
        assert loaded["head.weight"] is loaded["embedding.weight"]


def test_views_that_only_overlap_are_kept_apart(tmp_path: Path):
    whole = torch.arange(6.0)
    state = {"whole": whole, "part": whole[:3], "turned": whole.view(2, 3).T}
    save_weights(tmp_path / "weights", state, {})
    assert_same(load_weights(tmp_path / "weights"), state)


def test_removed_weights_must_be_zero(tmp_path: Path):
    mask = torch.tensor([True, False])
    with pytest.raises(ValueError, match="weight: a removed weight is not 0"):
        save_weights(tmp_path / "weights", {"weight": torch.ones(2)}, {"weight": mask})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_fails_the_run(tmp_path: Path):
    with pytest.raises(RunFailed, match="cannot write"):
        save_weights(tmp_path / "missing" / "weights", {"weight": torch.ones(2)}, {})


def test_damage_is_noticed_wherever_it_is(tmp_path: Path):
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


def test_foreign_and_missing_files_are_refused(tmp_path: Path):
    path = tmp_path / "weights"
    with pytest.raises(RequestError, match="no such file"):
        load_weights(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(RequestError, match="format"):
        load_weights(path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(RequestError, match="no weights file"):
        load_weights(path)
