"""One spec being carried out, as a pruner sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import nn

from harness.checkpoint import Checkpoints
from harness.errors import Interrupted, RunFailed
from harness.evaluation import evaluate
from harness.journal import Entry, Journal, fingerprint
from harness.ledger import Ledger
from harness.prunable import prunable_weights
from harness.pruning import Criterion, digest, prune
from harness.registry import Registry
from harness.scoring import Scores
from harness.seeds import derive
from harness.sparsity import dense_shapes, layers, weight_sparsity
from harness.spec import Plan, Spec
from harness.theory import TangentKernel
from harness.training import Penalty, Trainer
from harness.trigger import Trigger
from harness.units import Scope, Units

Learning = Callable[[nn.Module], Collection[str]]
"""From a model to the names of the parameters that learn."""


class Watch(Protocol):
    """Accumulates a score per unit while training."""

    def after_backward(self, model: nn.Module) -> None:
        """Look at the gradients of one training step."""

    def scores(self) -> Scores:
        """Return what was accumulated."""

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on from here."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""


@dataclass(frozen=True)
class Trained:
    """What `Run.train` returns."""

    steps: int
    fired: bool
    """Whether the trigger ended the training, and not the cap or the budget."""
    scores: Scores | None = None
    """What was watched."""


@dataclass(frozen=True)
class Pruned:
    """What `Run.prune` returns."""

    sparsity: float
    """The fraction of the prunable weights that is gone."""


@dataclass(frozen=True)
class Snapshot:
    """A moment that `Run.rewind` can bring back."""

    number: int


Returned = Trained | Pruned | Snapshot | None
Progress = dict[str, Any]


class Run:
    """What a method may do, and all that it may know.

    A method is a program over its run. Its verbs are `train`, `prune`, `snapshot` and `rewind`;
    it is never handed the model, the optimiser or test data. When a run that was interrupted goes
    on, its program starts again: verbs that a checkpoint covers return what they returned before
    and do nothing.

    Attributes:
        spec: the request.
        sparsity: the fraction of prunable weights to remove.
        budget: epochs of training, equal for every method.
        steps_per_epoch: optimiser steps in an epoch.
    """

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        trainer: Trainer,
        journal: Journal,
        checkpoints: Checkpoints,
        ledger: Ledger,
        interrupted: Callable[[], bool],
        report: Callable[[str], None],
    ) -> None:
        self.spec: Spec = plan.spec
        self.sparsity = plan.spec.sparsity
        self.budget = int(plan.settings["epochs"])
        self.steps_per_epoch = trainer.task.steps_per_epoch
        self._plan = plan
        self._registry = registry
        self._trainer = trainer
        self._journal = journal
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._interrupted = interrupted
        self._report = report
        self._dense_shapes = dense_shapes(trainer.model)
        self.initial_digest = digest(trainer.model.state_dict())
        self._batches = trainer.task.scoring_batches(plan.spec.seed)
        self._kernel = (
            TangentKernel(
                trainer.task,
                self._batches[0],
                plan.spec.seed,
                plan.conditions["statistics"] == "batch",
            )
            if plan.conditions["kernel"] == "on"
            else None
        )
        if self._kernel is not None:
            self._kernel.measure(trainer.model)
        self._verb_number = 0
        self.covered = 0
        self._progress: Progress | None = None

    @property
    def position(self) -> int:
        """Steps from the start of the schedule and the data; rewinding takes it back."""
        return self._trainer.position

    @property
    def spent(self) -> int:
        """Steps taken so far; never taken back."""
        return self._trainer.spent

    def train(
        self,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        until: Trigger | None = None,
        at_most: int | None = None,
        only: Learning | None = None,
        penalty: Penalty | None = None,
        watch: Watch | None = None,
    ) -> Trained:
        """Train to the end of the budget, or less.

        Args:
            epochs: how long, in epochs.
            steps: how long, in steps.
            until: ends the training when it fires, looked at after each epoch.
            at_most: a cap on ``until``, in epochs.
            only: picks the parameters that learn.
            penalty: is added to the loss.
            watch: accumulates scores, which are returned.
        """
        limits = [
            epochs * self.steps_per_epoch if epochs is not None else None,
            steps,
            at_most * self.steps_per_epoch if at_most is not None else None,
        ]
        longest = min((limit for limit in limits if limit is not None), default=None)

        def action(progress: Progress | None) -> tuple[Trained, dict[str, Any]]:
            with _learning(self._trainer.model, only):
                return self._train(progress, longest, until, penalty, watch)

        returned = self._carry_out(
            "train", [epochs, steps, until, at_most, only, penalty, watch], action
        )
        assert isinstance(returned, Trained)
        return returned

    def prune(
        self,
        units: type[Units],
        criterion: Criterion | Scores,
        target: float | Sequence[float],
        scope: Scope | None = None,
    ) -> Pruned:
        """Remove units until the weight sparsity is ``target``.

        Args:
            units: what to remove: ``Weights``, say.
            criterion: scores them, or scores that `train` watched.
            target: a sparsity, or several to go through with the criterion scored anew for each.
            scope: how the target is spread over the layers; None for one threshold for all.
        """
        targets = [target] if isinstance(target, int | float) else list(target)
        name = self._registry.name_of("units", units)

        def action(progress: Progress | None) -> tuple[Pruned, dict[str, Any]]:
            return self._prune(units, name, criterion, targets, scope)

        how = criterion if callable(criterion) else "watched scores"
        returned = self._carry_out("prune", [name, how, targets, scope], action)
        assert isinstance(returned, Pruned)
        return returned

    def snapshot(self) -> Snapshot:
        """Remember this moment: weights, buffers, optimiser, place in schedule and data."""

        def action(progress: Progress | None) -> tuple[Snapshot, dict[str, Any]]:
            snapshot = Snapshot(self._verb_number)
            self._checkpoints.save_snapshot(snapshot.number, self._trainer.snapshot())
            return snapshot, {}

        returned = self._carry_out("snapshot", [], action)
        assert isinstance(returned, Snapshot)
        return returned

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a moment; what was pruned since stays pruned."""

        def action(progress: Progress | None) -> tuple[None, dict[str, Any]]:
            self._trainer.rewind(self._checkpoints.snapshot(snapshot.number))
            return None, {}

        self._carry_out("rewind", [snapshot], action)

    def _carry_out(
        self,
        verb: str,
        arguments: Sequence[object],
        action: Callable[[Progress | None], tuple[Returned, dict[str, Any]]],
    ) -> Returned:
        """Do a verb, or return what it returned before if a checkpoint covers it."""
        number, known = self._verb_number, self._journal.entries
        called = f"{verb}({', '.join(fingerprint(argument) for argument in arguments)})"
        if number < len(known) and known[number].arguments != called:
            raise RunFailed(
                f"this program is not deterministic: its verb {number} was "
                f"{known[number].arguments} and is now {called}"
            )
        if number < self.covered:
            self._verb_number += 1
            return self._remembered(number)
        progress, self._progress = self._progress, None
        returned, event = action(progress)
        trainer = self._trainer
        entry = Entry(
            verb,
            called,
            self._to_json(number, returned),
            {"position": trainer.position, "spent": trainer.spent, "verb": verb, **event},
        )
        if number >= len(known):
            self._journal.append(entry)
        elif (known[number].returned, known[number].event) != (entry.returned, entry.event):
            raise RunFailed(
                f"this run cannot be repeated: its verb {number}, {called}, "
                "did not give what the journal says"
            )
        self._verb_number += 1
        if self._checkpoints.due:
            self.save()
        return returned

    def _to_json(self, number: int, returned: Returned) -> dict[str, Any]:
        if isinstance(returned, Trained) and returned.scores is not None:
            self._checkpoints.save_snapshot(number, returned.scores)
            return {"steps": returned.steps, "fired": returned.fired, "scores": number}
        return {} if returned is None else asdict(returned)

    def _remembered(self, number: int) -> Returned:
        entry = self._journal.entries[number]
        match entry.verb:
            case "train":
                scores = entry.returned["scores"]
                if scores is not None:
                    scores = self._checkpoints.snapshot(scores)
                return Trained(entry.returned["steps"], entry.returned["fired"], scores)
            case "prune":
                return Pruned(**entry.returned)
            case "snapshot":
                return Snapshot(**entry.returned)
        return None

    def _train(
        self,
        progress: Progress | None,
        longest: int | None,
        until: Trigger | None,
        penalty: Penalty | None,
        watch: Watch | None,
    ) -> tuple[Trained, dict[str, Any]]:
        trainer = self._trainer
        start = trainer.position if progress is None else int(progress["start"])
        stop = trainer.end if longest is None else min(trainer.end, start + longest)
        epochs: list[dict[str, Any]] = [] if progress is None else progress["epochs"]
        fired = False
        if progress is None and until is not None:
            until.begin(self._weights())
        elif progress is not None:
            for watcher, state in ((until, progress["until"]), (watch, progress["watch"])):
                if watcher is not None:
                    watcher.restore(state)
        while trainer.position < stop and not fired:
            if trainer.spent >= trainer.end and not self._may_exceed_budget:
                raise RunFailed(
                    f"the budget of {self.budget} epochs is spent; a method that by nature needs "
                    "more says so: @pruner(..., exceeds_budget=True)"
                )
            with self._ledger.running():
                trainer.step(penalty, None if watch is None else watch.after_backward)
                loss = trainer.mean_loss() if self._epoch_ends else None
            if loss is not None:
                epoch = self._after_epoch(loss)
                epochs.append(epoch)
                if until is not None:
                    reading = until.after_epoch(self._weights())
                    epoch["trigger"] = reading.value
                    fired = reading.fired
            if self._checkpoints.due or self._interrupted():
                self._progress = {
                    "start": start,
                    "epochs": epochs,
                    "until": None if until is None else until.state(),
                    "watch": None if watch is None else watch.state(),
                }
                self.save()
                self._progress = None
        capped = until is not None and not fired
        event = {"epochs": epochs, "ended_by": "trigger" if fired else "cap" if capped else "plan"}
        scores = None if watch is None else watch.scores()
        return Trained(trainer.position - start, fired, scores), event

    @property
    def _may_exceed_budget(self) -> bool:
        return bool(self._plan.pruner.arguments.get("exceeds_budget", False))

    @property
    def _epoch_ends(self) -> bool:
        return self._trainer.position % self.steps_per_epoch == 0

    def _weights(self) -> dict[str, Any]:
        weights = prunable_weights(self._trainer.model)
        return {name: weight.detach() for name, weight in weights.items()}

    def _after_epoch(self, loss: float) -> dict[str, Any]:
        """Evaluate; the result is for the record, not for the method."""
        trainer = self._trainer
        validation = evaluate(trainer.task, trainer.model, "validation")
        metric = self._plan.task.arguments["metric"]
        self._report(
            f"epoch {trainer.spent // self.steps_per_epoch}/{trainer.end // self.steps_per_epoch}"
            f"  loss {loss:.4f}  validation {metric} {validation[metric]:.4g}"
        )
        epoch: dict[str, Any] = {
            "position": trainer.position,
            "spent": trainer.spent,
            "loss": loss,
            "validation": validation,
        }
        if self._kernel is not None:
            epoch["kernel"] = self._kernel.measure(trainer.model)
        return epoch

    def _prune(
        self,
        units: type[Units],
        name: str,
        criterion: Criterion | Scores,
        targets: Sequence[float],
        scope: Scope | None,
    ) -> tuple[Pruned, dict[str, Any]]:
        trainer = self._trainer
        if name not in trainer.units:
            trainer.units[name] = units(trainer.model)
        before = {} if self._kernel is None else self._kernel.measure(trainer.model)
        event = prune(
            trainer,
            trainer.units[name],
            criterion,
            targets,
            scope or (lambda shapes, sparsity: None),
            self._batches,
            self._plan.conditions,
            derive(self.spec.seed, "prune", self._verb_number),
            self._ledger.running,
        )
        trainer.anchor = trainer.position
        if self._kernel is not None:
            event["kernel"] = {"before": before, "after": self._kernel.measure(trainer.model)}
        realised = weight_sparsity(self.layers())
        self._report(f"pruned to {realised:.4%} of the weights removed")
        return Pruned(realised), {"units": name, "target": targets[-1], **event}

    def layers(self) -> list[dict[str, Any]]:
        """Return how many weights each layer had and has. For the engine."""
        return layers(self._trainer.model, self._trainer.units.values(), self._dense_shapes)

    def save(self) -> None:
        """Write a checkpoint. For the engine.

        Raises:
            Interrupted: the process was asked to stop; it is safe to do so now.
        """
        self._checkpoints.save(
            {
                "verb": self._verb_number,
                "progress": self._progress,
                "trainer": self._trainer.state(),
                "ledger": self._ledger.state(),
                "kernel": None if self._kernel is None else self._kernel.state(),
            }
        )
        if self._interrupted():
            raise Interrupted

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. For the engine."""
        self.covered = state["verb"]
        self._progress = state["progress"]
        self._trainer.restore(
            state["trainer"], lambda name: self._registry.find("units", name).load()
        )
        self._ledger.restore(state["ledger"])
        if self._kernel is not None:
            self._kernel.restore(state["kernel"])


@contextlib.contextmanager
def _learning(model: nn.Module, only: Learning | None) -> Iterator[None]:
    """Let only the parameters learn that ``only`` picks."""
    if only is None:
        yield
        return
    names = set(only(model))
    frozen = [p for name, p in model.named_parameters() if name not in names and p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
