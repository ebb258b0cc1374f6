"""N:M patterns: exact in every block of every kind of layer, and in whole runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.errors import RequestError, RunFailed, Skip
from harness.prunable import prunable_weights
from harness.run import Pattern
from harness.units import Kept
from pruners import criteria
from pruners.channels.units import Channels
from pruners.distributions import per_layer
from pruners.patterns import best, left_by, misfits
from pruners.weights import Weights
from tests.helpers.workbench import Begun, Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def magnitudes(model: nn.Module) -> dict[str, Tensor]:
    return {name: w.detach().abs() for name, w in prunable_weights(model).items()}


def test_the_two_largest_of_every_four_on_paper() -> None:
    scores = torch.tensor([[4.0, 1, 3, 2, 5, 5, 5, 5, 1, 2], [0, 0, 0, 1, 9, 8, 7, 6, 2, 1]])
    # The last block has two entries only, and both stay.
    assert Pattern(2, 4).best(scores).int().tolist() == [
        [1, 0, 1, 0, 1, 1, 0, 0, 1, 1],
        [1, 0, 0, 1, 1, 1, 0, 0, 1, 1],
    ]


patterns = st.integers(1, 16).flatmap(
    lambda n: st.builds(Pattern, st.just(n), st.integers(n + 1, 17))
)


@given(patterns, st.integers(1, 70), st.integers(0, 3), st.integers(0, 10**6))
def test_every_block_keeps_the_largest(pattern: Pattern, inputs: int, ties: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 10**ties + 1, (3, inputs))
    expected = np.zeros((3, inputs), dtype=bool)
    for row in range(3):
        for start in range(0, inputs, pattern.m):
            block = scores[row, start : start + pattern.m]
            order = np.argsort(-block, kind="stable")[: pattern.n]
            expected[row, start + order] = True
    kept = pattern.best(torch.tensor(scores, dtype=torch.float32))
    assert kept.tolist() == expected.tolist()
    assert (kept.sum(1) == pattern.of(inputs)).all()


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4)])
def test_a_pattern_keeps_some_but_not_all(n: int, m: int) -> None:
    with pytest.raises(RequestError, match=rf"^the pattern {n}:{m} does not exist: .* as in 2:4"):
        Pattern(n, m)


class Layers(nn.Module):
    """Layers with six inputs, eight, and too few."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.convolution = nn.Conv2d(8, 3, 2)
        self.grouped = nn.Conv1d(12, 4, 3, groups=2)
        self.transposed = nn.ConvTranspose2d(10, 4, 2, groups=2)
        self.recurrent = nn.LSTM(8, 5)
        self.embedding = nn.Embedding(8, 8)
        self.colours = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)


def test_blocks_run_along_the_inputs_of_a_group_at_one_position_of_the_kernel() -> None:
    model = Layers()
    kept = best(model, Pattern(2, 4), magnitudes(model))

    def blocks(inputs_last: Tensor) -> list[int]:
        counts = [int(n) for n in torch.stack([b.sum() for b in inputs_last.split(4, -1)])]
        return [count // inputs_last[..., 0].numel() for count in counts]

    assert blocks(kept["linear.weight"]) == [2, 2]  # a block of four, and one of two
    assert blocks(kept["convolution.weight"].movedim(1, -1)) == [2, 2]
    assert blocks(kept["grouped.weight"].movedim(1, -1)) == [2, 2]  # six channels in each group
    for group in kept["transposed.weight"].split(5, dim=0):
        assert blocks(group.movedim(0, -1)) == [2, 1]
    assert blocks(kept["recurrent.weight_ih_l0"]) == [2, 2]
    assert blocks(kept["recurrent.weight_hh_l0"]) == [2, 1]
    for name, mask in kept.items():
        weight = prunable_weights(model)[name].detach().abs()
        assert weight[mask].mean() > weight[~mask].mean()


def test_layers_that_a_pattern_does_not_fit_stay_whole() -> None:
    model = Layers()
    whole = misfits(model, Pattern(2, 4))
    assert whole == {
        "embedding.weight": "inputs that are looked up",
        "colours.weight": "fewer than 4 inputs",
        "depthwise.weight": "fewer than 4 inputs",
    }
    kept = best(model, Pattern(2, 4), magnitudes(model))
    assert kept.keys() == prunable_weights(model).keys() - whole.keys()
    sizes = {name: weight.numel() for name, weight in prunable_weights(model).items()}
    left = sum(int(mask.sum()) for mask in kept.values()) + sum(sizes[name] for name in whole)
    assert left_by(model, Pattern(2, 4)) == left


def test_a_pattern_that_fits_no_layer_is_a_reason_to_skip() -> None:
    with pytest.raises(Skip, match=r"^the pattern 2:16 fits no layer: all have fewer than 16 inp"):
        misfits(nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 2)), Pattern(2, 16))
    with pytest.raises(Skip, match="all have inputs that are looked up or fewer than 4 inputs"):
        misfits(nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 9)), Pattern(2, 4))


def test_a_tied_weight_has_the_inputs_of_the_layer_that_multiplies_by_it() -> None:
    embedding, decoder = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
    decoder.weight = embedding.weight
    model = nn.ModuleDict({"embedding": embedding, "decoder": decoder})
    kept = best(model, Pattern(2, 4), magnitudes(model))["embedding.weight"]
    assert kept.unflatten(1, (2, 4)).sum(-1).unique().tolist() == [2]


# In a run. The network of the points has layers of 6 inputs to 10 units, and of 10 inputs to 2.

LEFT_BY_TWO_OF_FOUR = 10 * (2 + 2) + 2 * (2 + 2 + 2)
WEIGHTS = 60 + 20


def masks_of(begun: Begun) -> Kept:
    return begun.trainer.units["weights"].masks()


def follows(kept: Kept, pattern: Pattern) -> bool:
    """Return whether the masks of linear layers have a pattern in every block."""
    blocks = [block for mask in kept.values() for block in mask.split(pattern.m, dim=1)]
    return all((b.sum(1) == min(pattern.n, b.shape[1])).all() for b in blocks)


def test_the_sparsity_follows_from_the_pattern(bench: Workbench) -> None:
    begun = bench.begin("nm_magnitude")
    weights = magnitudes(begun.trainer.model)
    pruned = begun.run.prune(Weights, criteria.magnitude, Pattern(2, 4))
    assert pruned.sparsity == pytest.approx(1 - LEFT_BY_TWO_OF_FOUR / WEIGHTS)
    event = begun.journal.entries[-1].event
    assert (event["target"], event["pattern"]) == (pruned.sparsity, "2:4")
    assert event["receipt"]["weights"] == [WEIGHTS, LEFT_BY_TWO_OF_FOUR]
    assert event["receipt"]["asked"] == event["receipt"]["reached"]
    for name, mask in masks_of(begun).items():
        assert torch.equal(mask, Pattern(2, 4).best(weights[name]))


def test_the_receipt_lists_the_layers_that_it_does_not_fit(bench: Workbench) -> None:
    begun = bench.begin("nm_magnitude")
    begun.run.prune(Weights, criteria.magnitude, Pattern(2, 8))
    receipt = begun.journal.entries[-1].event["receipt"]
    assert receipt["whole"] == {"fewer than 8 inputs": ["0.weight"]}
    assert receipt["weights"] == [WEIGHTS, 60 + 2 * (2 + 2)]


@pytest.mark.parametrize("masks", ["scored", "shuffled", "inverted"])
def test_sanity_checks_keep_the_pattern(bench: Workbench, masks: str) -> None:
    begun = bench.begin("nm_magnitude", masks=masks)
    weights = magnitudes(begun.trainer.model)
    begun.run.prune(Weights, criteria.magnitude, Pattern(1, 4))
    kept = masks_of(begun)
    assert follows(kept, Pattern(1, 4))
    largest = [torch.equal(m, Pattern(1, 4).best(weights[name])) for name, m in kept.items()]
    smallest = [torch.equal(m, Pattern(1, 4).best(-weights[name])) for name, m in kept.items()]
    assert all(largest) == (masks == "scored")
    assert all(smallest) == (masks == "inverted")


def test_removed_weights_do_not_return_for_a_pattern(bench: Workbench) -> None:
    begun = bench.begin("nm_magnitude")
    begun.run.prune(Weights, criteria.magnitude, Pattern(1, 4))
    first = masks_of(begun)
    begun.run.train(epochs=1)
    begun.run.prune(Weights, criteria.random, Pattern(2, 4))
    assert all(torch.equal(mask, first[name]) for name, mask in masks_of(begun).items())


def test_the_pattern_holds_while_training_goes_on(bench: Workbench) -> None:
    begun = bench.begin("nm_magnitude", optimiser="adam", weight_decay="0.1")
    begun.run.prune(Weights, criteria.magnitude, Pattern(2, 4))
    begun.run.train(epochs=1)
    nonzero = {name: w != 0 for name, w in prunable_weights(begun.trainer.model).items()}
    assert follows(nonzero, Pattern(2, 4))


def test_a_pattern_comes_alone(bench: Workbench) -> None:
    run = bench.begin("nm_magnitude").run
    for more in ({"scope": per_layer}, {"of": "macs"}):
        arguments: dict[str, Any] = dict(more)
        with pytest.raises(RunFailed, match=r"Pattern\(2:4\)\) has neither a scope nor a cost"):
            run.prune(Weights, criteria.magnitude, Pattern(2, 4), **arguments)


@pytest.mark.parametrize("pruner", ["nm_magnitude", "sr_ste"])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"m": "16"}, r"on points: the pattern 2:16 fits no layer: all have fewer than 16 inputs$"),
        ({"n": "4"}, r"^the pattern 4:4 does not exist: n of m inputs remain, as in 2:4"),
        ({"floor": "0.6"}, r"on points: floor=0\.6 protects more of a layer than 2:4 leaves$"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(
    bench: Workbench,
    pruner: str,
    options: dict[str, Any],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.training.trainer.Trainer.step", None)
    with pytest.raises(RequestError, match=complaint):
        bench.run(pruner, **options)


def test_channels_have_no_patterns(bench: Workbench) -> None:
    with pytest.raises(Skip, match=r"^channels have no patterns such as 2:4$"):
        bench.begin("crop_s").run.prune(Channels, criteria.snip, Pattern(2, 4))


def test_a_pattern_keeps_no_budget(bench: Workbench) -> None:
    careless = bench.with_method(
        """
        from harness.run import Pattern
        run.prune(Weights, magnitude, Pattern(2, 4))
        """
    )
    with pytest.raises(Skip, match=r"the pattern 2:4 keeps no budget, and this run has macs=0\.25"):
        careless.run("tried", budget="macs=0.25")


@pytest.mark.parametrize("pruner", ["nm_magnitude", "sr_ste"])
@pytest.mark.parametrize(("n", "m", "left"), [("2", "4", 52), ("1", "4", 26), ("1", "8", 64)])
def test_the_record_says_which_sparsity_follows(
    bench: Workbench, pruner: str, n: str, m: str, left: int
) -> None:
    record = bench.run(pruner, n=n, m=m)
    sparsity = record["sparsity"]
    assert record["spec"]["sparsity"] == 0, "none was requested"
    assert sparsity["pattern"] == f"{n}:{m}"
    assert sparsity["requested"] == sparsity["weights"]
    assert math.isclose(sparsity["weights"], 1 - left / WEIGHTS)
