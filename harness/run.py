"""One spec being carried out, as a pruner sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Protocol

import torch
from torch import nn

from harness.costs.meter import CostMeter
from harness.errors import Diverged, Interrupted, RunFailed
from harness.prunable import dense_shapes, layers, prunable_weights, weight_sparsity
from harness.pruning.diagnostics import TangentKernel
from harness.pruning.event import digest, prune, select
from harness.pruning.unchanged import State, by_versions, require_same
from harness.registry import Registry
from harness.scoring import Criterion, Scores
from harness.seeds import derive
from harness.spec import Plan, Spec
from harness.storage.checkpoint import Checkpoints
from harness.storage.journal import Entry, Journal, fingerprint, plain
from harness.training.evaluation import evaluate
from harness.training.trainer import Penalty, Trainer
from harness.trigger import Trigger
from harness.units import Scope, ScoreError, Units

Learning = Callable[[nn.Module], Collection[str]]
"""From a model to the names of the parameters that learn."""


class Watch(Protocol):
    """Accumulates a score per unit in one `Run.train`.

    All that it remembers is in its state, which is part of every checkpoint.
    """

    @property
    def units(self) -> type[Units]:
        """What it scores."""

    def after_backward(self, model: nn.Module, units: Units) -> None:
        """Look at the gradients of one training step."""

    def scores(self) -> Scores:
        """Return what was accumulated."""

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on from here."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state, whose tensors are on the CPU."""


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
        meter: CostMeter,
        interrupted: Callable[[], bool],
        report: Callable[[str], None],
    ) -> None:
        self.spec: Spec = plan.spec
        self.sparsity = plan.spec.sparsity
        self.budget = plan.recipe.epochs
        self.steps_per_epoch = trainer.task.steps_per_epoch
        self._plan = plan
        self._registry = registry
        self._trainer = trainer
        self._journal = journal
        self._checkpoints = checkpoints
        self._meter = meter
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
                plan.conditions.statistics == "batch",
            )
            if plan.conditions.kernel
            else None
        )
        if self._kernel is not None:
            self._kernel.start(trainer.model, trainer.masks())
        self._verb_number = 0
        self._covered = 0
        self._underway: str | None = None
        self._progress: Progress | None = None
        self._replaying = False
        self._left: State | None = None

    @property
    def position(self) -> int:
        """Steps from the start of the schedule and the data; rewinding takes it back."""
        return self._clock("position", self._trainer.position)

    @property
    def spent(self) -> int:
        """Steps taken so far; never taken back."""
        return self._clock("spent", self._trainer.spent)

    def _clock(self, name: str, current: int) -> int:
        """Return what a clock shows to the program.

        A program that starts again is behind its trainer, which has been restored already: it is
        shown what the clock said after its last verb.
        """
        if not self._replaying:
            return current
        if self._verb_number == 0:
            return 0
        return int(self._journal.entries[self._verb_number - 1].event[name])

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
        observe: Mapping[str, Trigger] | None = None,
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
            observe: triggers by name, whose readings are recorded and end nothing.

        Raises:
            RunFailed: a limit is negative or no whole number.
        """
        for name, limit in (("epochs", epochs), ("steps", steps), ("at_most", at_most)):
            if limit is not None and not (isinstance(limit, Integral) and limit >= 0):
                raise RunFailed(
                    f"run.train({name}={limit!r}): is not 0, 1, 2 ... {name.replace('_', ' ')}"
                )
        limits = [
            epochs * self.steps_per_epoch if epochs is not None else None,
            steps,
            at_most * self.steps_per_epoch if at_most is not None else None,
        ]
        longest = min((limit for limit in limits if limit is not None), default=None)

        def action(progress: Progress | None) -> tuple[Trained, dict[str, Any]]:
            with _learning(self._trainer.model, only):
                return self._train(progress, longest, until, penalty, watch, observe or {})

        arguments: list[object] = [epochs, steps, until, at_most, only, penalty, watch]
        if observe:
            arguments.append(observe)
        returned = self._carry_out("train", arguments, action)
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

        Raises:
            RunFailed: there is no target, one is no fraction, or they decrease.
        """
        targets = _targets(target)
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
            with self._meter.instrument():
                self._checkpoints.save_snapshot(snapshot.number, self._trainer.snapshot())
            return snapshot, {}

        returned = self._carry_out("snapshot", [], action)
        assert isinstance(returned, Snapshot)
        return returned

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a moment; what was pruned since stays pruned."""

        def action(progress: Progress | None) -> tuple[None, dict[str, Any]]:
            self._trainer.rewind(self._checkpoints.snapshot(snapshot.number))
            self._measure_kernel()
            return None, {}

        self._carry_out("rewind", [snapshot], action)

    def _carry_out(
        self,
        verb: str,
        arguments: Sequence[object],
        action: Callable[[Progress | None], tuple[Returned, dict[str, Any]]],
    ) -> Returned:
        """Do a verb, or return what it returned before if a checkpoint covers it.

        Raises:
            RunFailed: the program changed something itself since the last verb.
        """
        if self._left is not None:
            who = f"the pruner {self.spec.pruner}"
            require_same(self._left, self._untouched(), who, " between two verbs")
        returned = self._carry_out_untouched(verb, arguments, action)
        self._left = self._untouched()
        return returned

    def _untouched(self) -> State:
        """Return what only verbs change."""
        return by_versions(self._trainer.model, self._trainer.optimiser)

    def _carry_out_untouched(
        self,
        verb: str,
        arguments: Sequence[object],
        action: Callable[[Progress | None], tuple[Returned, dict[str, Any]]],
    ) -> Returned:
        number, known = self._verb_number, self._known_entry
        called = f"{verb}({', '.join(fingerprint(argument) for argument in arguments)})"
        before = known.arguments if known else self._underway
        if before not in (None, called):
            raise RunFailed(
                f"this program is not deterministic: its verb {number} was {before} "
                f"and is now {called}"
            )
        if known and number < self._covered:
            returned = self._remembered(number, known)
            self._verb_number += 1
            return returned
        progress, self._progress, self._underway = self._progress, None, called
        self._replaying = False
        with self._meter.running():
            returned, event = action(progress)
        trainer = self._trainer
        happened = {"position": trainer.position, "spent": trainer.spent, "verb": verb, **event}
        entry = Entry(verb, called, self._to_json(returned), plain(happened))
        if known is None:
            self._journal.append(entry)
        elif entry != known:
            raise RunFailed(
                f"this run cannot be repeated: its verb {number}, {called}, "
                "did not give what the journal says"
            )
        self._verb_number += 1
        self._underway = None
        if self._checkpoints.due or self._interrupted():
            self.save()
        return returned

    @property
    def _known_entry(self) -> Entry | None:
        """What the journal says of the next verb, if it was carried out before."""
        entries = self._journal.entries
        return entries[self._verb_number] if self._verb_number < len(entries) else None

    @property
    def is_complete(self) -> bool:
        """Whether the program asked for all that it asked for before. For the engine."""
        return self._known_entry is None and self._underway is None

    def _to_json(self, returned: Returned) -> dict[str, Any]:
        if isinstance(returned, Trained):
            if returned.scores is not None:
                with self._meter.instrument():
                    self._checkpoints.save_snapshot(self._verb_number, returned.scores)
            watched = returned.scores is not None
            return {"steps": returned.steps, "fired": returned.fired, "watched": watched}
        return {} if returned is None else asdict(returned)

    def _remembered(self, number: int, entry: Entry) -> Returned:
        said = entry.returned
        match entry.verb:
            case "train":
                scores = self._watched(number) if said["watched"] else None
                return Trained(said["steps"], said["fired"], scores)
            case "prune":
                return Pruned(**said)
            case "snapshot":
                return Snapshot(**said)
        return None

    def _watched(self, number: int) -> Scores:
        scores = self._checkpoints.snapshot(number)
        return {name: score.to(self._trainer.task.device) for name, score in scores.items()}

    def _train(
        self,
        progress: Progress | None,
        longest: int | None,
        until: Trigger | None,
        penalty: Penalty | None,
        watch: Watch | None,
        observe: Mapping[str, Trigger],
    ) -> tuple[Trained, dict[str, Any]]:
        trainer = self._trainer
        start, fired = trainer.position, False
        epochs: list[dict[str, Any]] = []
        watchers = [each for each in (until, *observe.values(), watch) if each is not None]
        if progress is not None:
            start, epochs = progress["start"], progress["epochs"]
            for watcher, state in zip(watchers, progress["watchers"], strict=True):
                watcher.restore(state)
        else:
            if until is not None:
                until.begin(self._shown_to(until))
            with self._meter.instrument():
                for trigger in observe.values():
                    trigger.begin(self._shown_to(trigger))
        stop = trainer.end if longest is None else min(trainer.end, start + longest)
        after_backward = (
            None
            if watch is None
            else partial(watch.after_backward, units=self._units_of(watch.units))
        )
        while trainer.position < stop and not fired:
            if self._checkpoints.due or self._interrupted():
                states = [watcher.state() for watcher in watchers]
                self.save({"start": start, "epochs": epochs, "watchers": states})
            if trainer.spent >= trainer.end and not self._may_exceed_budget:
                raise RunFailed(
                    f"the budget of {self.budget} epochs is spent; a method that by nature needs "
                    "more says so: @pruner(..., exceeds_budget=True)"
                )
            trainer.step(penalty, after_backward)
            if self._epoch_ends:
                epoch = self._after_epoch(trainer.mean_loss())
                epochs.append(epoch)
                if until is not None:
                    reading = until.after_epoch(self._shown_to(until))
                    epoch["trigger"] = reading.value
                    if reading.threshold is not None:
                        epoch["threshold"] = reading.threshold
                    fired = reading.fired
                if observe:
                    with self._meter.instrument():
                        epoch["observed"] = {
                            name: trigger.after_epoch(self._shown_to(trigger)).value
                            for name, trigger in observe.items()
                        }
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
        metric = self._plan.task.arguments["metric"]
        with self._meter.instrument():
            validation = evaluate(trainer.task, trainer.model, "validation", metric)
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
            with self._meter.instrument():
                epoch["kernel"] = self._kernel.after_epoch(trainer.model, trainer.masks())
        return epoch

    def _measure_kernel(self) -> None:
        """Make the network's kernel the one that the next is compared with."""
        if self._kernel is not None:
            with self._meter.instrument():
                self._kernel.measure(self._trainer.model, self._trainer.masks())

    def _prune(
        self,
        units: type[Units],
        name: str,
        criterion: Criterion | Scores,
        targets: Sequence[float],
        scope: Scope | None,
    ) -> tuple[Pruned, dict[str, Any]]:
        trainer = self._trainer
        if not self._epoch_ends:
            self._measure_kernel()
        try:
            event = prune(
                trainer,
                self._units_of(units),
                criterion,
                targets,
                scope or _one_threshold,
                self._batches,
                self._plan.conditions,
                derive(self.spec.seed, "prune", self._verb_number),
                self._meter.instrument,
            )
        except ScoreError as error:
            finite = all(bool(weight.isfinite().all()) for weight in self._weights().values())
            raise (RunFailed if finite else Diverged)(str(error)) from error
        if self._plan.conditions.weights == "redrawn":
            trainer.redraw()
        trainer.anchor = trainer.position
        with self._meter.instrument():
            if self._kernel is not None:
                event["kernel"] = self._kernel.after_pruning(trainer.model, trainer.masks())
            realised = weight_sparsity(self.layers())
        self._report(f"pruned to {100 * realised:.6g} % sparsity")
        if event.get("frozen"):
            self._report(
                f"frozen, and left whole by a criterion that ranks by gradients: "
                f"{', '.join(map(str, event['frozen']))}"
            )
        # A target is of weights, unless the units say otherwise.
        of = getattr(units, "target_of", None)
        return Pruned(realised), {
            "units": name,
            "target": targets[-1],
            **({} if of is None else {"target_of": of}),
            "sparsity": realised,
            **event,
        }

    def _shown_to(self, trigger: Trigger) -> Mapping[str, torch.Tensor]:
        """Return what a trigger watches."""
        masks = trigger.watches
        if masks is None:
            return self._weights()
        generator = torch.Generator().manual_seed(derive(self.spec.seed, "trigger", self.position))
        return select(
            self._trainer,
            self._units_of(masks.units),
            masks.criterion,
            masks.target,
            _one_threshold,
            self._batches,
            self._plan.conditions,
            generator,
            self._meter.instrument,
        )

    def _units_of(self, kind: type[Units]) -> Units:
        """Return the units of this kind, finding them in the model if need be."""
        trainer, name = self._trainer, self._registry.name_of("units", kind)
        if name not in trainer.units:
            trainer.units[name] = kind(trainer.model, trainer.task.forward)
        return trainer.units[name]

    def layers(self) -> list[dict[str, Any]]:
        """Return how many weights each layer had and has. For the engine."""
        return layers(self._trainer.model, self._trainer.units.values(), self._dense_shapes)

    def save(self, progress: Progress | None = None) -> None:
        """Write a checkpoint. For the engine.

        Args:
            progress: what the verb that is underway needs to go on from here.

        Raises:
            Interrupted: the process was asked to stop; it is safe to do so now.
        """
        with self._meter.instrument():
            self._checkpoints.save(
                {
                    "verb": self._verb_number,
                    "underway": self._underway,
                    "progress": progress,
                    "trainer": self._trainer.state(),
                    "meter": self._meter.state(),
                    "kernel": None if self._kernel is None else self._kernel.state(),
                }
            )
        if self._interrupted():
            raise Interrupted

    def resume(self) -> bool:
        """Go on from the newest checkpoint that can be used, if there is one. For the engine."""
        state = self._checkpoints.newest(self._can_go_on_from)
        if state is None:
            return False
        self._replaying = True
        self._covered = state["verb"]
        self._underway = state["underway"]
        self._progress = state["progress"]
        self._trainer.restore(
            state["trainer"], lambda name: self._registry.find("units", name).load()
        )
        self._meter.restore(state["meter"])
        if self._kernel is not None:
            self._kernel.restore(state["kernel"])
        return True

    def _can_go_on_from(self, state: Mapping[str, Any]) -> bool:
        """Return whether the journal knows all its verbs, and their snapshots are there."""
        covered = self._journal.entries[: state["verb"]]
        with_snapshot = [
            number
            for number, entry in enumerate(covered)
            if entry.verb == "snapshot" or entry.returned.get("watched")
        ]
        return len(covered) == state["verb"] and all(
            map(self._checkpoints.has_snapshot, with_snapshot)
        )

    def unbind(self) -> None:
        """Forget what no checkpoint covers: the last bits may differ here. For the engine."""
        self._journal.truncate(self._covered)


def _targets(target: object) -> list[float]:
    """Return the sparsities to go through.

    Raises:
        RunFailed: there is none, one is no fraction, or they decrease.
    """
    called = f"run.prune(..., {target!r})"
    targets = [target] if isinstance(target, Real) else target
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise RunFailed(f"{called}: a target is a number, or a list of numbers")
    if not targets:
        raise RunFailed(f"{called}: there is no target in the list")
    for each in targets:
        if not (isinstance(each, Real) and 0 <= float(each) < 1):
            raise RunFailed(
                f"{called}: {each!r} is outside [0, 1): it is the fraction to be gone, as in 0.98"
            )
    values = [float(each) for each in targets]
    for before, after in pairwise(values):
        if after < before:
            raise RunFailed(
                f"{called}: {after!r} comes after {before!r}, and what is removed does not return"
            )
    return values


def _one_threshold(shapes: Mapping[str, torch.Size], sparsity: float) -> None:
    """Let one threshold rule all layers; a `harness.units.Scope`."""


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
