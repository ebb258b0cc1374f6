"""``check`` finds the problems that a real run would meet, and explains them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.command_line import main
from harness.contracts import TASK_CONTRACT
from tests.helpers.workbench import METHOD, POINTS

pytestmark = pytest.mark.usefixtures("unmeasured")

Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Check a method with this body on the points, and return exit code and lines."""

    def run(body: str, *words: str) -> tuple[int, list[str]]:
        plugin = tmp_path / "tried.py"
        plugin.write_text(METHOD + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
        plugins = ["--plugin", str(plugin), "--plugin", str(POINTS)]
        code = main(["check", "pruner", "tried", "--task", "points", *plugins, *words])
        printed = capsys.readouterr()
        return code, (printed.out + printed.err).splitlines()

    return run


@pytest.mark.slow
def test_a_correct_method_keeps_every_rule(check: Check) -> None:
    code, lines = check("run.train(epochs=1)\nrun.prune(Weights, crop, run.sparsity)\nrun.train()")
    assert code == 0, lines
    assert lines[-1] == "pruner tried passes all 5 checks"


PERIODIC = """
import torch
run.prune(Weights, magnitude, run.sparsity)
while run.position < run.budget * run.steps_per_epoch:
    run.train(steps=10)
    if run.position == 50:
        run.prune(Weights, torch.ones(3), run.sparsity)
"""


def test_a_method_that_acts_every_few_dozen_steps_is_tried_long_enough(check: Check) -> None:
    code, lines = check(PERIODIC)
    assert code == 1
    assert lines[0].startswith("BROKEN  A run finishes: the criterion returned a Tensor, not")
    assert "failure.txt" not in "".join(lines)
    assert all(line.startswith("skipped ") for line in lines[1:-1])
    assert lines[-1] == "pruner tried fails 1 of 5 checks"


def test_a_task_that_cannot_be_built_has_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "points.py").write_text(POINTS.read_text())
    broken = TASK.replace("    def model(self):\n", "    def model(self):\n        1 / 0\n")
    (tmp_path / "limited.py").write_text(broken)
    code = main(["check", "task", "limited", "--plugin", str(tmp_path / "limited.py")])
    *lines, last = capsys.readouterr().out.splitlines()
    assert code == 1
    assert [line.split()[0] for line in lines] == ["BROKEN"] + (len(TASK_CONTRACT) - 1) * [
        "skipped"
    ]
    assert lines[0].endswith("division by zero")
    assert all(line.endswith(": the same error") for line in lines[1:])
    assert last == f"task limited fails 1 of {len(TASK_CONTRACT)} checks"


@pytest.mark.slow
def test_settings_apply_to_the_tried_run(check: Check) -> None:
    code, lines = check(PERIODIC, "--set", "epochs=8")
    assert code == 0, lines


def test_a_criterion_that_overwrites_the_network_breaks_a_rule(check: Check) -> None:
    body = """
    def overwriting(scoring):
        for v in scoring.variables.values():
            v.data.fill_(0.01)
        return magnitude(scoring)
    run.prune(Weights, overwriting, run.sparsity)
    run.train()
    """
    code, lines = check(body)
    assert code == 1
    assert "overwriting (tried.py, line 8) changed the weights (0.weight, 4.weight)" in lines[0]


@pytest.mark.slow
def test_a_method_with_state_of_its_own_breaks_a_rule(check: Check) -> None:
    """Only interrupted attempts reveal it."""
    body = """
    started = globals().setdefault("STARTED", [])
    started.append(1)
    run.prune(Weights, magnitude, run.sparsity)
    run.train(steps=3 + len(started) % 2)
    run.train()
    """
    code, lines = check(body)
    assert code == 1
    assert any("is not deterministic" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("pruner snip --task digts", "unknown task 'digts'; did you mean 'digits'?"),
        ("pruner snip --set width=0", "width=0 is less than 1"),
        ("pruner snip --set net=vit", "unknown setting 'net' for digits with snip"),
        ("task digits --task ptb", "--task is for check pruner only"),
        ("task digits --profile smoky", "has no profile 'smoky'; did you mean 'smoke'?"),
        ("pruner snip --plugin nowhere.py", "plug-in nowhere.py cannot be read: No such file"),
    ],
)
def test_a_wrong_request_is_refused(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


TASK = """
import torch
from torch import nn
from harness.registry import task
from points import Points, describe

@task(
    "limited", title="Points, a network with bounded activations", metric="accuracy", goal="max",
    data=":describe", profiles={"smoke": {}}, choices={"layer": ("relu6", "sigmoid", "relu")},
    settings={"epochs": 4, "batch_size": 8, "optimiser": "sgd", "learning_rate": 0.1,
              "weight_decay": 0.01, "clip": 10.0, "source": "synthetic", "layer": "relu6"},
)
class Limited(Points):
    def model(self):
        layer = {"relu6": nn.ReLU6, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}[self.settings["layer"]]
        return nn.Sequential(nn.Linear(6, 10), nn.Dropout(0), nn.Identity(), layer(),
                             nn.Linear(10, 2))

    def flow(self, model):
        return model(1000 * torch.ones(1, 6).double()).sum()
"""


@pytest.mark.parametrize(
    ("layer", "said"), [("relu6", "Hardtanh"), ("sigmoid", "Sigmoid"), ("relu", None)]
)
def test_a_layer_that_stops_the_synaptic_flow_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layer: str, said: str | None
) -> None:
    (tmp_path / "points.py").write_text(POINTS.read_text())
    (tmp_path / "limited.py").write_text(TASK)
    words = ["task", "limited", "--set", f"layer={layer}"]
    code = main(["check", *words, "--plugin", str(tmp_path / "limited.py")])
    output = capsys.readouterr().out
    assert code == 0, output
    assert f"task limited passes all {len(TASK_CONTRACT)} checks" in output
    if said is None:
        assert "note" not in output
    else:
        assert f"none reaches 0.weight: with all weights positive, {said} saturates" in output
