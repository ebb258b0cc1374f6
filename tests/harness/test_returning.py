"""Removed weights that return: exchanges, releases, and schedules that start again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RunFailed
from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.scoring import Scores, Scoring
from harness.units import ScoreError
from pruners import criteria
from pruners.channels.units import Channels
from pruners.weights import Weights
from tests.helpers.points import WEIGHTS
from tests.helpers.workbench import Begun, Workbench


@pytest.fixture
def begun(bench: Workbench) -> Begun:
    return bench.begin(optimiser="adam")


def masks(begun: Begun) -> dict[str, Tensor]:
    return {n: mask.clone() for n, mask in begun.trainer.units["weights"].alive().items()}


def three_weights() -> Weights:
    """Return the weights 0, 2 and 4 of a layer with six; the others are removed."""
    layer = nn.Linear(6, 1, bias=False)
    units = Weights(layer)
    alive = torch.tensor([[True, False, True, False, True, False]])
    units.apply(layer, None, [], {"weight": alive})
    return units


def kept(units: Weights, drop: list[float], grow: list[float], share: float) -> list[int]:
    scores: tuple[Scores, Scores] = (
        {"weight": torch.tensor([drop])},
        {"weight": torch.tensor([grow])},
    )
    return units.exchanged(*scores, share)["weight"].flatten().nonzero().flatten().tolist()


class TestExchanged:
    def test_the_lowest_of_one_score_make_room_for_the_highest_of_the_other(self) -> None:
        # A third of three weights: number 2 has the lowest score, and 5 the highest of the rest.
        assert kept(three_weights(), [3, 0, 1, 0, 2, 0], [9, 4, 0, 5, 9, 6], 1 / 3) == [0, 4, 5]

    def test_a_weight_that_was_just_removed_may_return(self) -> None:
        assert kept(three_weights(), [3, 0, 1, 0, 2, 0], [0, 1, 8, 1, 0, 1], 1 / 3) == [0, 2, 4]

    def test_a_share_below_one_weight_changes_nothing(self) -> None:
        assert kept(three_weights(), [3, 0, 1, 0, 2, 0], [9] * 6, 0.3) == [0, 2, 4]

    def test_a_score_that_is_no_number_is_refused(self) -> None:
        nan = math.nan
        with pytest.raises(ScoreError, match="'weight' a score that is not a finite number"):
            kept(three_weights(), [3, 0, 1, 0, 2, 0], [0, nan, 0, 0, 0, 0], 0.5)
        # Of weights that stay, the score does not matter.
        assert kept(three_weights(), [3, 0, 1, 0, 2, 0], [nan, 1, 0, 0, 0, 0], 0.5) == [0, 1, 4]

    def test_the_whole_share_exchanges_as_many_as_there_are(self) -> None:
        assert kept(three_weights(), [3, 0, 1, 0, 2, 0], [1, 9, 1, 9, 1, 9], 1.0) == [1, 3, 5]


class TestExchange:
    def test_every_layer_keeps_its_number_of_weights(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.random, 0.5)
        before = masks(begun)
        exchanged = begun.run.exchange(
            Weights, 0.5, drop=criteria.magnitude, grow=criteria.dense_gradient
        )
        after = masks(begun)
        for name in before:
            assert after[name].sum() == before[name].sum()
        assert exchanged.units == sum(int((before[n] & ~after[n]).sum()) for n in before) > 0

    def test_the_largest_gradients_grow(self, begun: Begun) -> None:
        seen: dict[str, Tensor] = {}

        def grow(scoring: Scoring) -> Scores:
            seen.update({name: g.abs() for name, g in scoring.gradient(dense=True).items()})
            return dict(seen)

        begun.run.prune(Weights, criteria.random, 0.5)
        before = masks(begun)
        begun.run.exchange(Weights, 0.3, drop=criteria.magnitude, grow=grow)
        for name, after in masks(begun).items():
            grown, not_grown = after & ~before[name], ~after
            assert seen[name][grown].min() >= seen[name][not_grown].max()

    def test_weights_that_return_are_zero_with_fresh_moments_and_then_learn(
        self, begun: Begun
    ) -> None:
        begun.run.train(epochs=1)
        begun.run.prune(Weights, criteria.random, 0.5)
        before = masks(begun)
        begun.run.train(epochs=1)
        begun.run.exchange(Weights, 0.5, drop=criteria.magnitude, grow=criteria.random)
        grown = {name: after & ~before[name] for name, after in masks(begun).items()}
        weights = prunable_weights(begun.trainer.model)
        for name, weight in weights.items():
            state = begun.trainer.optimiser.state[weight]
            for values in (weight, state["exp_avg"], state["exp_avg_sq"]):
                assert not values[grown[name]].any()
        begun.run.train(epochs=1)
        assert all(bool(weights[name][where].any()) for name, where in grown.items())

    def test_the_companion_follows(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.random, 0.5)
        begun.run.exchange(Weights, 0.5, drop=criteria.magnitude, grow=criteria.random)
        (companion,) = begun.trainer.stream.companions
        after = masks(begun)
        assert not any(w[~after[n]].any() for n, w in prunable_weights(companion).items())

    def test_the_event_says_how_many_and_what_remains(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.random, 0.5)
        exchanged = begun.run.exchange(Weights, 0.5, drop=criteria.magnitude, grow=criteria.random)
        event = begun.journal.entries[-1].event
        assert event["verb"] == "exchange"
        assert (event["share"], event["exchanged"]) == (0.5, exchanged.units)
        assert event["sparsity"] == 0.5
        assert event["kept_sha256"] == digest(begun.trainer.units["weights"].state())

    @pytest.mark.parametrize("share", [-0.1, 1.1, "half"])
    def test_more_than_there_is_cannot_be_exchanged(self, begun: Begun, share: float) -> None:
        with pytest.raises(RunFailed, match=r"is outside \[0, 1\]: it is the fraction"):
            begun.run.exchange(Weights, share, drop=criteria.magnitude, grow=criteria.random)

    def test_channels_that_are_cut_do_not_return(self, begun: Begun) -> None:
        begun.run.prune(Channels, criteria.random, 0.5)
        with pytest.raises(RunFailed, match="channels that are removed are cut out of the network"):
            begun.run.exchange(Channels, 0.1, drop=criteria.magnitude, grow=criteria.random)

    def test_channels_that_are_cut_cannot_be_released(self, begun: Begun) -> None:
        begun.run.prune(Channels, criteria.random, 0.5)
        with pytest.raises(RunFailed, match="channels that are removed are cut out of the network"):
            begun.run.release(Channels)

    def test_inverted_masks_drop_the_largest(self, bench: Workbench) -> None:
        begun = bench.begin(masks="inverted")
        begun.run.prune(Weights, criteria.random, 0.5)
        before = masks(begun)
        values = {n: w.detach().clone() for n, w in prunable_weights(begun.trainer.model).items()}
        begun.run.exchange(Weights, 0.1, drop=criteria.magnitude, grow=criteria.random)
        for name, after in masks(begun).items():
            dropped, stayed = before[name] & ~after, before[name] & after
            if dropped.any():
                assert values[name][dropped].abs().min() >= values[name][stayed].abs().median()

    def test_shuffled_masks_exchange_as_many_others(self, bench: Workbench) -> None:
        after = []
        for kind in ("scored", "shuffled"):
            begun = bench.begin(masks=kind)
            begun.run.prune(Weights, criteria.magnitude, 0.0)
            begun.run.prune(Weights, criteria.magnitude, 0.5)
            begun.run.exchange(Weights, 0.2, drop=criteria.magnitude, grow=criteria.dense_gradient)
            after.append(masks(begun))
        for name in after[0]:
            assert after[0][name].sum() == after[1][name].sum()
        assert any(not torch.equal(after[0][name], after[1][name]) for name in after[0])


class TestRelease:
    def test_all_weights_return_at_zero_and_learn_again(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.magnitude, 0.8)
        begun.run.release(Weights)
        weights = prunable_weights(begun.trainer.model)
        assert sum(int(w.count_nonzero()) for w in weights.values()) == WEIGHTS // 5
        begun.run.train(epochs=1)
        assert all(bool(w.all()) for w in weights.values())

    def test_a_released_network_can_be_pruned_to_less(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.magnitude, 0.8)
        begun.run.release(Weights)
        begun.run.train(epochs=1)
        assert begun.run.prune(Weights, criteria.magnitude, 0.5).sparsity == 0.5


class TestPruningThatIsNotMeasured:
    def test_it_removes_the_same_weights(self, bench: Workbench) -> None:
        kept = []
        for measured in (True, False):
            begun = bench.begin()
            begun.run.prune(Weights, criteria.snip, 0.5, measured=measured)
            kept.append(digest(begun.trainer.units["weights"].state()))
        assert kept[0] == kept[1]

    def test_its_event_has_neither_gradient_flow_nor_receipt(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.snip, 0.5, measured=False)
        event = begun.journal.entries[-1].event
        assert event["measured"] is False
        assert {"gradient_flow", "receipt"}.isdisjoint(event)

    def test_the_receipt_that_follows_counts_from_there(self, begun: Begun) -> None:
        begun.run.prune(Weights, criteria.snip, 0.25)
        begun.run.prune(Weights, criteria.snip, 0.5, measured=False)
        begun.run.prune(Weights, criteria.snip, 0.75)
        assert begun.journal.entries[-1].event["receipt"]["weights"] == [40, 20]


class TestRewindingTheScheduleAlone:
    def test_weights_and_moments_stay_and_the_clock_returns(self, bench: Workbench) -> None:
        begun = bench.begin("ltr", optimiser="adam")
        start = begun.run.snapshot()
        begun.run.train()
        begun.run.prune(Weights, criteria.magnitude, 0.5)
        model = begun.trainer.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        moments = begun.trainer.optimiser.state_dict()["state"]
        begun.run.rewind(start, weights=False)
        after = begun.trainer.model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        again = begun.trainer.optimiser.state_dict()["state"]
        for number, state in moments.items():
            assert torch.equal(again[number]["exp_avg"], state["exp_avg"])
        assert begun.run.position == 0
        begun.run.train(steps=1)
        assert begun.trainer.optimiser.param_groups[0]["lr"] == pytest.approx(0.1)

    def test_removed_channels_stay_removed(self, bench: Workbench) -> None:
        begun = bench.begin("ltr")
        start = begun.run.snapshot()
        begun.run.train(epochs=1)
        begun.run.prune(Channels, criteria.random, 0.5)
        shapes = [tuple(p.shape) for p in begun.trainer.model.parameters()]
        begun.run.rewind(start, weights=False)
        assert [tuple(p.shape) for p in begun.trainer.model.parameters()] == shapes
        begun.run.train(epochs=1)

    def test_the_event_says_that_weights_were_kept(self, bench: Workbench) -> None:
        begun = bench.begin("ltr")
        start = begun.run.snapshot()
        begun.run.rewind(start, weights=False)
        assert begun.journal.entries[-1].event["weights"] == "kept"
