"""Each verb of a run on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError, RunFailed
from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.run import Trained
from harness.scoring import Scores, Scoring
from harness.trigger import Trigger
from harness.units import Units, UnreachableSparsity
from pruners import criteria
from pruners.channels.units import Channels
from pruners.distributions import per_layer
from pruners.triggers import at_epoch, lazy_regime, mask_distance
from pruners.weights import Weights
from tests.helpers.points import WEIGHTS
from tests.helpers.workbench import Begun, Workbench

STEPS_PER_EPOCH = 5
BUDGET = 4 * STEPS_PER_EPOCH


@pytest.fixture
def begun(bench: Workbench) -> Begun:
    return bench.begin()


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: nn.Module, before: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the parameters and buffers that have changed."""
    now = model.state_dict()
    return {name for name in now if not torch.equal(now[name], before[name])}


def last_event(begun: Begun) -> dict[str, Any]:
    return begun.journal.entries[-1].event


def fill_weights(begun: Begun, value: float) -> None:
    with torch.no_grad():
        for weight in prunable_weights(begun.trainer.model).values():
            weight.fill_(value)


def weights_of(begun: Begun) -> dict[str, nn.Parameter]:
    return prunable_weights(begun.trainer.model)


# train


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"epochs": 2}, 10),
        ({"steps": 7}, 7),
        ({"epochs": 1, "steps": 7}, 5),
        ({"epochs": 2, "steps": 7}, 7),
        ({"epochs": 100}, BUDGET),
        ({"epochs": 0}, 0),
        ({}, BUDGET),
    ],
)
def test_training_stops_at_the_shortest_limit_and_never_exceeds_the_budget(
    begun: Begun, limits: dict[str, Any], steps: int
) -> None:
    assert begun.run.train(**limits) == Trained(steps, fired=False)
    assert (begun.run.position, begun.run.spent) == (steps, steps)
    assert last_event(begun)["ended_by"] == "plan"


def test_no_step_is_left_at_the_end_of_the_budget(begun: Begun) -> None:
    assert begun.run.train(epochs=3).steps == 15
    assert begun.run.train().steps == 5
    assert begun.run.train().steps == 0


def test_training_in_pieces_equals_training_at_once(bench: Workbench) -> None:
    whole, pieces = bench.begin(), bench.begin()
    whole.run.train()
    for steps in (1, 3, 7, 9):
        pieces.run.train(steps=steps)
    assert changed(whole.trainer.model, pieces.trainer.model.state_dict()) == set()


def test_each_epoch_is_evaluated_on_validation_data(begun: Begun) -> None:
    begun.run.train(steps=13)
    epochs = last_event(begun)["epochs"]
    assert [(epoch["position"], epoch["spent"]) for epoch in epochs] == [(5, 5), (10, 10)]
    assert all(epoch["validation"].keys() == {"accuracy", "cross_entropy"} for epoch in epochs)


def test_until_ends_the_training_at_the_end_of_the_epoch_in_which_it_fires(begun: Begun) -> None:
    begun.run.train(steps=3)
    # The first epoch that ends is two steps from here.
    assert begun.run.train(until=at_epoch(2), at_most=3) == Trained(7, fired=True)
    assert last_event(begun)["ended_by"] == "trigger"
    assert [epoch["trigger"] for epoch in last_event(begun)["epochs"]] == [1, 2]


def test_a_threshold_is_recorded_beside_the_value_compared_with_it(begun: Begun) -> None:
    begun.run.train(until=lazy_regime(threshold=0.25), at_most=1)
    (epoch,) = last_event(begun)["epochs"]
    assert (epoch["trigger"], epoch["threshold"]) == (1, 0.25)


def test_observed_triggers_are_recorded_and_do_not_end_the_training(begun: Begun) -> None:
    observed: dict[str, Trigger] = {"second": at_epoch(2), "lazy": lazy_regime(threshold=9.0)}
    assert begun.run.train(observe=observed, epochs=3) == Trained(15, fired=False)
    readings = [epoch["observed"] for epoch in last_event(begun)["epochs"]]
    assert [reading["second"] for reading in readings] == [1, 2, 3]
    assert readings[0]["lazy"] == 1


def test_at_most_limits_until(begun: Begun) -> None:
    assert begun.run.train(until=at_epoch(3), at_most=2) == Trained(10, fired=False)
    assert last_event(begun)["ended_by"] == "cap"


def test_the_budget_limits_until(begun: Begun) -> None:
    assert begun.run.train(until=at_epoch(9)) == Trained(BUDGET, fired=False)
    assert last_event(begun)["ended_by"] == "cap"


def test_a_trigger_starts_afresh_with_every_train(begun: Begun) -> None:
    trigger = at_epoch(2)
    assert [begun.run.train(until=trigger).steps for _ in range(2)] == [10, 10]


def test_a_trigger_can_watch_what_pruning_would_keep(begun: Begun) -> None:
    fill_weights(begun, 1.0)
    trigger = mask_distance(Weights, criteria.magnitude, 0.5, threshold=0.01, epochs=2)
    begun.run.train(epochs=1, until=trigger)
    magnitudes = {name: w.detach().abs() for name, w in weights_of(begun).items()}
    largest = torch.cat([m.flatten() for m in magnitudes.values()]).topk(40).indices
    (mask,) = trigger.state()["masks"]
    assert sorted(largest.tolist()) == mask.nonzero().flatten().tolist()
    assert all(layer["kept"] == layer["weights"] for layer in begun.engine.layers())


def head(model: nn.Module) -> list[str]:
    return ["4.weight", "4.bias"]


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_only_the_selected_parameters_learn(bench: Workbench, optimiser: str) -> None:
    begun = bench.begin(optimiser=optimiser, weight_decay="0.1")
    model = begun.trainer.model
    begun.run.train(epochs=1)  # gives the others momentum that would go on moving them
    before = copied(model)
    begun.run.train(epochs=1, only=head)
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed(model, before) == {"4.weight", "4.bias", *statistics}
    begun.run.train(epochs=1)
    assert changed(model, before) == set(before), "afterwards, all of them learn again"


def bias_of_the_head(model: nn.Module) -> Tensor:
    return 3 * model.get_parameter("4.bias").sum()


def test_a_penalty_is_added_to_the_loss_that_is_differentiated(bench: Workbench) -> None:
    plain, penalised = (bench.begin(clip="0", weight_decay="0") for _ in range(2))
    plain.run.train(steps=1)
    penalised.run.train(steps=1, penalty=bias_of_the_head)
    assert changed(penalised.trainer.model, plain.trainer.model.state_dict()) == {"4.bias"}
    # One step of SGD at a rate of 0.1.
    moved, expected = (b.trainer.model.get_parameter("4.bias") for b in (penalised, plain))
    torch.testing.assert_close(moved, expected - 0.1 * 3)


def test_the_recorded_loss_excludes_the_penalty(bench: Workbench) -> None:
    plain, penalised = (bench.begin(learning_rate="0") for _ in range(2))
    plain.run.train(epochs=1)
    penalised.run.train(epochs=1, penalty=bias_of_the_head)
    losses = [last_event(begun)["epochs"][0]["loss"] for begun in (plain, penalised)]
    assert losses[0] == losses[1]


@dataclass
class Gradients:
    """A watch on the gradients of the last layer."""

    units: ClassVar = Weights
    seen: list[Tensor] = field(default_factory=list, repr=False)

    def after_backward(self, model: nn.Module, units: Units) -> None:
        gradient = model.get_parameter("4.weight").grad
        assert gradient is not None
        self.seen.append(gradient.clone())

    def scores(self) -> Scores:
        return {"4.weight": torch.stack(self.seen).abs().sum(0), "0.weight": torch.zeros(10, 6)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def test_a_watch_sees_the_gradients_of_every_step_before_clipping(bench: Workbench) -> None:
    clipped, free = (bench.begin(clip=clip, learning_rate="0") for clip in ("1e-9", "0"))
    watches = []
    for begun in (clipped, free):
        watches.append(Gradients())
        begun.run.train(epochs=1, watch=watches[-1])
        assert len(watches[-1].seen) == STEPS_PER_EPOCH
    assert all(map(torch.equal, watches[0].seen, watches[1].seen))


def test_watched_scores_are_returned_and_can_be_used_to_prune(begun: Begun) -> None:
    trained = begun.run.train(epochs=1, watch=Gradients())
    assert trained.scores is not None
    begun.run.prune(Weights, trained.scores, 60 / WEIGHTS)
    masks = begun.trainer.units["weights"].masks()
    assert masks["4.weight"].all()
    assert not masks["0.weight"].any()


# prune


def test_prune_returns_the_sparsity_that_it_reached(begun: Begun) -> None:
    for target in (0.3, 0.8):
        realised = begun.run.prune(Weights, criteria.snip, target).sparsity
        assert realised == pytest.approx(target, abs=1e-9)
    zeros = sum(int((w == 0).sum()) for w in prunable_weights(begun.trainer.model).values())
    assert zeros == 64


def test_prune_with_several_targets_scores_the_remaining_weights_anew_for_each(
    begun: Begun,
) -> None:
    left: list[int] = []

    def counting(scoring: Scoring) -> Scores:
        left.append(sum(int(alive.sum()) for alive in scoring.alive.values()))
        return criteria.snip(scoring)

    begun.run.prune(Weights, counting, [0.5, 0.75, 0.8])
    assert left == [80, 40, 20]
    assert last_event(begun)["target"] == 0.8


def test_prune_takes_no_step_and_moves_neither_clock(begun: Begun) -> None:
    begun.run.train(steps=3)
    begun.run.prune(Weights, criteria.snip, 0.5)
    assert (begun.run.position, begun.run.spent) == (3, 3)


def test_a_scope_distributes_the_target_over_the_layers(begun: Begun) -> None:
    begun.run.prune(Weights, criteria.magnitude, 0.5, scope=per_layer)
    assert [layer["kept"] for layer in begun.engine.layers()] == [30, 10]


def test_pruned_weights_never_return(begun: Begun) -> None:
    begun.run.prune(Weights, criteria.snip, 0.5)
    first = begun.trainer.units["weights"].masks()
    begun.run.train(epochs=1)
    begun.run.prune(Weights, criteria.random, 0.8)
    second = begun.trainer.units["weights"].masks()
    assert not any((second[name] & ~first[name]).any() for name in first)
    with pytest.raises(UnreachableSparsity):
        begun.run.prune(Weights, criteria.snip, 0.5)


def test_random_scores_depend_on_event_and_seed_alone(bench: Workbench) -> None:
    def drawn(seed: int) -> list[str]:
        begun, fingerprints = bench.begin(seed=seed), list[str]()

        def drawing(scoring: Scoring) -> Scores:
            scores = criteria.random(scoring)
            fingerprints.append(digest(scores))
            return scores

        for _ in range(2):
            begun.run.prune(Weights, drawing, 0.0)
        return fingerprints

    assert drawn(0) == drawn(0)
    assert len({*drawn(0), *drawn(1)}) == 4


def test_units_that_are_not_registered_cannot_be_pruned(begun: Begun) -> None:
    class Unheard(Weights):
        pass

    with pytest.raises(RequestError, match="class Unheard is not registered as units"):
        begun.run.prune(Unheard, criteria.snip, 0.5)


def test_the_event_says_what_was_pruned_and_with_which_scores(begun: Begun) -> None:
    begun.run.train(steps=3)
    begun.run.prune(Weights, criteria.snip, 0.5)
    event = last_event(begun)
    assert (event["position"], event["spent"], event["verb"]) == (3, 3, "prune")
    assert (event["units"], event["target"]) == ("weights", 0.5)
    passes = {"forward": 5, "backward": 5}
    assert event["scoring"] == {"batches": 5, "statistics": "batch", "passes": passes}
    assert event["kept_sha256"] == digest(begun.trainer.units["weights"].alive())


# snapshot and rewind


def test_rewind_restores_everything_but_the_steps_spent(begun: Begun) -> None:
    run, trainer = begun.run, begun.trainer
    run.train(steps=7)  # in the middle of an epoch
    then = {"model": copied(trainer.model), "stream": trainer.stream.state()["position"]}
    moments = [copied_state(trainer.optimiser)]
    ticket = run.snapshot()
    run.train(epochs=2)
    assert changed(trainer.model, then["model"]) == set(then["model"])
    run.rewind(ticket)
    moments.append(copied_state(trainer.optimiser))
    assert changed(trainer.model, then["model"]) == set(), "weights and BatchNorm's buffers"
    assert all(map(torch.equal, *moments))
    assert trainer.stream.state()["position"] == then["stream"] == 7
    assert (run.position, run.spent) == (7, 17)


def copied_state(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    moments = [value for state in optimiser.state.values() for value in state.values()]
    assert len(moments) > 0
    return [moment.clone() for moment in moments]


def test_what_is_trained_again_is_the_same_to_the_last_bit(bench: Workbench) -> None:
    begun = bench.begin("ltr")
    begun.run.train(steps=7)  # in the middle of an epoch
    ticket = begun.run.snapshot()
    ends = set()
    for _ in range(3):
        begun.run.train(steps=8)
        losses = [epoch["loss"] for epoch in last_event(begun)["epochs"]]
        ends.add((digest(begun.trainer.model.state_dict()), *losses))
        begun.run.train(steps=1)  # of an epoch that is rewound before it ends
        begun.run.rewind(ticket)
    ((_, *losses),) = ends
    assert len(losses) == 2


def test_masks_survive_rewinding_the_weights(begun: Begun) -> None:
    run, trainer = begun.run, begun.trainer
    fill_weights(begun, 1.0)
    for companion in trainer.stream.companions:
        companion.load_state_dict(trainer.model.state_dict())
    run.train(epochs=1)
    before = copied(trainer.model)
    ticket = run.snapshot()
    run.train(epochs=1)
    run.prune(Weights, criteria.magnitude, 0.75)
    masks = trainer.units["weights"].masks()
    run.rewind(ticket)
    assert sum(layer["kept"] for layer in begun.engine.layers()) == 20
    for network in (trainer.model, *trainer.stream.companions):
        for name, weight in prunable_weights(network).items():
            assert (weight[~masks[name]] == 0).all()
            assert (weight[masks[name]] != 0).all()
    for name, weight in prunable_weights(trainer.model).items():
        assert torch.equal(weight[masks[name]], before[name][masks[name]])
        momentum = trainer.optimiser.state[weight]["momentum_buffer"]
        assert (momentum[~masks[name]] == 0).all()
        assert (momentum[masks[name]] != 0).all()


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_removed_channels_stay_removed_when_a_larger_network_is_rewound(
    bench: Workbench, optimiser: str
) -> None:
    begun = bench.begin(optimiser=optimiser)
    run = begun.run
    moments = []
    for target in (0.4, 0.7):
        run.train(epochs=1)
        moments.append((run.position, run.snapshot(), channels_of(begun)))
        run.prune(Channels, criteria.snip, target)
    run.train(steps=3)
    moments.append((run.position, run.snapshot(), channels_of(begun)))
    left = channels_of(begun).keys()
    assert [position for position, _, _ in moments] == [5, 10, 13]
    assert len(left) < 10

    for position, ticket, then in reversed(moments):
        run.rewind(ticket)
        assert run.position == position
        rewound = channels_of(begun)
        assert rewound.keys() == left
        for number, parts in rewound.items():
            assert parts.keys() == then[number].keys()
            assert all(torch.equal(part, then[number][name]) for name, part in parts.items())
        run.train(steps=1)


CHANNEL_DIMENSIONS = {
    "0.weight": 0,
    "0.bias": 0,
    "1.weight": 0,
    "1.bias": 0,
    "1.running_mean": 0,
    "1.running_var": 0,
    "4.weight": 1,
}
"""The tensors of the points' network that have a part for each hidden channel, and along which
dimension."""


def channels_of(begun: Begun) -> dict[int, dict[str, Tensor]]:
    """Return all that belongs to each hidden channel, by its number in the dense network.

    That is its part of the network, of the companion network, and of the optimizer's moments.
    """
    trainer = begun.trainer
    (companion,) = trainer.stream.companions
    parts: dict[str, Tensor] = {}
    for name, dimension in CHANNEL_DIMENSIONS.items():
        tensor = trainer.model.state_dict(keep_vars=True)[name]
        moments = trainer.optimiser.state.get(tensor, {})
        whole = {"network": tensor, "companion": companion.state_dict()[name], **moments}
        for owner, values in whole.items():
            if values.shape == tensor.shape:  # Adam's count of steps belongs to no channel
                parts[f"{owner} {name}"] = values.detach().movedim(dimension, 0)
    numbers: Sequence[int] = range(10)
    if "channels" in trainer.units:
        (kept,) = trainer.units["channels"].state().values()
        numbers = kept.tolist()
    return {
        number: {name: values[place].clone() for name, values in parts.items()}
        for place, number in enumerate(numbers)
    }


def test_the_schedule_is_rewound_too(begun: Begun) -> None:
    run, trainer = begun.run, begun.trainer
    ticket = run.snapshot()
    run.train(epochs=3)
    late = trainer.optimiser.param_groups[0]["lr"]
    run.rewind(ticket)
    run.train(steps=1)
    assert trainer.optimiser.param_groups[0]["lr"] == pytest.approx(0.1)
    assert late < 0.1


# Budget


def test_a_rewound_run_may_not_train_beyond_its_budget(begun: Begun) -> None:
    start = begun.run.snapshot()
    begun.run.train(epochs=3)
    begun.run.rewind(start)
    with pytest.raises(RunFailed, match="the budget of 4 epochs is spent"):
        begun.run.train()
    assert begun.run.spent == BUDGET


def test_a_method_that_declares_it_may_train_beyond_its_budget(bench: Workbench) -> None:
    begun = bench.begin("ltr")
    start = begun.run.snapshot()
    begun.run.train()
    begun.run.rewind(start)
    begun.run.train()
    assert (begun.run.position, begun.run.spent) == (BUDGET, 2 * BUDGET)


def test_the_official_schedule_grants_a_whole_budget_after_pruning(bench: Workbench) -> None:
    dense, early = (bench.begin(schedule="official") for _ in range(2))
    dense.run.train()
    assert dense.run.spent == BUDGET
    early.run.train(epochs=1)
    early.run.prune(Weights, criteria.snip, 0.8)
    early.run.train()
    assert early.run.spent == STEPS_PER_EPOCH + BUDGET
