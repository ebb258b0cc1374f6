"""The rules that make runs comparable, each with a test that fails when the rule is broken.

Most tests observe whole runs of a small task, the points, by every method of this project.

The rules, and their tests in this file:

* The test data are used once, at the end, by the engine alone: `Splits and leakage`.
* All methods score with the same batches of training data: `Splits and leakage`.
* All methods share initial weights, data order, augmentation, dropout, schedule and budget, and a
  method that exceeds the budget says so: `Equal conditions`.
* Scoring and pruning change nothing but what is removed: `Equal conditions`.
* Removed weights stay zero, in the optimizer's state as well: `Masks`.
* The realised sparsity is the requested one, counted from masks, with the weights of the dense
  network as the denominator and the effective sparsity beside it: `Sparsity`.
* The controls exist, and the sanity checks change masks or weights as they say: `Controls`.
* Equal requests give equal bits, and the record names every choice: `Reproduction`.

The remaining rules are tested where their subject is: costs in ``harness/costs``, interruptions,
collapsed and diverged runs in ``harness/engine``, identities and versions in ``test_spec.py``,
shrunk networks and reference criteria in ``pruners``, metrics in ``tasks``, and statistics in
``harness/results`` and ``reports``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError, RunFailed
from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.registry import Registry
from harness.results.summary import summarise
from harness.scoring import Criterion, Scores, Scoring
from harness.task import Task
from harness.training.trainer import Trainer
from pruners import criteria
from pruners.functional_criteria import NTKSAP, Force, ProsPr
from pruners.weights import Weights
from tests.helpers.costs import NOT_MEASURED
from tests.helpers.observation import Observation, observe
from tests.helpers.points import HIDDEN, WEIGHTS
from tests.helpers.workbench import Begun, Workbench

ENTRIES = Registry().of_kind("pruner")
PRUNERS = list(ENTRIES)
PRUNING = [name for name, entry in ENTRIES.items() if entry.arguments.get("prunes", True)]
PATTERNED = ["nm_magnitude", "sr_ste"]
"""Methods whose sparsity follows from a pattern."""
CRITERIA = [
    criteria.random,
    criteria.magnitude,
    criteria.snip,
    criteria.grasp,
    criteria.crop,
    criteria.synflow,
    criteria.lamp,
    criteria.HTS(),
    Force(0.0, rounds=2),
    ProsPr(),
    NTKSAP(),
]

Seen = Callable[..., Observation]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What was observed of a run; each run is carried out once, in a folder of its own."""

    @functools.cache
    def see(pruner: str, **request: Any) -> Observation:
        if pruner == "dense_observed":
            request["channel_sparsity"] = "0.8"  # the points have too few channels for the default
        return observe(Workbench(tmp_path_factory.mktemp("results")), pruner, **request)

    return see


def bits_of(trainer: Trainer) -> str:
    """Return a hash of the whole state of training."""
    return digest(tensors_in(trainer.state()))


def tensors_in(state: Any, path: str = "") -> dict[str, Tensor]:
    """Return all tensors and numbers in nested containers, by their place."""
    if isinstance(state, Tensor):
        return {path: state}
    if isinstance(state, dict):
        parts = [tensors_in(value, f"{path}/{key}") for key, value in state.items()]
    elif isinstance(state, list | tuple):
        parts = [tensors_in(value, f"{path}/{place}") for place, value in enumerate(state)]
    else:
        return {f"{path}={state}": torch.empty(0)}
    return {name: tensor for part in parts for name, tensor in part.items()}


# Splits and leakage


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_test_data_are_used_once_after_the_last_step(seen: Seen, pruner: str) -> None:
    run = seen(pruner)
    tests = [evaluation.steps for evaluation in run.evaluations if evaluation.split == "test"]
    assert tests == [len(run.steps)]


def test_a_method_gets_neither_model_nor_optimiser_nor_data(bench: Workbench) -> None:
    run = bench.begin().run
    returned = [run.train(epochs=1), run.snapshot(), run.prune(Weights, criteria.snip, 0.5)]
    offered = [getattr(run, name) for name in dir(run) if not name.startswith("_")]
    offered += [value for result in returned for value in vars(result).values()]
    withheld = (nn.Module, torch.optim.Optimizer, Trainer, Task, Tensor)
    assert not [value for value in offered if isinstance(value, withheld)]


@pytest.mark.parametrize("pruner", [*PRUNING, *PATTERNED])
def test_every_event_scores_with_the_same_five_batches_for_every_pruner(
    seen: Seen, bench: Workbench, pruner: str
) -> None:
    five = seen("snip").scored[:5]
    assert len(set(five)) == 5
    assert set(seen(pruner).scored) == set(five)


def test_scoring_batches_are_whole_batches_of_training_points_without_augmentation(
    bench: Workbench,
) -> None:
    task: Any = bench.begin().trainer.task
    batches = task.scoring_batches(0)
    training = {tuple(point) for point in task.parts["train"][0].tolist()}
    assert [len(points) for points, _ in batches] == [task.settings["batch_size"]] * 5
    assert all(tuple(point) in training for points, _ in batches for point in points.tolist())


# Equal conditions


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_seed_gives_every_pruner_the_same_initial_weights(seen: Seen, pruner: str) -> None:
    initial = seen(pruner).record["provenance"]["initial_weights_sha256"]
    assert initial == seen("dense").record["provenance"]["initial_weights_sha256"]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_seed_gives_every_pruner_the_same_order_augmentation_and_dropout(
    seen: Seen, pruner: str
) -> None:
    dense = {step.position: (step.batch, step.randomness) for step in seen("dense").steps}
    steps = seen(pruner).steps
    assert {step.position for step in steps} == set(dense)
    assert all((step.batch, step.randomness) == dense[step.position] for step in steps)


def test_another_seed_gives_other_weights_order_dropout_and_scoring_batches(seen: Seen) -> None:
    first, second = seen("snip"), seen("snip", seed=1)
    weights = [run.record["provenance"]["initial_weights_sha256"] for run in (first, second)]
    assert weights[0] != weights[1]
    for one, other in zip(first.steps, second.steps, strict=True):
        assert one.batch != other.batch
        assert one.randomness != other.randomness
    assert not set(first.scored) & set(second.scored)


def test_no_two_steps_of_a_run_share_their_batch_or_their_dropout(seen: Seen) -> None:
    steps = seen("dense").steps
    assert len({step.batch for step in steps}) == len(steps)
    assert len({step.randomness for step in steps}) == len(steps)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_trains_for_as_many_steps_as_dense_or_declares_more(
    seen: Seen, pruner: str
) -> None:
    run, dense = seen(pruner), seen("dense")
    assert run.record["cost"]["steps"] == len(run.steps)
    if run.record["pruner"]["exceeds_budget"]:
        assert len(run.steps) > len(dense.steps)
    else:
        assert len(run.steps) == len(dense.steps) == 20


def test_the_record_counts_the_epochs_that_ltr_trains_again(seen: Seen) -> None:
    # One epoch up to the snapshot, then six times the other three of the budget of four.
    record = seen("ltr").record
    assert record["pruner"]["exceeds_budget"] is True
    assert record["cost"]["epochs"] == 1 + 6 * 3


def test_a_method_that_spends_more_without_declaring_it_fails(bench: Workbench) -> None:
    greedy = bench.with_method(
        """
        start = run.snapshot()
        run.train(epochs=1)
        run.rewind(start)
        run.train()
        """
    )
    with pytest.raises(RunFailed, match=r"the budget of 4 epochs is spent.*exceeds_budget=True"):
        greedy.run("tried", sparsity=0.0)


def test_a_method_that_trains_for_less_than_the_budget_fails(bench: Workbench) -> None:
    lazy = bench.with_method("run.train(epochs=3)")
    with pytest.raises(RunFailed, match=r"tried ended after 15 of 20 steps.*end with run\.train"):
        lazy.run("tried", sparsity=0.0)


@pytest.mark.parametrize("schedule", ["equal", "onecycle"])
@pytest.mark.parametrize("pruner", ["snip", "earlycrop_u", "ltr"])
def test_pruning_never_restarts_the_schedule(seen: Seen, pruner: str, schedule: str) -> None:
    dense = {step.position: step.rate for step in seen("dense", schedule=schedule).steps}
    assert len(set(dense.values())) >= 10, "at least half of the 20 steps have different rates"
    for step in seen(pruner, schedule=schedule).steps:
        assert step.rate == dense[step.position]


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_leaves_weights_buffers_optimiser_and_random_streams_alone(
    bench: Workbench, criterion: Criterion, statistics: str
) -> None:
    begun = bench.begin(statistics=statistics, optimiser="adam")
    begun.run.train(epochs=1)
    modes = [module.training for module in begun.trainer.model.modules()]
    begun.run.prune(Weights, criteria.random, 0.0)
    before, random_state = bits_of(begun.trainer), torch.get_rng_state()
    begun.run.prune(Weights, criterion, [0.0, 0.0])
    assert bits_of(begun.trainer) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in begun.trainer.model.modules()] == modes


@pytest.mark.parametrize("criterion", CRITERIA)
def test_removing_nothing_changes_no_bit_of_the_training_that_follows(
    bench: Workbench, criterion: Criterion
) -> None:
    dense, pruned = bench.begin(), bench.begin()
    dense.run.train()
    pruned.run.train(epochs=1)
    pruned.run.prune(Weights, criterion, 0.0)
    pruned.run.train()
    assert digest(pruned.trainer.model.state_dict()) == digest(dense.trainer.model.state_dict())


# Masks


@pytest.mark.parametrize("pruner", ["snip", "earlycrop_u", "ltr"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_removed_weights_are_zero_after_every_step_and_at_every_evaluation(
    seen: Seen, optimiser: str, pruner: str
) -> None:
    run = seen(pruner, optimiser=optimiser, weight_decay="0.1")
    assert sum(layer["kept"] for layer in run.record["sparsity"]["per_layer"]) == WEIGHTS / 5
    assert not any(step.revived for step in run.steps)
    assert not any(evaluation.revived for evaluation in run.evaluations)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_the_optimiser_has_no_moments_of_removed_weights(bench: Workbench, optimiser: str) -> None:
    begun = bench.begin(optimiser=optimiser)
    begun.run.train(epochs=1)
    begun.run.prune(Weights, criteria.magnitude, 0.8)
    for _ in range(2):
        moments = removed_moments(begun)
        assert len(moments) > 0
        assert (moments == 0).all()
        begun.run.train(epochs=1)


def removed_moments(begun: Begun) -> Tensor:
    """Return the moments that the optimizer has of removed weights."""
    masks = begun.trainer.units["weights"].masks()
    return torch.cat(
        [
            value[~masks[name]]
            for name, weight in prunable_weights(begun.trainer.model).items()
            for value in begun.trainer.optimiser.state[weight].values()
            if isinstance(value, Tensor) and value.shape == weight.shape
        ]
    )


def test_gradients_of_removed_weights_do_not_enter_the_clipped_norm(bench: Workbench) -> None:
    # The first step of SGD is the clipped gradient times the learning rate. If removed weights
    # entered the norm, the gradient of the others would be shorter than the clip of 0.001.
    begun = bench.begin(clip="0.001", learning_rate="1", weight_decay="0", schedule="official")
    model = begun.trainer.model
    begun.run.prune(Weights, criteria.magnitude, 0.9)
    rate = begun.trainer.schedule.at(0, begun.trainer.anchor).learning_rate
    before = nn.utils.parameters_to_vector(model.parameters()).detach().double()
    begun.run.train(steps=1)
    after = nn.utils.parameters_to_vector(model.parameters()).detach().double()
    assert float((after - before).norm()) == pytest.approx(0.001 * rate, rel=1e-3)


# Sparsity


@pytest.mark.parametrize(
    ("pruner", "asked"), [*((name, 0.8) for name in PRUNING), ("snip", 0.613), ("ltr", 0.9371)]
)
def test_the_realised_sparsity_differs_from_the_requested_one_by_at_most_a_weight(
    seen: Seen, pruner: str, asked: float
) -> None:
    sparsity = seen(pruner, sparsity=asked).record["sparsity"]
    gap = sparsity["weights"] - sparsity["requested"]
    assert sparsity["requested"] == asked
    assert gap >= -1 / WEIGHTS
    assert gap <= 1 / WEIGHTS or ENTRIES[pruner].arguments.get("group") == "structured"


@pytest.mark.parametrize("pruner", PATTERNED)
@pytest.mark.parametrize(("pattern", "left"), [((2, 4), 10 * 4 + 2 * 6), ((1, 4), 10 * 2 + 2 * 3)])
def test_a_pattern_requests_the_sparsity_that_follows_from_it(
    seen: Seen, pruner: str, pattern: tuple[int, int], left: int
) -> None:
    # The layers have six inputs for ten outputs, and ten for two: blocks of 4, 2, and 4, 4, 2.
    n, m = pattern
    sparsity = seen(pruner, n=str(n), m=str(m)).record["sparsity"]
    assert sparsity["requested"] == pytest.approx(1 - left / WEIGHTS)
    assert abs(sparsity["weights"] - sparsity["requested"]) <= 1 / WEIGHTS
    assert sparsity["pattern"] == f"{n}:{m}"


@pytest.mark.parametrize("realised", [0.7, 0.85])
def test_a_gap_between_requested_and_realised_sparsity_is_an_error(
    bench: Workbench, realised: float
) -> None:
    careless = bench.with_method(f"run.prune(Weights, snip, {realised}); run.train()")
    with pytest.raises(RunFailed, match=rf"removed {realised:.6f} .* asked to remove 0\.800000"):
        careless.run("tried", sparsity=0.8)


def test_a_request_for_a_sparsity_that_cannot_be_reached_is_refused(bench: Workbench) -> None:
    undecided = bench.with_method("run.prune(Weights, snip, 0.9)\nrun.prune(Weights, snip, 0.5)")
    with pytest.raises(RequestError, match=r"0\.5 cannot be reached; the nearest that can is 0\.9"):
        undecided.run("tried")


def test_sparsity_is_counted_from_masks_and_not_from_zeros(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = bench.points.model

    def half_zero(task: Task) -> nn.Module:
        model = build(task)
        model.get_parameter("0.weight").data[: HIDDEN // 2] = 0
        return model

    monkeypatch.setattr(bench.points, "model", half_zero)
    frozen: dict[str, Any] = {"learning_rate": "0", "weight_decay": "0"}
    dense = bench.run("dense", **frozen)["sparsity"]
    assert (dense["weights"], dense["effective"]) == (0, 0)
    pruned = bench.run("random_u", sparsity=0.25, **frozen)["sparsity"]
    assert pruned["weights"] == 0.25


def test_the_denominator_is_the_prunable_weights_of_the_dense_network(seen: Seen) -> None:
    for pruner in PRUNERS:
        layers = seen(pruner).record["sparsity"]["per_layer"]
        assert [(layer["name"], layer["weights"]) for layer in layers] == [
            ("0.weight", 60),
            ("4.weight", 20),
        ]


def test_the_effective_sparsity_is_recorded_beside_the_direct_one(bench: Workbench) -> None:
    # The last five hidden units have no inputs, so the ten weights that read them have no effect.
    cutting = bench.with_method(
        """
        def first_units(scoring):
            scores = {name: v.detach() * 0 for name, v in scoring.variables.items()}
            scores["0.weight"][:5] = 1
            scores["4.weight"][:] = 1
            return scores

        run.prune(Weights, first_units, run.sparsity)
        run.train()
        """
    )
    sparsity = cutting.run("tried", sparsity=30 / 80)["sparsity"]
    assert sparsity["weights"] == 30 / 80
    assert sparsity["effective"] == 40 / 80


def test_equal_scores_are_ranked_the_same_way_every_time(bench: Workbench) -> None:
    def equal(scoring: Scoring) -> Scores:
        return {name: torch.ones(v.shape) for name, v in scoring.variables.items()}

    kept = []
    for _ in range(2):
        begun = bench.begin()
        begun.run.prune(Weights, equal, 0.5)
        kept.append(digest(begun.trainer.units["weights"].masks()))
        assert sum(layer["kept"] for layer in begun.engine.layers()) == WEIGHTS / 2
    assert kept[0] == kept[1]


# Controls


def test_the_controls_are_registered() -> None:
    controls = {"dense", "random_u", "random_erk", "random_s", "magnitude_initial_u", "magnitude_u"}
    assert controls | {"slim_dense", "ltr"} <= set(PRUNERS)


@pytest.mark.parametrize("pruner", ["crop_u", "magnitude_u"])
def test_shuffled_masks_keep_the_count_of_each_layer(seen: Seen, pruner: str) -> None:
    scored, shuffled = (seen(pruner, masks=masks).record for masks in ("scored", "shuffled"))
    counts = [
        [layer["kept"] for layer in record["sparsity"]["per_layer"]]
        for record in (scored, shuffled)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("pruner", ["crop_u", "magnitude_u", "earlycrop_u", "crop_s"])
@pytest.mark.parametrize(("condition", "value"), [("masks", "shuffled"), ("masks", "inverted")])
def test_a_sanity_check_changes_the_masks_and_the_identity(
    seen: Seen, pruner: str, condition: str, value: str
) -> None:
    usual, checked = (seen(pruner).record, seen(pruner, **{condition: value}).record)
    masks = [
        [event["kept_sha256"] for event in record["events"] if event["verb"] == "prune"]
        for record in (usual, checked)
    ]
    assert masks[0] != masks[1]
    assert usual["run_id"] != checked["run_id"]
    assert checked["settings"][condition] == value


def test_scoring_with_half_of_the_batches_changes_the_masks(seen: Seen) -> None:
    whole, half = (seen("crop_u", scoring=scoring) for scoring in ("whole", "half"))
    events = [
        next(e for e in run.record["events"] if e["verb"] == "prune") for run in (whole, half)
    ]
    assert [event["scoring"]["batches"] for event in events] == [5, 2]
    assert events[0]["kept_sha256"] != events[1]["kept_sha256"]


def test_inverted_masks_keep_the_smallest_scores(bench: Workbench) -> None:
    by_number = """
        def numbered(scoring):
            scores = {name: v.detach() * 0 for name, v in scoring.variables.items()}
            scores["4.weight"] += 1
            return scores

        run.prune(Weights, numbered, run.sparsity)
        run.train()
        """
    record = bench.with_method(by_number).run("tried", sparsity=0.5, masks="inverted")
    layers = {layer["name"]: layer["kept"] for layer in record["sparsity"]["per_layer"]}
    assert layers["4.weight"] == 0


@pytest.mark.parametrize("pruner", ["magnitude_u", "random_s"])
def test_redrawing_the_weights_keeps_nothing_but_the_masks(seen: Seen, pruner: str) -> None:
    inherited, redrawn = (seen(pruner, weights=w) for w in ("inherited", "redrawn"))
    kept = [
        [event["kept_sha256"] for event in run.record["events"] if event["verb"] == "prune"]
        for run in (inherited, redrawn)
    ]
    assert kept[0] == kept[1]
    assert inherited.record["quality"] != redrawn.record["quality"]
    assert not any(step.revived for step in redrawn.steps)


# Reproduction


@pytest.mark.parametrize("pruner", ["random_u", "earlycrop_u", "ltr"])
def test_the_same_seed_twice_gives_equal_bits(seen: Seen, bench: Workbench, pruner: str) -> None:
    first, again = seen(pruner), observe(bench, pruner)
    assert first.steps == again.steps
    for part in ("run_id", "status", "quality", "sparsity", "events"):
        assert first.record[part] == again.record[part]


def test_a_dense_run_is_the_same_run_at_every_sparsity(bench: Workbench) -> None:
    plans = [bench.plan("dense", sparsity=sparsity) for sparsity in (0.5, 0.9)]
    assert plans[0].run_id == plans[1].run_id
    assert plans[0].spec.sparsity == 0
    assert bench.plan("snip", sparsity=0.5).run_id != bench.plan("snip", sparsity=0.9).run_id


@pytest.mark.parametrize("pruner", ["snip", "crop_u"])
def test_the_statistics_used_for_scoring_change_the_masks_and_are_recorded(
    seen: Seen, pruner: str
) -> None:
    batch, running = (seen(pruner, statistics=name).record for name in ("batch", "running"))
    assert batch["settings"]["statistics"] == "batch"
    assert running["settings"]["statistics"] == "running"
    for name, record in (("batch", batch), ("running", running)):
        scoring = record["events"][0]["scoring"]
        assert (scoring["batches"], scoring["statistics"]) == (5, name)
    assert batch["events"][0]["kept_sha256"] != running["events"][0]["kept_sha256"]
    assert batch["run_id"] != running["run_id"]


@pytest.mark.parametrize("source", ["synthetic", "real", "official", "unofficial"])
def test_the_source_of_the_data_is_in_the_record(seen: Seen, source: str) -> None:
    record = seen("dense", source=source).record
    assert record["data"] == {
        "source": source,
        "name": "random points",
        "sha256": "0" * 64,
        "stands_in_for": None,
    }
    for stamp in ("SYNTHETIC", "UNOFFICIAL"):
        assert (stamp in summarise(record)) == (source == stamp.lower())


def test_every_choice_that_decides_a_result_is_in_its_record_and_identity(seen: Seen) -> None:
    plain = seen("earlycrop_u").record
    chosen = {"schedule": "onecycle", "steps": "3", "weight_decay": "0.1"}
    record = seen("earlycrop_u", **chosen).record
    assert record["spec"]["overrides"] == {"schedule": "onecycle", "steps": 3, "weight_decay": 0.1}
    assert record["spec"]["overrides"].items() <= record["settings"].items()
    assert record["run_id"] != plain["run_id"]
    assert record["settings"].keys() == plain["settings"].keys()


def test_a_cost_that_was_not_measured_is_null_with_a_reason(seen: Seen) -> None:
    cost = seen("dense").record["cost"]
    assert cost["energy_kwh"] is None
    assert cost["reasons"]["energy_kwh"] == "energy is not measured in the smoke profile"
    assert cost["reasons"]["macs"] == NOT_MEASURED
    described = cost.keys() - {"reasons", "energy_method"}
    assert {name for name in described if cost[name] is None} == cost["reasons"].keys()
    assert 0 not in [value for value in cost.values() if isinstance(value, int | float)]
