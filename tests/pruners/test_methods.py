"""What methods ask of a run, recorded by a run that does nothing."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.errors import RequestError
from harness.run import Pruned, Run, Trained
from pruners.methods.after_training import gate_decorators
from pruners.methods.before_training import force, ntk_sap
from pruners.methods.early_in_training import (
    earlybird,
    earlycrop_s,
    earlycrop_s_fixed,
    earlycrop_u,
    earlycrop_u_fixed,
)
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
    until: Any = None

    def train(self, **arguments: Any) -> Trained:
        end = self.budget * self.steps_per_epoch
        epochs = arguments.get("epochs", arguments.get("at_most"))
        wanted = arguments.get("steps", end) if epochs is None else epochs * self.steps_per_epoch
        steps = min(wanted, end - self.position)
        self.position += steps
        kind = next((k for k in ("watch", "until", "penalty") if k in arguments), "train")
        self.until = arguments.get("until", self.until)
        self.verbs.append(kind)
        self.lengths.append(steps)
        return Trained(steps, fired=False, scores={} if kind == "watch" else None)

    def prune(self, units: object, criterion: object, target: Any, scope: object = None) -> Pruned:
        self.verbs.append("prune")
        self.targets += target if isinstance(target, list) else [target]
        return Pruned(self.targets[-1])


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
