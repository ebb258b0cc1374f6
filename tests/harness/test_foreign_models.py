"""Networks of libraries and of own files: how they are named, built, identified and refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness.api import run_pairing
from harness.command_line import main
from harness.data.cache import VARIABLE
from harness.errors import RequestError
from harness.foreign_models import IMAGE_MODEL, build_image_model, image_channels, load_weights
from harness.network import build_task
from harness.registry import Registry
from harness.spec import Plan, plan
from tests.helpers.own_data import NETWORKS, paint


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(NETWORKS)
    return tmp_path


def build(value: str, *, classes: int = 3, channels: int = 3, side: int = 32) -> nn.Module:
    return build_image_model(
        value, classes=classes, channels=channels, side=side, data_folder=Path("data")
    )


def planned(task: str = "digits", **settings: str) -> Plan:
    return plan(Registry(), task, "dense", profile="smoke", overrides=settings)


class TestNames:
    @pytest.mark.parametrize(
        "value", ["torchvision:resnet18", "timm:vit_tiny", "mine.py:small", "nets/mine.py:small"]
    )
    def test_these_have_a_form_of_a_network(self, value: str) -> None:
        assert IMAGE_MODEL.accepts(value)

    @pytest.mark.parametrize("value", ["resnet18", "keras:resnet", "mine.py", "mine.txt:small"])
    def test_these_have_none(self, value: str) -> None:
        assert not IMAGE_MODEL.accepts(value)

    def test_an_unknown_name_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(RequestError, match="did you mean 'resnet18'"):
            planned(model="resnet19")
        with pytest.raises(RequestError, match="torchvision has no network 'resnet19'"):
            build("torchvision:resnet19")

    def test_the_forms_are_listed(self) -> None:
        setting = Registry().find("task", "digits").settings_in("smoke")["model"]
        assert setting.permitted.endswith("torchvision:NAME, timm:NAME, FILE.py:CALLABLE")

    def test_grey_images_get_three_channels_for_a_library_only(self) -> None:
        assert image_channels("resnet18", 1) == 1
        assert image_channels("mine.py:small", 1) == 1
        assert image_channels("torchvision:resnet18", 1) == 3


class TestBuilding:
    def test_a_network_of_torchvision_has_the_outputs_of_the_task(self) -> None:
        network = build("torchvision:mobilenet_v3_small", classes=7).eval()
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)

    @pytest.mark.slow
    def test_a_network_takes_images_of_the_size_of_the_task(self) -> None:
        network = build("torchvision:vit_b_32", side=32).eval()
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)

    def test_a_network_of_a_file_is_what_its_function_returns(self) -> None:
        torch.manual_seed(0)
        network = build("mine.py:small")
        torch.manual_seed(0)
        again = build("mine.py:small")
        assert isinstance(network, nn.Sequential)
        assert all(map(torch.equal, network.parameters(), again.parameters()))

    def test_trying_it_draws_no_random_number(self) -> None:
        torch.manual_seed(0)
        build("mine.py:small")
        after = torch.rand(1)
        torch.manual_seed(0)
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)
        assert torch.equal(torch.rand(1), after)

    def test_grey_digits_train_a_network_for_colour_images(self) -> None:
        task = build_task(planned(model="torchvision:squeezenet1_1", batch_size="100"), CPU)
        assert task.one_sample()[0].shape == (1, 3, 8, 8)

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("of_width", r"of_width \(mine\.py, line \d+\) needs arguments: width"),
            ("number", r"number \(mine\.py, line \d+\) returns int, not a torch\.nn\.Module"),
            ("four_classes", r"of shape \(2, 4\), not \(2, 3\): the data have 3 classes"),
            ("pair", "it returns tuple, not one tensor"),
            ("broken", r"mine\.py, line \d+: fails: ValueError: no weights today"),
            ("not_a_function", "'not_a_function' is no function, but 3"),
            ("smal", "mine.py has no 'smal'; did you mean 'small'?"),
        ],
    )
    def test_a_function_that_gives_no_network_is_refused(self, name: str, complaint: str) -> None:
        with pytest.raises(RequestError, match=f"model=mine.py:{name}: .*{complaint}"):
            build(f"mine.py:{name}")

    def test_images_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(RequestError, match=r"does not take inputs of shape \(2, 1, 32, 32\)"):
            build("mine.py:small", channels=1)

    def test_a_file_is_refused_if_it_is_missing_or_not_python(self, folder: Path) -> None:
        with pytest.raises(RequestError, match=r"none\.py: there is no such file, here or in data"):
            planned(model="none.py:small")
        (folder / "odd.py").write_text("def small(:")
        with pytest.raises(RequestError, match=r"odd\.py is not Python: .*, line 1"):
            planned(model="odd.py:small")

    def test_a_library_that_is_not_installed_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RequestError, match=r"timm is not installed; pip install .*\[timm\]"):
            IMAGE_MODEL.fingerprint("model", "timm:resnet18", Path("data"))


class TestIdentity:
    def test_a_network_of_this_project_has_none(self) -> None:
        assert planned(model="resnet18").references == {}
        assert planned().run_id == planned(model="resnet18").run_id

    def test_code_decides_and_comments_do_not(self, folder: Path) -> None:
        before = planned(model="mine.py:small")
        (folder / "mine.py").write_text(f"# A comment\n{NETWORKS}")
        assert planned(model="mine.py:small").run_id == before.run_id
        (folder / "mine.py").write_text(NETWORKS.replace("nn.ReLU", "nn.GELU"))
        assert planned(model="mine.py:small").run_id != before.run_id

    def test_code_that_changes_before_the_run_is_refused(self, folder: Path) -> None:
        before = planned(model="mine.py:small")
        (folder / "mine.py").write_text(NETWORKS.replace("nn.ReLU", "nn.GELU"))
        with pytest.raises(RequestError, match=r"model=mine\.py:small has changed since"):
            build_task(before, CPU)

    def test_weights_decide(self, folder: Path) -> None:
        (folder / "a.pt").write_bytes(b"one")
        before = planned(pretrained="a.pt")
        (folder / "a.pt").write_bytes(b"two")
        assert planned(pretrained="a.pt").run_id != before.run_id

    def test_a_record_has_the_hashes(self, folder: Path) -> None:
        paint(folder / "leaves", ("ash", "beech", "oak"))
        settings = {"folder": "leaves", "model": "mine.py:small", "batch_size": 10, "epochs": 1}
        record = run_pairing("images", "dense", profile="smoke", settings=settings)
        assert record["status"] == "done"
        assert list(record["task"]["references"]) == ["model"]


class TestWeights:
    @pytest.mark.parametrize("ending", ["safetensors", "pt"])
    def test_they_are_loaded(self, ending: str) -> None:
        saved = build("mine.py:small")
        if ending == "pt":
            torch.save({"state_dict": saved.state_dict()}, "weights.pt")
        else:
            save_file(saved.state_dict(), "weights.safetensors")
        network = build("mine.py:small")
        load(network, f"weights.{ending}")
        assert all(map(torch.equal, network.parameters(), saved.parameters()))

    def test_a_new_head_leaves_the_output_layer(self) -> None:
        saved = build("mine.py:small").state_dict()
        saved["6.weight"], saved["6.bias"] = torch.zeros(1000, 8), torch.zeros(1000)
        torch.save(saved, "weights.pt")
        network = build("mine.py:small")
        with pytest.raises(RequestError, match=r"'6\.weight' is \(1000, 8\), not \(3, 8\)"):
            load(network, "weights.pt")
        load_weights(network, "weights.pt", Path("data"), classes=3, head="new")
        assert torch.equal(network.state_dict()["0.weight"], saved["0.weight"])

    def test_those_of_another_network_are_refused(self) -> None:
        torch.save({"fc.weight": torch.zeros(3, 8)}, "weights.pt")
        with pytest.raises(
            RequestError,
            match=r"those of another network: 6 of 6 tensors are missing, such as '0\.bias'",
        ):
            load(build("mine.py:small"), "weights.pt")

    @pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
    def test_what_is_no_file_of_weights_is_refused(self, folder: Path, name: str) -> None:
        (folder / name).write_bytes(b"no weights")
        with pytest.raises(RequestError, match="neither safetensors nor a state_dict"):
            load(build("mine.py:small"), name)

    def test_code_is_not_run(self) -> None:
        torch.save(nn.Linear(2, 2), "weights.pt")  # a whole module, which is pickled code
        with pytest.raises(RequestError, match="neither safetensors nor a state_dict"):
            load(build("mine.py:small"), "weights.pt")


def test_a_mistake_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint(folder / "leaves", ("ash", "beech", "oak"))
    words = ["--task", "images", "--pruner", "dense", "--profile", "smoke", "--set"]
    settings = ["folder=leaves", "--set", "batch_size=10", "--set", "model=mine.py:number"]
    assert main(["run", *words, *settings]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model=mine.py:number: ")


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["dense", "crop_s", "taylor_s"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_networks_of_torchvision_are_pruned(folder: Path, name: str, pruner: str) -> None:
    paint(folder / "leaves", ("ash", "beech", "oak"))
    settings = {"folder": "leaves", "model": f"torchvision:{name}", "batch_size": 7}
    record = run_pairing("images", pruner, sparsity=0.3, profile="smoke", settings=settings)
    assert record["status"] == "done"
    removed = record["sparsity"]["weights"]
    assert removed == 0 if pruner == "dense" else 0.3 <= removed < 0.4


CPU = torch.device("cpu")


def load(network: nn.Module, value: str) -> None:
    load_weights(network, value, Path("data"), classes=3, head="loaded")
