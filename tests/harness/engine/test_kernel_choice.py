"""A run with kernels=sparse: chooses once for each pruning, and says what it chose."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.contracts import Killed, StopAfter
from harness.engine import finish
from harness.engine.run_plan import run_plan
from harness.errors import Interrupted, RequestError
from harness.record import SparseKernels
from harness.registry import Registry
from harness.signals import Stop
from harness.sparse_kernels import choice
from harness.spec import plan
from harness.storage.store import Store, outcome
from harness.training.kernels import DENSE
from harness.units import Kept
from pruners.criteria import magnitude
from pruners.criteria import random as random_scores
from pruners.weights import Weights
from tests.helpers.attempts import NEVER, Attempts, attempts
from tests.helpers.costs import unmeasured
from tests.helpers.disk import FailingDisk, operation_number
from tests.helpers.workbench import CPU, WATCHING, Workbench

# The network of the points has two masked layers, "0" and "4", with 80 weights.
BOTH = ["0", "4"]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path, [WATCHING])


def chosen(layers: list[str], steps: bool) -> SparseKernels:
    dense = {"sparse takes 3.00 times as long": [each for each in BOTH if each not in layers]}
    return {
        "layers": layers,
        "dense": {} if layers == BOTH else dense,
        "passes": 0.5,
        "contiguous": False,
        "steps": steps,
        "step": 0.25 if steps else 4.0,
    }


Choose = Callable[..., SparseKernels]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[Choose], None]:
    """Replace what is measured, which is another time after time, by a function."""

    def replace(function: Choose) -> None:
        monkeypatch.setattr("harness.engine.kernel_choice.measured_kernels", function)

    return replace


def by_what_is_left(task: object, model: object, masks: Kept, *rest: object) -> SparseKernels:
    """Choose both layers, and the second with its optimizer steps when little is left."""
    left = sum(int(mask.count_nonzero()) for mask in masks.values())
    return chosen(BOTH, False) if left > 30 else chosen(["4"], True)


def prunings(record: Any) -> list[Any]:
    return [event for event in record["events"] if event["verb"] == "prune"]


def losses(record: Any) -> list[float]:
    return [epoch["loss"] for event in record["events"] for epoch in event.get("epochs", ())]


# What a run does


@pytest.mark.parametrize("pruner", ["crop_u", "watching", "gmp", "rigl", "acdc"])
def test_training_is_that_with_dense_kernels_to_rounding(
    bench: Workbench, choose: Callable[[Choose], None], pruner: str
) -> None:
    """Also where weights are removed a little again and again, or return."""
    choose(by_what_is_left)
    dense, sparse = bench.run(pruner), bench.run(pruner, kernels="sparse")
    assert sparse["sparsity"]["sparse_kernels"]
    assert losses(sparse) == pytest.approx(losses(dense), rel=1e-4)
    assert sparse["sparsity"]["weights"] == dense["sparsity"]["weights"]


def test_frequent_prunings_choose_when_half_of_the_weights_are_gone(
    bench: Workbench, choose: Callable[[Choose], None]
) -> None:
    choose(by_what_is_left)
    # Removed weights of 80: 21, 38, 51, 60, 68 and so on.
    record = bench.run("gmp", sparsity=0.95, every="1", kernels="sparse")
    left = [round(80 * (1 - event["sparsity"])) for event in prunings(record)]
    choosing = [
        n for n, event in zip(left, prunings(record), strict=True) if "sparse_kernels" in event
    ]
    expected, before = [], 80
    for number in left[:-1]:
        if number <= before / 2:
            expected.append(before := number)
    assert choosing == [*expected, left[-1]]
    assert 2 < len(choosing) < len(left)


def test_weights_that_return_are_trained_again(
    bench: Workbench, choose: Callable[[Choose], None]
) -> None:
    choose(by_what_is_left)
    begun = bench.begin("rigl", kernels="sparse")
    begun.run.prune(Weights, magnitude, 0.5)
    before = begun.trainer.masks()
    begun.run.exchange(Weights, 0.5, drop=magnitude, grow=random_scores)
    returned = begun.trainer.masks()["0.weight"] & ~before["0.weight"]
    weight = begun.trainer.model.get_parameter("0.weight")
    assert returned.any()
    assert not weight[returned].any()
    begun.run.train(steps=1)
    assert weight[returned].any()


def test_a_release_ends_in_a_dense_network(
    bench: Workbench, choose: Callable[[Choose], None]
) -> None:
    choose(by_what_is_left)
    begun = bench.begin("acdc", kernels="sparse")
    begun.run.prune(Weights, magnitude, 0.8)
    assert not begun.trainer.kernels.are_dense
    begun.run.release(Weights)
    assert begun.trainer.kernels == DENSE
    events = [entry.event for entry in begun.journal.entries]
    assert finish._on_sparse_kernels(events[:1]) == {"4": 0}
    assert finish._on_sparse_kernels(events) == {}


def test_the_record_says_which_layers_are_sparse_since_when(
    bench: Workbench, choose: Callable[[Choose], None]
) -> None:
    choose(by_what_is_left)
    record = bench.run("watching", kernels="sparse")
    assert [each["sparse_kernels"] for each in prunings(record)] == [
        chosen(BOTH, False),
        chosen(["4"], True),
    ]
    first, _ = (record["events"].index(event) for event in prunings(record))
    assert record["sparsity"]["sparse_kernels"] == {"4": first}


def test_a_choice_is_reported_with_the_receipt(
    bench: Workbench, choose: Callable[[Choose], None]
) -> None:
    choose(by_what_is_left)
    run = attempts(bench, "crop_u", kernels="sparse")
    run.go()
    assert (
        "  sparse kernels: in 1 of 2 masked layers (4), both passes take 0.5 of the dense time, "
        "optimizer steps take 0.25 of the dense time"
    ) in run.lines


def test_watched_training_is_dense_and_says_so(
    bench: Workbench, choose: Callable[[Choose], None]
) -> None:
    choose(by_what_is_left)
    tried = bench.with_method(
        """
        from pruners.training import Taylor
        run.prune(Weights, magnitude, run.sparsity)
        run.train(epochs=1, watch=Taylor())
        run.train()
        """
    )
    run = attempts(tried, "tried", kernels="sparse")
    because = "this training is dense, since scores are computed from all its gradients"
    _, watched, unwatched = run.go()["events"]
    assert watched["dense_because"] == because
    assert "dense_because" not in unwatched
    assert f"kernels=sparse: {because}" in run.lines


def test_what_is_chosen_is_measured(bench: Workbench) -> None:
    found = prunings(bench.run("crop_u", kernels="sparse"))[0]["sparse_kernels"]
    layers = [*found["layers"], *itertools.chain(*found["dense"].values())]
    assert sorted(layers) == BOTH
    assert found["step"] > 0


def test_measuring_changes_no_result(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing sparse is faster, each bit is that of a run with dense kernels."""
    monkeypatch.setattr(choice, "CLEARLY_FASTER", 0.0)
    monkeypatch.setattr("harness.sparse_kernels.CLEARLY_FASTER", 0.0)
    dense, sparse = bench.run("watching"), bench.run("watching", kernels="sparse")
    assert losses(sparse) == losses(dense)
    assert [each["kept_sha256"] for each in prunings(sparse)] == [
        each["kept_sha256"] for each in prunings(dense)
    ]
    assert sparse["sparsity"]["sparse_kernels"] == {}


@pytest.mark.parametrize("pruner", ["crop_s", "dense"])
def test_without_masks_there_is_nothing_to_choose(bench: Workbench, pruner: str) -> None:
    record = bench.run(pruner, kernels="sparse")
    for event in prunings(record):
        assert event["sparse_kernels"]["layers"] == []
        assert event["sparse_kernels"]["step"] is None
    assert record["sparsity"]["sparse_kernels"] == {}


def test_a_run_with_dense_kernels_says_nothing_of_sparse_ones(bench: Workbench) -> None:
    record = bench.run("crop_u")
    assert "sparse_kernels" not in record["sparsity"]
    assert "sparse_kernels" not in prunings(record)[0]


def test_without_mkl_it_is_said_which_kernels_are_used(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    run = attempts(bench, "crop_u", kernels="sparse")
    run.go()
    assert "kernels=sparse: this torch has no MKL; its own sparse kernels are tried" in run.lines


# Interrupted runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The outcome of a method that is not interrupted; each method runs once."""

    def of(pruner: str) -> dict[str, Any]:
        bench = Workbench(tmp_path_factory.mktemp("whole"), [WATCHING])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.engine.kernel_choice.measured_kernels", by_what_is_left)
            return outcome(run_of(bench, pruner).go(checkpoints=NEVER))

    return functools.cache(of)


def run_of(bench: Workbench, pruner: str, seed: int = 0) -> Attempts:
    shorter = {"epochs": "2", "rounds": "2"} if pruner == "ltr" else {}
    return attempts(bench, pruner, f"attempts-{seed}", kernels="sparse", **shorter)


def killed_at_random(bench: Workbench, pruner: str, seed: int) -> dict[str, Any]:
    """Return the outcome of a run that is killed every few operations on the disk."""
    run, draw = run_of(bench, pruner, seed), random.Random(seed)
    while True:
        survives = draw.randint(10, 60)
        with FailingDisk(operation_number(survives + 1)).in_use():
            try:
                return outcome(run.go())
            except Killed:
                continue


@pytest.mark.parametrize("pruner", ["earlycrop_u", "watching", "ltr", "rigl", "acdc"])
def test_a_run_killed_again_and_again_gives_the_same_bits(
    bench: Workbench,
    choose: Callable[[Choose], None],
    whole: Callable[[str], dict[str, Any]],
    pruner: str,
) -> None:
    choose(by_what_is_left)
    assert killed_at_random(bench, pruner, seed=0) == whole(pruner)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 16))
@pytest.mark.parametrize("pruner", ["earlycrop_u", "watching", "ltr", "gmp", "rigl", "acdc"])
def test_a_run_killed_at_other_moments_gives_the_same_bits(
    bench: Workbench,
    choose: Callable[[Choose], None],
    whole: Callable[[str], dict[str, Any]],
    pruner: str,
    seed: int,
) -> None:
    choose(by_what_is_left)
    assert killed_at_random(bench, pruner, seed) == whole(pruner)


@pytest.mark.parametrize("checkpoints", [0.0, NEVER])
def test_a_resumed_run_never_chooses_otherwise(
    bench: Workbench,
    choose: Callable[[Choose], None],
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: float,
) -> None:
    turns = itertools.cycle([chosen(BOTH, True), chosen(["0"], False), chosen([], True)])
    measured: list[SparseKernels] = []

    def another_each_time(*arguments: object) -> SparseKernels:
        measured.append(next(turns))
        return measured[-1]

    choose(another_each_time)
    run = attempts(bench, "crop_u", kernels="sparse")
    with monkeypatch.context() as patch:
        patch.setattr("harness.engine.engine.Engine._after_epoch", _killed)
        with pytest.raises(Killed):
            run.go(checkpoints=checkpoints)
    if checkpoints == 0:
        with pytest.raises(Interrupted):
            run.go(StopAfter(steps=3), checkpoints)
    record = run.go(checkpoints=checkpoints)
    assert len(measured) == 1
    assert prunings(record)[0]["sparse_kernels"] == chosen(BOTH, True)


def _killed(*arguments: object) -> None:
    raise Killed


# Requests


def test_the_device_is_part_of_the_identity(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, here = bench.plan("crop_u").run_id, bench.plan("crop_u", kernels="sparse").run_id
    monkeypatch.setattr("harness.spec.describe_device", lambda device: "Abacus 1")
    there = bench.plan("crop_u", kernels="sparse")
    assert there.timed_on == "Abacus 1"
    assert len({dense, here, there.run_id}) == 3
    assert bench.plan("crop_u", kernels="dense").run_id == dense


def test_a_gpu_is_refused(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.spec.find_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr("harness.spec.describe_device", lambda device: "Abacus 2")
    with pytest.raises(RequestError, match=r"^kernels=sparse needs the CPU.* on Abacus 2; use"):
        bench.plan("crop_u", kernels="sparse")


def test_half_precision_is_refused(bench: Workbench) -> None:
    with pytest.raises(RequestError, match=r"^kernels=sparse computes in float32.*=bfloat16$"):
        bench.plan("crop_u", kernels="sparse", precision="bfloat16")


# Real tasks


@pytest.mark.parametrize(
    ("task", "layers"),
    [("digits", {"0", "3.conv1", "10.conv2", "13"}), ("ptb", {"lstm", "query", "vocabulary"})],
)
def test_real_networks_train_as_with_dense_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, layers: set[str]
) -> None:
    """All layers that can be sparse are, however long they take."""
    for limit in ("CLEARLY_FASTER", "DENSEST"):
        monkeypatch.setattr(choice, limit, float("inf"))
    monkeypatch.setattr("harness.sparse_kernels.CLEARLY_FASTER", float("inf"))
    records = []
    for kernels in ("dense", "sparse"):
        wanted = plan(
            registry := Registry(),
            task,
            "random_u",
            sparsity=0.7,
            profile="smoke",
            overrides={"kernels": kernels, "epochs": "1"},
            device="cpu",
        )
        records.append(
            run_plan(
                wanted,
                registry,
                Store(tmp_path),
                CPU,
                lambda line: None,
                Stop(),
                measure=unmeasured,
            )
        )
    dense, sparse = records
    assert sparse["sparsity"]["sparse_kernels"].keys() >= layers
    assert losses(sparse) == pytest.approx(losses(dense), rel=1e-4)
