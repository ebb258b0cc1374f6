"""What methods ask of a run, recorded by a run that does nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.errors import RequestError
from harness.run import Exchanged, Pruned, Run, Trained
from pruners.channels.criteria import filter_distance, filter_lamp, norm_scale
from pruners.distributions import per_layer
from pruners.methods.after_training import (
    fpgm_s,
    gate_decorators,
    group_norm_s,
    growing_reg_s,
    lamp_s,
    lr_rewinding,
    slimming,
)
from pruners.methods.before_training import force, ntk_sap
from pruners.methods.during_training import (
    acdc,
    gmp,
    rigl,
    sparse_evolutionary_training,
    taylor_s,
)
from pruners.methods.early_in_training import (
    earlybird,
    earlycrop_s,
    earlycrop_s_fixed,
    earlycrop_u,
    earlycrop_u_fixed,
)
from pruners.schedules import geometric_steps
from pruners.training import L1, GroupSparsity, SmallestFilters, norm_scales
from pruners.triggers import LazyRegime


@dataclass
class Noted:
    """A run of 40 epochs with 50 steps each, whose triggers never fire."""

    sparsity: float = 0.98
    budget: int = 40
    steps_per_epoch: int = 50
    position: int = 0
    verbs: list[str] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)
    measured: list[bool] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    until: Any = None
    penalties: list[Any] = field(default_factory=list)
    criterion: Any = None
    scope: Any = None

    def train(self, **arguments: Any) -> Trained:
        end = self.budget * self.steps_per_epoch
        epochs = arguments.get("epochs", arguments.get("at_most"))
        wanted = arguments.get("steps", end) if epochs is None else epochs * self.steps_per_epoch
        steps = min(wanted, end - self.position)
        self.position += steps
        kind = next((k for k in ("watch", "until", "penalty") if k in arguments), "train")
        self.until = arguments.get("until", self.until)
        self.penalties += [arguments["penalty"]] if "penalty" in arguments else []
        self.verbs.append(kind)
        self.lengths.append(steps)
        return Trained(steps, fired=False, scores={} if kind == "watch" else None)

    def prune(
        self,
        units: object,
        criterion: object,
        target: Any,
        scope: object = None,
        measured: bool = True,
    ) -> Pruned:
        self.verbs.append("prune")
        self.criterion, self.scope = criterion, scope
        self.moments.append(self.position)
        self.measured.append(measured)
        self.targets += target if isinstance(target, list) else [target]
        return Pruned(self.targets[-1])

    def exchange(self, units: object, share: float, drop: object, grow: object) -> Exchanged:
        self.verbs.append("exchange")
        self.moments.append(self.position)
        self.shares.append(share)
        return Exchanged(0)

    def release(self, units: object) -> None:
        self.verbs.append("release")
        self.moments.append(self.position)

    def snapshot(self) -> int:
        return self.position

    def rewind(self, snapshot: int, weights: bool = True) -> None:
        self.verbs.append("rewind" if weights else "restart")
        self.position = snapshot


def decorated(**arguments: Any) -> Noted:
    run = Noted(**{k: v for k, v in arguments.items() if hasattr(Noted(), k)})
    options = {k: v for k, v in arguments.items() if not hasattr(run, k)}
    gate_decorators(cast(Run, run), **options)
    return run


def test_twenty_ticks_a_tock_after_every_five_and_the_rest() -> None:
    run = decorated()
    five = ["watch", "prune"] * 5 + ["penalty"]
    assert run.verbs == ["train", *five * 4, "train"]
    ticks = [
        length for kind, length in zip(_trainings(run), run.lengths, strict=True) if kind == "watch"
    ]
    assert ticks == [15] * 20, "15 % of 2000 steps"
    assert run.lengths[0] == 1000
    assert run.position == 2000


def test_every_tick_removes_the_same_ratio_of_what_remains() -> None:
    left = [1.0, *(1 - target for target in decorated().targets)]
    ratios = [after / before for before, after in itertools.pairwise(left)]
    assert ratios == pytest.approx([0.02 ** (1 / 20)] * 20)
    assert left[-1] == pytest.approx(0.02)


def test_the_ratio_of_the_original_takes_as_many_ticks_as_it_needs() -> None:
    run = decorated(sparsity=0.5, ratio=0.005)
    assert len(run.targets) == math.ceil(math.log(0.5) / math.log(0.995)) == 139
    with pytest.raises(RequestError, match="takes 781 Ticks; this budget has steps for 300"):
        decorated(ratio=0.005)
    with pytest.raises(RequestError, match="ratio=1 is not below 1"):
        decorated(ratio=1.0)


def test_a_short_budget_has_fewer_ticks() -> None:
    run = decorated(budget=2, steps_per_epoch=4)
    assert run.verbs == ["train", "watch", "prune", "train"]
    assert run.position == 8


def test_the_penalty_of_earlybird_stays_on_after_pruning() -> None:
    run = Noted()
    earlybird(cast(Run, run))
    assert run.verbs == ["until", "prune", "penalty"]
    assert run.lengths == [1000, 1000], "pruned at the cap, half of the budget"


@pytest.mark.parametrize(
    ("method", "threshold"),
    [
        (earlycrop_u, 0.02),  # 1 - rho
        # Removing a share p of the channels leaves (1 - p)^2 = 1 - rho of the weights.
        (earlycrop_s, 0.02**0.5),
    ],
)
def test_earlycrop_waits_for_the_lazy_regime_and_prunes_in_steps(
    method: Any, threshold: float
) -> None:
    run = Noted(sparsity=0.98)
    method(run)
    assert run.verbs == ["until", "prune", "train"]
    near_the_threshold: Any = pytest.approx(threshold)
    assert run.until == LazyRegime(near_the_threshold, norm_power=2)
    assert run.lengths[0] == 1000, "the cap is half of the budget"
    assert run.targets == pytest.approx([0.5, 0.74, 0.86, 0.92, 0.95, 0.965, 0.98])


@pytest.mark.parametrize("method", [earlycrop_u, earlycrop_s])
def test_earlycrop_takes_another_threshold_and_prunes_in_one_shot(method: Any) -> None:
    run = Noted(sparsity=0.98)
    method(run, threshold=0.3, steps=0, norm_power=1)
    assert run.until == LazyRegime(0.3, norm_power=1)
    assert run.targets == [0.98]


@pytest.mark.parametrize("method", [earlycrop_u_fixed, earlycrop_s_fixed])
def test_a_fixed_moment_is_a_share_of_the_budget(method: Any) -> None:
    run = Noted()
    method(run, moment=0.1, steps=0)
    assert run.lengths == [4 * 50, 36 * 50]
    assert run.targets == [0.98]
    with pytest.raises(RequestError, match=r"^moment=1: leaves no epoch after the pruning"):
        method(Noted(), moment=1.0)


@pytest.mark.parametrize(("returning", "targets"), [(True, [0.75]), (False, [0.5, 0.75])])
def test_force_is_one_pruning_and_iterative_snip_several(
    returning: bool, targets: list[float]
) -> None:
    run = Noted(sparsity=0.75)
    force(cast(Run, run), rounds=2, returning=returning)
    assert run.verbs == ["prune", "train"]
    assert run.targets == targets


def test_ntk_sap_prunes_equal_ratios_of_what_remains() -> None:
    run = Noted(sparsity=0.98)
    ntk_sap(cast(Run, run))
    left = [1.0, *(1 - target for target in run.targets)]
    ratios = [after / before for before, after in itertools.pairwise(left)]
    assert ratios == pytest.approx([0.02 ** (1 / 20)] * 20)


def _trainings(run: Noted) -> list[str]:
    return [verb for verb in run.verbs if verb != "prune"]


def test_taylor_prunes_twenty_times_in_the_third_quarter() -> None:
    run = Noted()
    taylor_s(cast(Run, run))
    assert run.verbs == ["train", *["watch", "prune"] * 20, "train"]
    assert run.lengths == [1000, *[25] * 20, 500]
    left = [1.0, *(1 - target for target in run.targets)]
    ratios = [after / before for before, after in itertools.pairwise(left)]
    assert ratios == pytest.approx([0.02 ** (1 / 20)] * 20)
    assert run.measured == [False] * 19 + [True]


def test_taylor_has_fewer_rounds_in_a_short_budget() -> None:
    run = Noted(budget=2, steps_per_epoch=4)
    taylor_s(cast(Run, run))
    assert run.verbs == ["train", *["watch", "prune"] * 2, "train"]
    assert run.position == 8


def test_growing_regularisation_grows_in_the_second_quarter_and_then_prunes() -> None:
    run = Noted(sparsity=0.75)
    growing_reg_s(cast(Run, run), ceiling=2.0, stages=4)
    assert run.verbs == ["train", *["penalty"] * 4, "prune", "train"]
    assert run.lengths == [500, *[125] * 4, 1000]
    # Without half of all channels a quarter of the weights is left.
    assert run.penalties == [SmallestFilters(0.5, each) for each in (0.5, 1.0, 1.5, 2.0)]
    assert run.scope is per_layer


def test_group_norms_are_computed_again_after_each_pruning() -> None:
    run = Noted()
    group_norm_s(cast(Run, run))
    assert run.verbs == ["train", "prune", "train"]
    assert run.lengths == [1000, 1000]
    assert run.targets == geometric_steps(0.98, 20)


def test_sparse_learning_takes_the_second_quarter() -> None:
    run = Noted(budget=41)
    group_norm_s(cast(Run, run), sparse_learning=True, strength=1e-3, rounds=1)
    assert run.verbs == ["train", "penalty", "prune", "train"]
    assert run.lengths == [10 * 50, 10 * 50, 21 * 50]
    assert run.penalties == [GroupSparsity(1e-3)]


def test_slimming_penalises_scales_until_it_prunes() -> None:
    run = Noted()
    slimming(cast(Run, run), strength=1e-5)
    assert run.verbs == ["penalty", "prune", "train"]
    assert run.penalties == [L1(norm_scales, 1e-5)]
    assert run.criterion is norm_scale


@pytest.mark.parametrize(
    ("method", "criterion", "scope"),
    [(fpgm_s, filter_distance, per_layer), (lamp_s, filter_lamp, None)],
)
def test_one_shot_methods_prune_after_half_of_the_budget(
    method: Any, criterion: Any, scope: Any
) -> None:
    run = Noted()
    method(run)
    assert run.verbs == ["train", "prune", "train"]
    assert run.lengths == [1000, 1000]
    assert (run.criterion, run.scope, run.targets) == (criterion, scope, [0.98])


def carried_out(method: Callable[..., None], **options: Any) -> Noted:
    """Return what a method asks of a run of 40 epochs with 50 steps each."""
    run = Noted()
    method(cast(Run, run), **options)
    return run


class TestGMP:
    def test_the_sparsity_at_each_step_is_the_cubic(self) -> None:
        run = carried_out(gmp, first=0.1, last=0.6, every=250)
        assert run.moments == [450, 700, 950, 1200]
        # A quarter, a half, three quarters and the whole of the time between 200 and 1,200.
        cubic = [1 - 0.75**3, 1 - 0.5**3, 1 - 0.25**3, 1.0]
        assert run.targets == pytest.approx([0.98 * each for each in cubic])

    def test_the_last_pruning_reaches_the_target_and_is_the_only_one_measured(self) -> None:
        run = carried_out(gmp)
        assert run.targets[-1] == 0.98
        assert run.measured == [False] * (len(run.measured) - 1) + [True]
        assert run.moments[-1] == 1500

    def test_the_interval_is_a_fiftieth_of_the_budget_and_at_most_100_steps(self) -> None:
        assert carried_out(gmp).moments[:2] == [40, 80]
        long = Noted(steps_per_epoch=1000)
        gmp(cast(Run, long))
        assert long.moments[:2] == [100, 200]

    def test_the_end_follows_the_start(self) -> None:
        with pytest.raises(RequestError, match=r"first=0\.8 and last=0\.5 leave no step"):
            carried_out(gmp, first=0.8, last=0.5)


class TestRigL:
    def test_the_share_falls_as_a_cosine(self) -> None:
        run = carried_out(rigl, share=0.4, last=0.8, every=400)
        assert run.moments == [0, 400, 800, 1200]
        shares = [0.2 * (1 + math.cos(math.pi * quarter / 4)) for quarter in (1, 2, 3)]
        assert run.shares == pytest.approx(shares)

    def test_it_is_sparse_from_the_start(self) -> None:
        assert carried_out(rigl).verbs[:3] == ["prune", "train", "exchange"]


def test_set_exchanges_after_each_epoch_but_the_last() -> None:
    run = carried_out(sparse_evolutionary_training)
    assert run.moments == [0, *range(50, 2000, 50)]
    assert set(run.shares) == {0.3}


class TestACDC:
    def test_phases_are_those_of_the_paper(self) -> None:
        run = carried_out(acdc)
        changes = list(zip([v for v in run.verbs if v != "train"], run.moments, strict=True))
        # In hundredths of the budget: sparse from 10 to 15, ..., 70 to 75, and from 85 to the end.
        sparse = [("prune", 20 * start) for start in range(10, 80, 10)]
        dense = [("release", 20 * start) for start in range(15, 80, 10)]
        pairs = zip(sparse, dense, strict=True)
        assert changes == [*itertools.chain(*pairs), ("prune", 1700)]
        assert run.position == 2000

    def test_there_is_room_for_a_sparse_phase(self) -> None:
        with pytest.raises(RequestError, match="leave no room for a sparse phase"):
            carried_out(acdc, dense=0.5, phase=0.2)


def test_learning_rate_rewinding_trains_the_whole_schedule_after_each_pruning() -> None:
    run = carried_out(lr_rewinding, rounds=2)
    assert run.verbs == ["train", *["prune", "restart", "train"] * 2]
    assert run.lengths == [2000] * 3
    assert run.targets == pytest.approx([1 - 0.02**0.5, 0.98])
