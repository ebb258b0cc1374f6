"""A request for a matrix, from the command line or from Python: planned, run and summed up."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from harness.data.cache import use_cache
from harness.errors import RequestError
from harness.matrix.dispatch import RESULTS, Dispatch, Tally
from harness.matrix.display import ProgressDisplay
from harness.matrix.estimates import Estimates
from harness.matrix.executor import Executor, Job, Outcome, Resources, find_executor
from harness.matrix.manifest import write_manifest
from harness.matrix.measuring import measure_networks
from harness.matrix.plan import Matrix, plan_matrix
from harness.matrix.state import by_reason, counted, reasons, states
from harness.matrix.suite import Suite, check_measure
from harness.record import Record
from harness.registry import Registry
from harness.results.measured import awaits_measurement
from harness.results.records import pending_record
from harness.signals import StopRequest
from harness.storage.files import distinct
from harness.storage.progress import read_progress
from harness.storage.store import Store
from harness.tracking.following import followed_run
from harness.tracking.live import tracked

SIMILAR = 3
"""Runs of a pairing, outside the matrix, that are read to estimate how long its runs take."""


@dataclass(frozen=True)
class MatrixRequest:
    """Which runs are wanted, and where and how they run.

    Attributes:
        suite: the runs.
        command: resumes the matrix; kept in its manifest.
        settings: changes of every run, as ``--set`` takes them.
        plugins: files with more tasks or pruners, besides those of the suite.
        data: folder that tasks read data from.
        results: the results folder.
        executor: its name.
        resources: what it may use.
        again: whether finished runs are repeated.
        checkpoint_every: seconds between two checkpoints.
        cache: folder for decoded copies of data; None for the default.
        measure: when networks are measured, a value of `harness.matrix.suite.MEASURE`; None for
            what the suite says, or else the default.
        track: names of the trackers that follow the runs.
    """

    suite: Suite
    command: str
    settings: Mapping[str, str] = field(default_factory=dict)
    plugins: Iterable[Path] = ()
    data: Path = Path("data")
    results: Path = Path("results")
    executor: str = "local"
    resources: Resources = field(default_factory=Resources)
    again: bool = False
    checkpoint_every: float = 60.0
    cache: Path | None = None
    measure: str | None = None
    track: Sequence[str] = ()

    @cached_property
    def when_measured(self) -> str:
        """When networks are measured.

        Raises:
            RequestError: the request is not possible.
        """
        is_smoke = self.suite.profile == "smoke"
        if self.measure is not None:
            if check_measure(self.measure) != "during" and is_smoke:
                raise RequestError(
                    f"measure: {self.measure!r} is not for the profile smoke, whose networks are "
                    "measured during its runs"
                )
            return self.measure
        if is_smoke:
            return "during"
        at_end = getattr(self.executor_type, "on_this_machine", False)
        return self.suite.measure or ("end" if at_end else "during")

    @cached_property
    def all_plugins(self) -> list[Path]:
        """The plug-in files of the suite and of the request, each once."""
        return distinct([*self.suite.plugins, *self.plugins])

    @cached_property
    def store(self) -> Store:
        """The results folder."""
        return Store(self.results)

    @cached_property
    def executor_type(self) -> type[Executor]:
        """The class of the executor."""
        return find_executor(self.executor)

    def plan(self) -> Matrix:
        """Plan every run.

        Raises:
            RequestError: a name or a value is unknown, or no run can be carried out.
        """
        _ = self.executor_type, self.when_measured  # refused before the runs are planned
        matrix = plan_matrix(
            self.suite,
            Registry(self.all_plugins),
            overrides=self.settings,
            plugins=[plugin.name for plugin in self.all_plugins],
            data_folder=self.data,
            results=self.results,
            device=self.resources.device,
        )
        if not (matrix.plans or matrix.failed):
            why = "; ".join(by_reason(reasons(matrix.left_out)))
            raise RequestError(f"{matrix.name}: none of its runs can be carried out: {why}")
        return matrix

    def run(self, matrix: Matrix, progress: TextIO | None) -> Tally:
        """Run everything that is not done yet, and return how each run ended.

        If the process is asked to stop, the tally has runs that are still waiting.

        Args:
            matrix: as `plan` returns it.
            progress: a stream for the progress display; None for no display.

        Raises:
            RequestError: the executor, its resources or a tracker are not available.
        """
        repeated = matrix.plans.keys() & self.store.run_ids() if self.again else set[str]()
        tally, estimates = self._find_done(matrix, repeated)
        done_before = set(tally.outcomes)
        if tally.waiting and progress is not None:
            print(f"{matrix.name}: {counted(tally)}", file=progress, flush=True)
        with self._tracked(matrix, repeated):
            stop = self._dispatch(matrix, tally, estimates, repeated, progress)
            for run_id in tally.outcomes.keys() - done_before:
                self._find_unmeasured(run_id, tally, repeated)
            if self.when_measured == "end" and tally.unmeasured and not tally.waiting:
                if stop.level:
                    tally.measuring_interrupted = True
                else:
                    self._measure(matrix, tally, repeated, progress)
        if not (tally.waiting or tally.measuring_interrupted):
            for run_id in repeated:
                if tally.outcomes[run_id].status in RESULTS:
                    self.store.replace(run_id)
        return tally

    def _dispatch(
        self,
        matrix: Matrix,
        tally: Tally,
        estimates: Estimates,
        repeated: Collection[str],
        progress: TextIO | None,
    ) -> StopRequest:
        """Carry out the waiting runs, and return how urgently the process was asked to stop."""
        stop = StopRequest()
        with stop.listening():
            # An executor that refuses the request does so before anything is written.
            executor = self._start_executor(tally) if tally.waiting else None
            write_manifest(matrix, self.results, self.command)
            if executor is not None:
                slots = executor.slots
                display = ProgressDisplay(
                    matrix.name,
                    matrix.plans,
                    tally,
                    estimates,
                    slots,
                    progress,
                    lambda run_id: read_progress(self._store_of(run_id, repeated).folder / run_id),
                )
                jobs = self._jobs(matrix, tally, estimates, repeated)
                with display.showing():
                    Dispatch(executor, self.store, tally, stop).run(jobs, display.show)
        return stop

    def _tracked(
        self, matrix: Matrix, repeated: Collection[str]
    ) -> contextlib.AbstractContextManager[None]:
        """Let the trackers follow all runs, those done before included, until the context ends."""
        runs = (
            followed_run(pending_record(plan), self._store_of(run_id, repeated).folder / run_id)
            for run_id, plan in matrix.plans.items()
        )
        return tracked(self.track, runs, self.results)

    def _store_of(self, run_id: str, repeated: Collection[str]) -> Store:
        return self.store.again() if run_id in repeated else self.store

    def _find_done(self, matrix: Matrix, repeated: Collection[str]) -> tuple[Tally, Estimates]:
        """Return the runs that are done, and the estimates that follow from them."""
        tally, known = Tally(len(matrix.plans)), []
        for run_id in matrix.plans:
            store = self._store_of(run_id, repeated)
            try:
                record = store.record(run_id)
            except RequestError as error:
                tally.finish(run_id, Outcome("damaged", str(error)))
                continue
            if record is not None:
                known.append(record)
                tally.finish(run_id, Outcome(record["status"], record["reason"]))
                if awaits_measurement(record, store.folder / run_id):
                    tally.unmeasured.add(run_id)
        tally.done_before = len(known)
        return tally, Estimates(known, self._similar(matrix, tally))

    def _similar(self, matrix: Matrix, tally: Tally) -> Iterator[Record]:
        """Iterate over a few further runs of the folder for each pairing that waits."""
        waiting = [plan.spec for name, plan in matrix.plans.items() if name not in tally.outcomes]
        wanted = Counter({(spec.task, spec.pruner): SIMILAR for spec in waiting})
        for run_id in self.store.run_ids() if waiting else ():
            task, pruner, *_ = [*run_id.split("-", 2), ""]
            pairing = task, pruner
            if wanted[pairing] > 0 and run_id not in tally.outcomes:
                wanted[pairing] -= 1
                # A damaged record is no concern of this matrix.
                with contextlib.suppress(RequestError):
                    if (record := self.store.record(run_id)) is not None:
                        yield record

    def _find_unmeasured(self, run_id: str, tally: Tally, repeated: Collection[str]) -> None:
        """Note whether the network of a run that has ended is still to be measured."""
        store = self._store_of(run_id, repeated)
        # A record that cannot be read is reported by the next command.
        with contextlib.suppress(RequestError):
            record = store.record(run_id)
            if record is not None and awaits_measurement(record, store.folder / run_id):
                tally.unmeasured.add(run_id)

    def _measure(
        self, matrix: Matrix, tally: Tally, repeated: Collection[str], progress: TextIO | None
    ) -> None:
        """Measure the networks that have not been measured."""
        if self.cache is not None:
            use_cache(self.cache)
        measure_networks(
            [
                self._store_of(run_id, repeated).folder / run_id
                for run_id in matrix.plans
                if run_id in tally.unmeasured
            ],
            tally,
            plugins=self.all_plugins,
            data=self.data,
            device=self.resources.device,
            threads=self.resources.threads or self.suite.threads,
            progress=progress,
        )

    def _start_executor(self, tally: Tally) -> Executor:
        suite = self.suite
        limits: dict[str, Any] = {"threads": suite.threads}
        if self.resources.time_limit is None and suite.hours is not None:
            limits["time_limit"] = 3600 * suite.hours
        if self.resources.memory_limit is None and suite.gigabytes is not None:
            limits["memory_limit"] = int(1e9 * suite.gigabytes)
        resources = dataclasses.replace(self.resources, **limits)
        return self.executor_type(resources, tally.report, self.results)

    def _jobs(
        self, matrix: Matrix, tally: Tally, estimates: Estimates, repeated: Collection[str]
    ) -> list[Job]:
        """Return a job for each waiting run, in the order in which they start.

        Their paths hold in any working folder.
        """
        waiting = [plan for name, plan in matrix.plans.items() if name not in tally.outcomes]
        return [
            Job(
                dataclasses.replace(plan, data_folder=plan.data_folder.resolve()),
                tuple(path.resolve() for path in self.all_plugins),
                self.results.resolve(),
                self.checkpoint_every,
                estimates.bytes(plan),
                self.cache and self.cache.resolve(),
                plan.run_id in repeated,
                self.when_measured != "during",
            )
            for plan in estimates.longest_first(waiting)
        ]


def as_object(matrix: Matrix, tally: Tally) -> dict[str, Any]:
    """Return how each run of a matrix ended: what ``matrix --json`` prints."""
    return {
        "name": matrix.name,
        "runs": states(tally.outcomes, tally),
        "waiting": tally.waiting,
        "unmeasured": len(tally.unmeasured),
        "left_out": reasons(matrix.left_out),
    }
