"""``sensitivity``: parts of a trained network are really removed, and it is evaluated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness.errors import RequestError, Skip
from harness.network import build_task
from harness.spec import plan
from harness.storage.store import RECORD, WEIGHTS
from harness.training.evaluation import evaluate
from pruners.channels.units import Channels
from tests.helpers.commands import Command
from tests.helpers.workbench import CPU, POINTS, Workbench

SENSITIVITY = ("sensitivity", "--task", "points", "--profile", "smoke", "--plugin", POINTS)


@pytest.fixture
def points(bench: Workbench) -> Any:
    """A finished dense run of the points, and the folder that it is in."""
    return bench.run("dense")


def measured(bench: Workbench, record: Any, *pruners: str, **options: Any) -> Any:
    """Return the scans of the network of a run, by the units."""
    found = harness.measure_sensitivity(
        "points",
        pruners or None,
        run=record["run_id"],
        results=bench.folder,
        plugins=[POINTS],
        **options,
    )
    return {scan["units"]: scan for scan in found["scans"]}


def accuracy(bench: Workbench, network: nn.Module) -> float:
    task = build_task(plan(bench.registry, "points", "dense", profile="smoke"), CPU)
    return evaluate(task, network, "validation")["accuracy"]


def of_part(scan: Any, name: str) -> list[tuple[int, float]]:
    (part,) = (each for each in scan["parts"] if each["name"] == name)
    return [(trial["removed"], trial["metric"]) for trial in part["trials"]]


# What is measured


def test_a_layer_loses_its_smallest_weights(bench: Workbench, points: Any) -> None:
    """Half of the 60 weights of the first layer, zeroed by hand, cost what is said."""
    network = harness.load(bench.folder / points["run_id"], plugins=[POINTS])
    weight = network.get_parameter("0.weight")
    with torch.no_grad():
        weight[weight.abs() <= weight.abs().flatten().kthvalue(30).values] = 0
    assert int((weight == 0).sum()) == 30
    scan = measured(bench, points, "magnitude_u", fractions=[0.5])["weights"]
    assert of_part(scan, "0.weight") == [(30, accuracy(bench, network))]


def test_a_group_of_channels_is_cut_out(bench: Workbench, points: Any) -> None:
    """A hidden unit is gone when the second layer does not read it."""
    network = harness.load(bench.folder / points["run_id"], plugins=[POINTS])
    norms = network.get_parameter("0.weight").detach().abs().sum(1)
    with torch.no_grad():
        network.get_parameter("4.weight")[:, norms.argsort()[:7]] = 0
    scan = measured(bench, points, "magnitude_s", fractions=[0.7])["channels"]
    (part,) = scan["parts"]
    assert of_part(scan, part["name"]) == [(7, accuracy(bench, network))]
    assert part["size"] == 10
    assert part["trials"][0]["weights"] == pytest.approx(0.7)
    assert part["weights"] == pytest.approx(0.9), "one channel always remains"
    assert scan["whole"] == {"4": "it reaches the model's output"}


def test_shares_of_weights_and_operations_are_those_of_the_whole_network(
    bench: Workbench, points: Any
) -> None:
    first, second = measured(bench, points, "magnitude_u", fractions=[0.5])["weights"]["parts"]
    assert (first["weights"], second["weights"]) == (0.75, 0.25)
    assert (first["macs"], second["macs"]) == (0.75, 0.25)
    assert first["trials"][0]["macs"] == pytest.approx(0.375)


def test_by_default_weights_and_channels_go_by_their_magnitude(
    bench: Workbench, points: Any
) -> None:
    scans = measured(bench, points)
    assert {units: scan["pruner"] for units, scan in scans.items()} == {
        "weights": "magnitude_u",
        "channels": "magnitude_s",
    }
    asked = [trial["fraction"] for trial in scans["weights"]["parts"][0]["trials"]]
    assert asked == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_the_criterion_is_that_of_the_method_with_its_options(
    bench: Workbench, points: Any
) -> None:
    """EarlyCroP trains until a trigger fires; what counts is its first pruning."""
    assert measured(bench, points, "earlycrop_u")["weights"]["criterion"] == "crop"
    scan = measured(bench, points, "crop_s", settings={"mixed": True})["channels"]
    assert scan["criterion"] == "crop_mixed"


@pytest.mark.parametrize("pruner", ["random_u", "crop_s"])
def test_it_is_deterministic(bench: Workbench, points: Any, pruner: str) -> None:
    assert measured(bench, points, pruner) == measured(bench, points, pruner)


def test_test_data_are_never_used(
    bench: Workbench, points: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    original = evaluate

    def watched(task: Any, model: Any, split: Any, metric: Any = None) -> dict[str, float]:
        seen.append(split)
        return original(task, model, split, metric)

    monkeypatch.setattr("harness.engine.sensitivity.evaluate", watched)
    measured(bench, points)
    assert set(seen) == {"validation"}


def test_the_network_of_the_run_is_left_as_it_was(bench: Workbench, points: Any) -> None:
    folder = bench.folder / points["run_id"]
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    measured(bench, points)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


def test_channels_that_cannot_be_cut_are_told_of_and_the_weights_are_tried(
    bench: Workbench,
    points: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: Any) -> None:
        raise Skip("no channel can be removed")

    monkeypatch.setattr(Channels, "__init__", refuse)
    assert set(measured(bench, points)) == {"weights"}
    said = capsys.readouterr().err
    assert said == "warning: magnitude_s on points: no channel can be removed\n"
    with pytest.raises(Skip, match=r"^magnitude_s on points: no channel can be removed$"):
        measured(bench, points, "magnitude_s")


# The command


def test_the_dense_run_is_carried_out_once(command: Command) -> None:
    first = command(*SENSITIVITY, "--seed", "3", "--fractions", "0.5")
    assert first.code == 0, first.err
    assert first.out.startswith("points-dense-0-seed3-")
    assert "epoch 4/4" in first.err
    again = command(*SENSITIVITY, "--seed", "3", "--fractions", "0.5")
    assert "is already done" in again.err
    assert again.out == first.out


def test_json_is_one_document(command: Command, tmp_path: Path) -> None:
    said = command(*SENSITIVITY, "--fractions", "0.5,0.25", "--json", "--out", "drawn")
    document = json.loads(said.out)
    assert document["fractions"] == [0.25, 0.5]
    assert document == json.loads((tmp_path / "drawn" / "sensitivity.json").read_text())
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "sensitivity-magnitude_s.png",
        "sensitivity-magnitude_s.svg",
        "sensitivity-magnitude_u.png",
        "sensitivity-magnitude_u.svg",
        "sensitivity.json",
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--pruner", "magnitud_u"], "unknown pruner 'magnitud_u'; did you mean 'magnitude_u'?"),
        (["--pruner", "dense"], "dense removes nothing, so it has no criterion to remove by"),
        (
            ["--pruner", "gate_decorators"],
            "gate_decorators scores while it trains, so it has no criterion for a network that "
            "is trained already",
        ),
        (["--fractions", "0.5,1"], "fraction 1 is outside (0, 1): it is the share of each part "),
        (["--fractions", "0"], "fraction 0 is outside (0, 1): it is the share of each part "),
        (["--fractions", ","], "there is no fraction to remove, as in 0.1,0.5"),
        (["--fractions", "half"], "argument --fractions: 'half' is not a number"),
        (["--tolerance", "-1"], "tolerance -1 must be a number of at least 0, as in 0.01"),
        (["--run", "nothing"], "run=nothing: results folder results does not exist"),
        (["--profile", "smok"], "task 'points' has no profile 'smok'"),
        (["--seed", "-1"], "seed -1 is negative; seeds are 0, 1, 2 ..."),
        (["--set", "epoch=3"], "unknown setting 'epoch' for points with magnitude_u, magnitude_s"),
        (["--out", str(POINTS)], f"folder {POINTS}: File exists"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    command: Command, words: Sequence[str], complaint: str
) -> None:
    said = command(*SENSITIVITY, *words)
    assert said.code == 2
    (line,) = said.err.splitlines()
    assert line.startswith(f"error: {complaint}")
    assert not Path("results").exists(), "nothing is trained for a wrong request"


def test_a_task_must_be_named(command: Command) -> None:
    said = command("sensitivity")
    assert said == type(said)(
        2, "", "error: --task is missing (see: python -m harness list tasks)\n"
    )


def test_a_run_that_is_named_has_its_own_seed_profile_and_settings(
    bench: Workbench, points: Any
) -> None:
    message = "run=.* is a network that is trained already; epochs, seed=1 would ask for another"
    with pytest.raises(RequestError, match=message):
        measured(bench, points, seed=1, profile="smoke", settings={"epochs": 2})


def test_a_pruned_run_is_refused(bench: Workbench) -> None:
    pruned = bench.run("crop_u")
    with pytest.raises(RequestError, match="80 % of its weights are gone; sensitivity is that of"):
        measured(bench, pruned)


def test_a_damaged_run_is_refused(bench: Workbench, points: Any) -> None:
    weights = bench.folder / points["run_id"] / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RequestError, match=r"^run=.* is not a weights file, or is damaged"):
        measured(bench, points)


def test_a_run_on_other_data_is_refused(bench: Workbench, points: Any) -> None:
    path = bench.folder / points["run_id"] / RECORD
    path.write_text(path.read_text().replace("0" * 64, "1" * 64))
    with pytest.raises(RequestError, match="was trained on other data"):
        measured(bench, points)
