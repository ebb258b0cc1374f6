"""A run keeps its budget, says what it reached, and chooses once, however often it is resumed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from torch import nn

from harness.contracts import Killed
from harness.errors import Interrupted, RequestError, RunFailed, Skip
from harness.network import load
from harness.prunable import prunable_weights
from harness.pruning.network_costs import NetworkCosts
from harness.record import Receipt, Record
from harness.signals import Stop
from harness.spec import plan
from harness.storage import network_file
from harness.storage.store import WEIGHTS, outcome
from tests.helpers.attempts import NEVER, Attempts, attempts
from tests.helpers.workbench import POINTS, Workbench

# The network of the points has 10 channels between 6 inputs and 2 outputs. A channel has 8 weights
# and as many multiply-accumulates, and 11 parameters with its bias and its normalisation.


def receipt_of(record: Record) -> Receipt:
    (event,) = [event for event in record["events"] if event["verb"] == "prune"]
    return event["receipt"]


@pytest.mark.parametrize(
    ("budget", "kind", "asked", "dense", "left"),
    [
        ("macs=0.5", "macs", 0.5, 80, 5),
        ("macs=39", "macs", 39 / 80, 80, 4),
        ("params=0.5", "params", 0.5, 112, 4),
    ],
)
def test_channels_keep_a_budget(
    bench: Workbench, budget: str, kind: str, asked: float, dense: int, left: int
) -> None:
    record = bench.run("crop_s", budget=budget)
    each, rest = (8, 0) if kind == "macs" else (11, 2)
    reached = (each * left + rest) / dense
    assert record["sparsity"]["budget"] == {
        "kind": kind,
        "asked": pytest.approx(asked),
        "reached": pytest.approx(reached),
        "dense": dense,
    }
    assert record["sparsity"]["weights"] == pytest.approx(1 - left / 10)
    assert receipt_of(record)["weights"] == [80, 8 * left]
    assert receipt_of(record)["macs"] == [80, 8 * left]


def test_weights_keep_a_budget_to_one_weight(bench: Workbench) -> None:
    record = bench.run("magnitude_u", budget="params=50")
    assert record["sparsity"]["per_layer"][0]["kept"] + record["sparsity"]["per_layer"][1][
        "kept"
    ] == 50 - (112 - 80)
    record = bench.run("magnitude_u", budget="macs=0.3")
    assert record["sparsity"]["weights"] == pytest.approx(0.7)


def test_steps_towards_a_budget_are_fractions_of_what_it_limits(bench: Workbench) -> None:
    record = bench.run("cropit_s", budget="params=0.4", steps="2")
    assert record["sparsity"]["budget"]["reached"] == pytest.approx((11 * 3 + 2) / 112)
    assert [event["target"] for event in record["events"] if event["verb"] == "prune"] == [
        pytest.approx(0.6)
    ]


def test_a_network_with_a_budget_can_be_loaded(bench: Workbench) -> None:
    record = bench.run("crop_s", budget="macs=0.5")
    network = load(bench.folder / record["run_id"], plugins=[POINTS])
    assert sum(weight.numel() for weight in prunable_weights(network).values()) == 40


def test_a_network_of_an_older_version_can_be_loaded(bench: Workbench) -> None:
    record = bench.run("slim_dense", macs="0.5")
    path = bench.folder / record["run_id"] / WEIGHTS
    stored = network_file.load(path)
    assert stored.units is not None
    older = {"channels_by_operations": stored.units["channels"]}
    network_file.save_weights(path, stored.weights, {}, older)
    network = load(path.parent, plugins=[POINTS])
    assert sum(weight.numel() for weight in prunable_weights(network).values()) == 40


def test_a_slim_dense_network_keeps_a_budget_too(bench: Workbench) -> None:
    assert bench.run("slim_dense", budget="params=0.5")["sparsity"]["budget"]["kind"] == "params"
    own = bench.run("slim_dense", macs="0.5")
    assert "budget" not in own["sparsity"]
    assert receipt_of(own)["macs"] == [80, 40]


@pytest.mark.parametrize(
    ("pruner", "request_", "complaint"),
    [
        ("crop_s", {"budget": "macs=0.05"}, "macs from 8 .0.1 of dense. to 80 .dense."),
        ("crop_s", {"budget": "macs=1k"}, "macs from 8 .* nearest is macs=80$"),
        (
            "crop_s",
            {"budget": "macs=0.15", "floor": "0.3"},
            "nearest is macs=24: floor=0.3 protects a part of every layer$",
        ),
        ("crop_s", {"budget": "macs=0.05", "floor": "0.1"}, "nearest is macs=8$"),
        ("crop_u", {"budget": "latency=0.5"}, "weights obey no budget of latency; they obey macs"),
        ("crop_u", {"budget": "bytes=0.5", "masks": "shuffled"}, "no budget of bytes is kept"),
        ("crop_u", {"rounding": "2"}, "rounding=2 is for channels, and these are weights"),
        ("crop_u", {"ranking": "isomorphic"}, "compares groups of channels, and these units are"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_training(
    bench: Workbench, pruner: str, request_: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(Skip, match=complaint) as refusal:
        bench.run(pruner, **request_)
    assert "\n" not in str(refusal.value)


def test_options_that_a_budget_replaces_are_refused(bench: Workbench) -> None:
    with pytest.raises(RequestError, match=r"macs=0\.2 .*budget"):
        bench.run("slim_dense", budget="params=0.5", macs="0.2")


def test_under_isomorphic_ranking_every_class_of_groups_loses_the_same_share(
    bench: Workbench,
) -> None:
    """Even under a method whose scores compare the scales of layers."""
    left: dict[str, dict[str, float]] = {}
    for ranking in ("method", "isomorphic"):
        settings = {"ranking": ranking, "epochs": "1"}
        wanted = plan(
            bench.registry,
            "digits",
            "magnitude_s",
            sparsity=0.5,
            profile="smoke",
            overrides=settings,
        )
        record = Attempts(bench, wanted, bench.folder).go(checkpoints=NEVER)
        sizes = {each["name"]: each for each in record["sparsity"]["per_layer"]}
        classes = {
            "inner": [f"{block}.conv1.weight" for block in range(3, 11)],
            "stages": ["5.conv2.weight", "7.conv2.weight"],
            "last": ["9.conv2.weight"],
        }
        left[ranking] = {
            each: sum(sizes[n]["shape"][0] for n in names)
            / sum(sizes[n]["dense_shape"][0] for n in names)
            for each, names in classes.items()
        }
    # The classes have 120, 24 and 32 channels.
    shares = left["isomorphic"].values()
    assert max(shares) - min(shares) < 1 / 24
    shares = left["method"].values()
    assert max(shares) - min(shares) > 0.2


def test_numbers_of_channels_are_rounded(bench: Workbench) -> None:
    record = bench.run("crop_s", sparsity=0.35, rounding="3")
    assert record["sparsity"]["per_layer"][0]["shape"] == [6, 6]


def test_a_receipt_says_what_was_left_whole_and_why(bench: Workbench) -> None:
    receipt = receipt_of(bench.run("crop_s", sparsity=0.9))
    assert receipt["asked"] == 0.9
    assert receipt["reached"] == pytest.approx(0.9)
    assert receipt["whole"] == {}
    assert receipt["pinned"] == {"it reaches the model's output": ["4"]}
    assert receipt["bottlenecks"] == {"0": [1, 10]}


def test_the_record_and_the_receipt_say_what_is_left_of_each_kind(bench: Workbench) -> None:
    record = bench.run("crop_s", sparsity=0.9)
    (group, *others) = record["sparsity"]["per_group"]
    assert group == {"name": "0", "kind": "feed-forward neurons", "channels": 10, "kept": 1}
    kept, channels = (sum(each[key] for each in [group, *others]) for key in ("kept", "channels"))
    assert receipt_of(record)["kinds"] == {"feed-forward neurons": [kept, channels]}
    assert "per_group" not in bench.run("snip", sparsity=0.9)["sparsity"]


def test_a_pruning_that_removes_nothing_is_an_error(bench: Workbench) -> None:
    tried = bench.with_method("run.prune(Weights, magnitude, 0.001)\nrun.train()")
    with pytest.raises(RunFailed, match=r"removed nothing, although 0\.001 of the weights"):
        tried.run("tried", sparsity=0.001)


# Latency


@pytest.fixture
def noisy_times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Networks take a millisecond per parameter, with noise that never comes again."""
    noise = itertools.cycle([1.0, 1.02, 0.97, 1.013, 0.991, 1.007, 0.983])
    times: list[float] = []

    def time(costs: NetworkCosts, network: nn.Module) -> float:
        if costs._interrupted():
            raise Interrupted
        times.append(sum(p.numel() for p in network.parameters()) * next(noise) / 1000)
        return times[-1]

    monkeypatch.setattr(NetworkCosts, "_time", time)
    return times


def times_in(run: Attempts) -> dict[str, float]:
    known: dict[str, float] = json.loads((run.folder / "times.json").read_text())
    return known


def test_a_budget_of_latency_is_kept_by_timed_networks(
    bench: Workbench, noisy_times: list[float]
) -> None:
    record = bench.run("crop_s", budget="latency=0.5")
    reached = record["sparsity"]["budget"]
    assert 0.38 < reached["reached"] <= 0.5
    assert reached["dense"] == pytest.approx(0.112, rel=0.05)
    record = bench.run("crop_s", budget="latency=60ms")
    assert record["sparsity"]["budget"]["reached"] * record["sparsity"]["budget"]["dense"] <= 0.06


def test_a_run_on_another_device_than_the_one_that_was_asked_for_is_refused(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.run_plan.describe_device", lambda device: "Abacus 1")
    with pytest.raises(Skip, match="and this is Abacus 1"):
        bench.run("crop_s", budget="latency=0.5")


def test_a_search_that_was_killed_goes_on_with_the_times_that_it_has(
    bench: Workbench, noisy_times: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempts(bench, "earlycrop_s", budget="latency=0.5")
    time = NetworkCosts._time

    def killed(costs: NetworkCosts, network: nn.Module) -> float:
        if len(noisy_times) >= 17:
            raise Killed
        return time(costs, network)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkCosts, "_time", killed)
        with pytest.raises(Killed):
            run.go()
    before = times_in(run)
    record = run.go()
    assert len(before) >= 3
    assert before.items() <= times_in(run).items()
    assert record["sparsity"]["budget"]["reached"] <= 0.5


def test_a_run_that_prunes_again_after_a_crash_chooses_the_same(
    bench: Workbench, noisy_times: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempts(bench, "crop_s", budget="latency=0.5")
    with monkeypatch.context() as patch:
        patch.setattr("harness.engine.engine.Engine._after_epoch", _killed)
        with pytest.raises(Killed):
            run.go(checkpoints=NEVER)
    timed = len(noisy_times)
    record = run.go(checkpoints=NEVER)
    assert len(noisy_times) == timed
    assert outcome(run.go()) == outcome(record)


def _killed(*arguments: object) -> None:
    raise Killed


def test_a_search_stops_when_it_is_asked_to(bench: Workbench, noisy_times: list[float]) -> None:
    run = attempts(bench, "crop_s", budget="latency=0.5")
    stop = Stop()
    stop.requested = True
    with pytest.raises(Interrupted):
        run.go(stop)
    assert run.go()["sparsity"]["budget"]["reached"] <= 0.5
