"""The statuses of runs that end badly: collapsed, diverged, or failed over an undefined score."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from harness.command_line import main
from tests.helpers.workbench import Workbench

EMPTY_FIRST_LAYER = """
def last_layer(scoring):
    scores = {name: v.detach() * 0 for name, v in scoring.variables.items()}
    scores["4.weight"][:] = 1
    return scores

run.prune(Weights, last_layer, run.sparsity)
run.train()
"""


def test_a_collapsed_network_is_marked_and_its_quality_recorded(bench: Workbench) -> None:
    record = bench.with_method(EMPTY_FIRST_LAYER).run("tried", sparsity=0.75)
    assert record["status"] == "collapsed"
    assert record["reason"] == "the output no longer depends on the input"
    assert record["sparsity"]["emptied_layers"] == ["0.weight"]
    assert record["sparsity"]["effective"] == 1
    one_class_for_all = [pytest.approx(share) for share in (45, 55)]
    assert record["quality"]["test"] in one_class_for_all
    assert record["cost"]["steps"] == 20


class WithSkipConnection(nn.Module):
    """A network with a skip connection around it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, module in network.named_children():
            self.add_module(name, module)

    def forward(self, points: Tensor) -> Tensor:
        output: Tensor = points[:, :2] + nn.Sequential(*self.children())(points)
        return output


def test_an_emptied_layer_beside_a_skip_connection_is_no_collapse(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = bench.points.model
    monkeypatch.setattr(bench.points, "model", lambda task: WithSkipConnection(build(task)))
    record = bench.with_method(EMPTY_FIRST_LAYER).run("tried", sparsity=0.75)
    assert record["status"] == "done"
    assert record["sparsity"]["emptied_layers"] == ["0.weight"]


@pytest.mark.parametrize("pruner", ["dense", "snip"])
def test_the_record_of_a_diverged_run_says_so(bench: Workbench, pruner: str) -> None:
    record = bench.run(pruner, learning_rate="1e38", clip="0")
    assert record["status"] == "diverged"
    assert "the training loss became nan" in record["reason"]
    assert record["quality"]["test"] is None
    assert record["quality"]["metric"] == "accuracy"
    assert record["sparsity"]["weights"] == record["sparsity"]["requested"]
    assert record["cost"]["steps"] == 5


def test_a_run_that_diverges_in_its_last_step_has_diverged(bench: Workbench) -> None:
    exploding = bench.with_method(
        """
        def no_gradient_at_zero(model):
            return (0 * model.get_parameter("4.bias")).sqrt().sum()

        run.prune(Weights, snip, run.sparsity)
        run.train(steps=19)
        run.train(penalty=no_gradient_at_zero)
        """
    )
    record = exploding.run("tried")
    assert record["status"] == "diverged"
    assert record["reason"] == "the weights were not finite after step 20"
    assert record["quality"]["test"] is None


def test_a_network_that_diverged_before_it_was_scored_has_diverged(bench: Workbench) -> None:
    exploding = bench.with_method(
        """
        def no_gradient_at_zero(model):
            return (0 * model.get_parameter("4.bias")).sqrt().sum()

        run.train(steps=1, penalty=no_gradient_at_zero)
        run.prune(Weights, snip, run.sparsity)
        """
    )
    assert exploding.run("tried")["status"] == "diverged"


def test_an_undefined_score_fails_the_run_and_names_layer_and_criterion(
    bench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    dividing = bench.with_method(
        """
        def nothing_by_nothing(scoring):
            return {name: v.detach() * 0 / 0 for name, v in scoring.variables.items()}

        run.prune(Weights, nothing_by_nothing, run.sparsity)
        """
    )
    plugins = [word for file in dividing.registry.plugins for word in ("--plugin", str(file))]
    words = ["--task", "points", "--pruner", "tried", "--profile", "smoke"]
    assert main(["run", *words, *plugins, "--results", str(bench.folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "failed: the criterion gave '0.weight' a score that is not a finite number: "
        "nothing_by_nothing (tried.py, line 8)"
    )
