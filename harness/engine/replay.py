"""Performing a method's operations once, however often its program has to start again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from harness.costs.meter import CostMeter
from harness.engine.engine import Engine, Progress
from harness.errors import Interrupted, RunFailed
from harness.operations import Exchanged, Operation, Pruned, Returned, Snapshot, Trained
from harness.pruning.unchanged import State, by_versions, require_same
from harness.scoring import Scores
from harness.storage.checkpoint import Checkpoints
from harness.storage.journal import Entry, Journal, fingerprint, plain
from harness.units import Units


class Replay:
    """Performs the operations of a run, and recalls those that a checkpoint covers.

    The program of an interrupted run starts again from the top and must request the same
    operations as before. Those before the newest checkpoint return the results in the journal;
    the later ones are performed again and must give the same results.

    Args:
        pruner: the method's name, for errors.
        engine: performs operations.
        journal: the operations performed so far, over all attempts.
        checkpoints: the states from which the run can continue.
        meter: what the method costs.
        interrupted: says whether the process has been asked to stop.
    """

    def __init__(
        self,
        pruner: str,
        engine: Engine,
        journal: Journal,
        checkpoints: Checkpoints,
        meter: CostMeter,
        interrupted: Callable[[], bool],
    ) -> None:
        self._pruner = pruner
        self._engine = engine
        self._journal = journal
        self._checkpoints = checkpoints
        self._meter = meter
        self._interrupted = interrupted
        self._number = 0
        """Of the next operation."""
        self._covered = 0
        """How many operations the checkpoint covers from which this attempt continues."""
        self._underway: str | None = None
        """The call of an operation that has begun, and has not ended."""
        self._progress: Progress | None = None
        self._catching_up = False
        self._left: State | None = None

    @property
    def position(self) -> int:
        """Steps since the start of the schedule and of the data, as the program sees them."""
        return self._clock("position", self._engine.trainer.position)

    @property
    def spent(self) -> int:
        """Steps taken so far, as the program sees them."""
        return self._clock("spent", self._engine.trainer.spent)

    def _clock(self, name: str, current: int) -> int:
        """Return the clock value recorded after the program's last operation.

        The trainer of a resumed run is ahead of its program, which has started again.
        """
        if not self._catching_up:
            return current
        if self._number == 0:
            return 0
        return int(self._journal.entries[self._number - 1].event[name])

    def name_of(self, units: type[Units]) -> str:
        """Return the name under which units are registered."""
        return self._engine.name_of(units)

    def perform(self, operation: Operation) -> Returned:
        """Perform an operation, or recall what it returned in an earlier attempt.

        Raises:
            RunFailed: the program requests a different operation than before, or has changed
                something by itself since the last one.
            Interrupted: the process was asked to stop, and the run is saved.
        """
        if self._left is not None:
            who = f"the pruner {self._pruner}"
            require_same(self._left, self._state_of_training(), who, " between two verbs")
        returned = self._perform_or_recall(operation)
        self._left = self._state_of_training()
        return returned

    def _state_of_training(self) -> State:
        """Return what only operations may change."""
        return by_versions(self._engine.trainer.model, self._engine.trainer.optimiser)

    def _perform_or_recall(self, operation: Operation) -> Returned:
        number, known = self._number, self._known_entry
        call = f"{operation.verb}({', '.join(map(fingerprint, operation.arguments))})"
        before = known.arguments if known else self._underway
        if before not in (None, call):
            raise RunFailed(
                f"this program is not deterministic: its verb {number} was {before} "
                f"and is now {call}"
            )
        if known and number < self._covered:
            returned = self._recall(number, known)
            self._number += 1
            return returned
        progress, self._progress, self._underway = self._progress, None, call
        self._catching_up = False
        with self._meter.running():
            returned, event = self._engine.perform(
                operation, number, progress, self.save_if_due, known.event if known else None
            )
        trainer = self._engine.trainer
        clocks = {"position": trainer.position, "spent": trainer.spent, "verb": operation.verb}
        entry = Entry(operation.verb, call, self._as_json(returned), plain({**clocks, **event}))
        if known is None:
            self._journal.append(entry)
        elif entry != known:
            raise RunFailed(
                f"this run cannot be repeated: its verb {number}, {call}, "
                "did not give what the journal says"
            )
        self._number += 1
        self._underway = None
        self.save_if_due(lambda: None)
        return returned

    @property
    def _known_entry(self) -> Entry | None:
        """The journal's entry of the next operation, if an earlier attempt performed it."""
        entries = self._journal.entries
        return entries[self._number] if self._number < len(entries) else None

    @property
    def is_complete(self) -> bool:
        """Whether the program has requested every operation that it requested before."""
        return self._known_entry is None and self._underway is None

    def _as_json(self, returned: Returned) -> dict[str, Any]:
        if isinstance(returned, Trained):
            watched = returned.scores is not None
            if watched:
                with self._meter.instrument():
                    self._checkpoints.save_snapshot(self._number, returned.scores or {})
            return {"steps": returned.steps, "fired": returned.fired, "watched": watched}
        return {} if returned is None else asdict(returned)

    def _recall(self, number: int, entry: Entry) -> Returned:
        said = entry.returned
        match entry.verb:
            case "train":
                scores = self._watched_scores(number) if said["watched"] else None
                return Trained(said["steps"], said["fired"], scores)
            case "prune":
                return Pruned(**said)
            case "exchange":
                return Exchanged(**said)
            case "snapshot":
                return Snapshot(**said)
        return None

    def _watched_scores(self, number: int) -> Scores:
        device = self._engine.trainer.task.device
        scores = self._checkpoints.snapshot(number)
        return {name: score.to(device) for name, score in scores.items()}

    def save_if_due(self, progress: Callable[[], Progress | None]) -> None:
        """Write a checkpoint if one is due, or if the process was asked to stop.

        Args:
            progress: returns what the current operation needs to continue.

        Raises:
            Interrupted: the process was asked to stop.
        """
        if self._checkpoints.due or self._interrupted():
            self.save(progress())

    def save(self, progress: Progress | None = None) -> None:
        """Write a checkpoint.

        Args:
            progress: what the current operation needs to continue.

        Raises:
            Interrupted: the process was asked to stop, which is safe after this.
        """
        with self._meter.instrument():
            self._journal.synchronise()
            self._checkpoints.save(
                {
                    "verb": self._number,
                    "underway": self._underway,
                    "progress": progress,
                    "ledger": self._meter.state(),
                    **self._engine.state(),
                }
            )
        if self._interrupted():
            raise Interrupted

    def resume(self) -> bool:
        """Continue from the newest usable checkpoint; return whether there is one."""
        state = self._checkpoints.newest(self._is_usable)
        if state is None:
            return False
        self._catching_up = True
        self._covered = state["verb"]
        self._underway = state["underway"]
        self._progress = state["progress"]
        self._engine.restore(state)
        self._meter.restore(state["ledger"])
        return True

    def _is_usable(self, state: Mapping[str, Any]) -> bool:
        """Return whether the journal has all operations of a checkpoint, with their snapshots."""
        covered = self._journal.entries[: state["verb"]]
        with_snapshot = [
            number
            for number, entry in enumerate(covered)
            if entry.verb == "snapshot" or entry.returned.get("watched")
        ]
        return len(covered) == state["verb"] and all(
            map(self._checkpoints.has_snapshot, with_snapshot)
        )

    def forget_uncovered(self) -> None:
        """Drop the entries after the checkpoint: another machine may round differently."""
        self._journal.truncate(self._covered)
