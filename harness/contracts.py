"""The contracts of tasks and pruners, as rules that every plug-in can be tested against.

Each rule is a function; the first line of its docstring is the promise that ``check`` prints.
"""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from harness.engine.finish import is_collapsed
from harness.engine.run_plan import run_plan
from harness.errors import Interrupted, RequestError, RunFailed, enumerated
from harness.network import build_task
from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.pruning.unchanged import by_values, require_same
from harness.record import Record
from harness.registry import Entry, Registry
from harness.scoring import WithoutBarriers, magnitudes, scoring_mode
from harness.signals import Stop
from harness.spec import Plan
from harness.storage.store import DETAILS, Store, outcome
from harness.task import Task
from harness.training.evaluation import evaluate
from harness.training.trainer import Trainer

CPU = torch.device("cpu")

LEAST_STEPS = 60
"""Steps for which a pruner is tried, as many methods act only every few dozen steps."""


class Broken(Exception):
    """A rule is broken."""


class Noted(Exception):
    """A rule is broken, but this affects one pruning method or one condition only."""


class Skipped(Exception):
    """A rule could not be tried, because another rule is broken."""


@dataclass
class Subject:
    """The task or pruner that is checked.

    Attributes:
        registry: finds tasks and pruners.
        entry: the task or pruner.
        planned: returns the plan of a run of it, with a budget in epochs if one is given.
    """

    registry: Registry
    entry: Entry
    planned: Callable[..., Plan]

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run that is tried; a pruner gets at least `LEAST_STEPS`."""
        plan = self.planned()
        if self.entry.kind == "task":
            return plan
        steps = build_task(plan, CPU).steps_per_epoch
        return self.planned(max(plan.recipe.epochs, -(-LEAST_STEPS // steps)))

    @cached_property
    def task(self) -> Task:
        """The task, or the task that the pruner is tried on."""
        return build_task(self.plan, CPU)

    def trainer(self, seed: int = 0) -> Trainer:
        """Return a new model with its optimizer and data."""
        return Trainer(self.task, seed, "equal")

    @cached_property
    def attempt(self) -> Record | Exception:
        """The record of a run, or the exception that ended it."""
        try:
            return self.run()
        except RequestError:
            raise
        except Exception as error:
            return error

    @property
    def record(self) -> Record:
        """The record of a run.

        Raises:
            Skipped: the run did not finish.
        """
        if isinstance(self.attempt, Exception):
            raise Skipped("no run finished")
        return self.attempt

    def run(self, endings: Iterable[StopAfter] = ()) -> Record:
        """Carry out another run in a results folder of its own, and return its record.

        Args:
            endings: of the attempts that are interrupted or killed before the last one.
        """
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            for ending in endings:
                with contextlib.suppress(Interrupted, Killed):
                    return self._attempt(store, ending)
            return self._attempt(store, Stop())

    def _attempt(self, store: Store, stop: Stop) -> Record:
        return run_plan(self.plan, self.registry, store, CPU, lambda line: None, stop)


class Killed(BaseException):
    """Stands for the end of a process by ``kill -9``: nothing is saved."""


@dataclass
class StopAfter(Stop):
    """Ends an attempt at a run after a number of steps and verbs.

    Args:
        steps: how many it takes; the one after them ends it.
        saves: whether the attempt saves its state first, as it does when it is asked to stop.
    """

    steps: int = 1
    saves: bool = True

    def __call__(self) -> bool:
        """Count a step or verb, and return whether the attempt is to end."""
        self.steps -= 1
        if self.steps < 0 and not self.saves:
            raise Killed
        return self.steps < 0


Rule = Callable[[Subject], None]


def try_rule(
    rule: Rule, subject: Subject
) -> tuple[Literal["ok", "note", "skipped", "BROKEN"], str]:
    """Return whether a task or pruner keeps a rule, and why not.

    Raises:
        RequestError: the run cannot be carried out here, because data are missing, for example.
    """
    try:
        rule(subject)
    except RequestError:
        raise
    except Noted as note:
        return "note", str(note)
    except Skipped as reason:
        return "skipped", str(reason)
    except Broken as error:
        return "BROKEN", str(error)
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        return "BROKEN", _said(error)
    return "ok", ""


def _said(error: BaseException) -> str:
    """Return an exception in one text, without the file of a folder that is removed again."""
    what = "" if isinstance(error, RunFailed) else f"{type(error).__name__}: "
    return f"{what}{error}".removesuffix(f" (more in {DETAILS})")


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise Broken(complaint)


def _same(first: Any, second: Any) -> bool:
    """Compare nested containers of tensors bit by bit."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)


def models_are_reproducible(subject: Subject) -> None:
    """The same seed gives the same initial weights, and another seed gives different ones."""
    first, again, other = (digest(subject.trainer(s).model.state_dict()) for s in (0, 0, 1))
    _require(first == again, "two models of one seed differ")
    _require(first != other, "two seeds give the same model")


def something_is_prunable(subject: Subject) -> None:
    """The model has prunable weights."""
    _require(bool(prunable_weights(subject.trainer().model)), "no layer has prunable weights")


def batches_are_reproducible(subject: Subject) -> None:
    """The same seed gives the same training batches, and a restored stream continues them."""
    first, second = subject.trainer(), subject.trainer()
    for _ in range(3):
        batch = first.stream.next(first.model)
        _require(_same(batch, second.stream.next(second.model)), "two streams of one seed differ")
    state = copy.deepcopy(first.stream.state())
    expected = [first.stream.next(first.model) for _ in range(3)]
    third = subject.trainer()
    third.stream.restore(state)
    continued = [third.stream.next(third.model) for _ in range(3)]
    _require(_same(expected, continued), "a restored stream gives different batches")


def the_loss_comes_with_outputs(subject: Subject) -> None:
    """One pass gives the training loss and the outputs that are learnt from a teacher."""
    task, trainer = subject.task, subject.trainer()
    if task.outputs_are is None:
        raise Noted(
            "it does not say whether its outputs_are 'logits' or 'values', so runs with "
            "teacher=RUN are skipped"
        )
    model = trainer.model.eval()  # without dropout, so that both passes are equal
    batch = trainer.stream.next(model)
    loss, outputs = task.loss_and_outputs(model, batch)
    both = (float(loss.detach()), float(task.loss(model, batch).detach()))
    _require(math.isclose(*both, rel_tol=1e-4), f"the losses are {both[0]} and {both[1]}")
    _require(outputs.requires_grad, "the outputs have no gradient")


def scoring_leaves_no_trace(subject: Subject) -> None:
    """Scoring batches are equal at every call; scoring changes neither model nor random state."""
    trainer = subject.trainer()
    before = by_values(trainer.model, trainer.optimiser)
    first, again = subject.task.scoring_batches(0), subject.task.scoring_batches(0)
    _require(len(first) == Task.scoring_batch_count, f"{len(first)} scoring batches, not 5")
    _require(_same(first, again), "the scoring batches of one seed differ")
    with scoring_mode(trainer.model, batch_statistics=True):
        for batch in first:
            subject.task.scoring_loss(trainer.model, batch)
    require_same(before, by_values(trainer.model, trainer.optimiser), "scoring", "")


def the_loss_can_be_differentiated_twice(subject: Subject) -> None:
    """The training loss has gradients, and the scoring loss has second derivatives."""
    trainer = subject.trainer()
    batch = trainer.stream.next(trainer.model)
    loss = subject.task.loss(trainer.model, batch)
    _require(loss.shape == () and bool(loss.isfinite()), f"the loss is {loss}")
    loss.backward()
    weights = [w for w in prunable_weights(trainer.model).values() if w.requires_grad]
    _require(any(w.grad is not None for w in weights), "no prunable weight gets a gradient")
    with scoring_mode(trainer.model, batch_statistics=True):
        score = subject.task.scoring_loss(trainer.model, subject.task.scoring_batches(0)[0])
        gradients = torch.autograd.grad(score, weights, create_graph=True, materialize_grads=True)
        flow = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        second = torch.autograd.grad(flow, weights, materialize_grads=True)
    _require(any(bool(s.any()) for s in second), "the second derivatives are all zero")


def evaluation_leaves_no_trace(subject: Subject) -> None:
    """Evaluation gives the metric of both parts, equal at every call, and changes nothing."""
    trainer, metric = subject.trainer(), subject.entry.arguments["metric"]
    before = digest(trainer.model.state_dict())
    for split in ("validation", "test"):
        results = [evaluate(subject.task, trainer.model, split, metric) for _ in range(2)]
        _require(metric in results[0], f"{split} lacks the metric {metric!r}")
        _require(results[0] == results[1], f"{split} differs between two calls")
    _require(digest(trainer.model.state_dict()) == before, "evaluation changed the model")
    _require(math.isfinite(subject.task.baseline()), "the baseline is not a finite number")


def outputs_depend_on_inputs(subject: Subject) -> None:
    """The outputs have a row for each sample, depend on the input and are differentiable."""
    model = subject.trainer().model.eval()
    outputs = subject.task.outputs(model, subject.task.scoring_batches(0)[0])
    _require(outputs.ndim == 2, f"the outputs have shape {tuple(outputs.shape)}")
    _require(outputs.requires_grad, "the outputs have no gradient")
    _require(not is_collapsed(outputs), "all samples give the same output")


def everything_is_connected(subject: Subject) -> None:
    """Synaptic flow reaches every prunable layer of the dense network."""
    model = subject.trainer().model.eval().requires_grad_(True)
    mode = scoring_mode(model, batch_statistics=False)
    with mode, magnitudes(model, {}), WithoutBarriers():
        weights = prunable_weights(model)
        total = subject.task.flow(model)
        saturated = _where_gradients_vanish(total)
        gradients = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    dead = [n for n, g in zip(weights, gradients, strict=True) if not g.any()]
    if dead:
        why = "the outputs do not depend on them"
        if saturated:
            why = (
                f"with all weights positive, {' and '.join(saturated)} saturates, "
                "so that its derivative is 0"
            )
        raise Noted(
            f"none reaches {enumerated(dead)}: {why}. SynFlow cannot rank these weights; no other "
            "method needs this rule"
        )


def _where_gradients_vanish(output: Tensor) -> list[str]:
    """Return the operations of a graph that receive gradients and pass on only zeros."""
    vanished: dict[str, None] = {}
    waiting, seen, handles = [output.grad_fn], set(), list[RemovableHandle]()

    def watch(node: Node) -> None:
        def look(given: Sequence[Tensor | None], taken: Sequence[Tensor | None]) -> None:
            tensors = [tensor for tensor in given if tensor is not None]
            arrives = any(t is not None and bool(t.any()) for t in taken)
            if arrives and tensors and not any(bool(tensor.any()) for tensor in tensors):
                vanished[node.name().removesuffix("0").removesuffix("Backward")] = None

        handles.append(node.register_hook(look))

    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        watch(node)
        waiting += [following for following, _ in node.next_functions]
    output.backward(retain_graph=True)
    for handle in handles:
        handle.remove()
    return list(vanished)


def it_runs(subject: Subject) -> None:
    """A run finishes."""
    if isinstance(subject.attempt, Exception):
        raise Broken(_said(subject.attempt))


def a_dense_run_is_done(subject: Subject) -> None:
    """A dense run ends with a record."""
    it_runs(subject)
    record = subject.record
    _require(record["status"] == "done", f"its status is {record['status']}: {record['reason']}")


def the_sparsity_is_what_was_asked_for(subject: Subject) -> None:
    """It removes the requested fraction of the weights."""
    record = subject.record
    _require(record["status"] in ("done", "collapsed"), f"it {record['status']}")
    counts = record["sparsity"]["per_layer"]
    gap = abs(record["sparsity"]["weights"] - record["sparsity"]["requested"])
    allowed = 1 / sum(layer["weights"] for layer in counts)
    cut = record["sparsity"]["nodes"] is not None  # whole channels: at least the requested fraction
    _require(cut or gap <= allowed, f"the gap is {gap:.2e}")


def conditions_are_equal(subject: Subject) -> None:
    """The run starts with the weights of the dense run and trains for as many steps."""
    record = subject.record
    trainer = subject.trainer()
    initial = digest(trainer.model.state_dict())
    _require(
        record["provenance"]["initial_weights_sha256"] == initial, "the initial weights differ"
    )
    exceeds = bool(subject.entry.arguments.get("exceeds_budget"))
    _require(
        exceeds or record["cost"]["steps"] == trainer.end,
        f"it trained for {record['cost']['steps']} steps; the budget is {trainer.end}",
    )


def runs_can_be_repeated(subject: Subject) -> None:
    """The same seed gives the same masks and the same result."""
    first, again = subject.record, subject.run()
    _require(outcome(first) == outcome(again), "two runs of one seed differ")


def runs_can_be_interrupted(subject: Subject) -> None:
    """A run that is interrupted and killed repeatedly ends with the same record."""
    whole = subject.record
    # After a kill, the run repeats what it did since the last interruption.
    endings = [
        StopAfter(steps=steps, saves=saves)
        for steps in (2, 7, 17, 1, 29)
        for saves in (True, False)
    ]
    pieces = subject.run(endings)
    _require(outcome(whole) == outcome(pieces), "the interrupted run gave a different record")


TASK_CONTRACT: tuple[Rule, ...] = (
    models_are_reproducible,
    something_is_prunable,
    batches_are_reproducible,
    the_loss_comes_with_outputs,
    scoring_leaves_no_trace,
    the_loss_can_be_differentiated_twice,
    evaluation_leaves_no_trace,
    outputs_depend_on_inputs,
    everything_is_connected,
    a_dense_run_is_done,
)

PRUNER_CONTRACT: tuple[Rule, ...] = (
    it_runs,
    the_sparsity_is_what_was_asked_for,
    conditions_are_equal,
    runs_can_be_repeated,
    runs_can_be_interrupted,
)
