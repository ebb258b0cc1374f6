"""Entry point of a worker process: runs one job, on this machine or on a cluster.

torch is imported only when there is a job to run.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.data.cache import use_cache
from harness.errors import Interrupted, RequestError, RunFailed, Skip
from harness.matrix.executor import Job, Outcome
from harness.registry import Registry
from harness.signals import Stop
from harness.storage.files import is_held
from harness.storage.store import Store


def run_job(
    job: Job, device: str, runs_on_device: int, report: Callable[[str], None], stop: Stop
) -> Outcome:
    """Run a job, resuming it if it was interrupted, and return how it ended.

    Args:
        job: what to run.
        device: where to run it, as ``--device`` takes it.
        runs_on_device: how many runs may share the device.
        report: receives lines of progress.
        stop: says when to save and stop.
    """
    from harness.device import find_device
    from harness.engine.final_costs import exact_costs
    from harness.engine.run_plan import run_plan

    if job.cache is not None:
        use_cache(job.cache)
    plan, store = job.plan, Store(job.results)
    if job.again:
        store = store.again()
    if is_held(store.folder / plan.run_id):
        return Outcome("elsewhere")
    try:
        for entry in (plan.task, plan.pruner):
            entry.load()
        record = run_plan(
            plan,
            Registry(job.plugins),
            store,
            find_device(device),
            report,
            stop,
            job.checkpoint_every,
            runs_on_device,
            exact_costs if job.measure_later else None,
        )
    except Skip as error:
        return Outcome("skipped", str(error))
    except (RequestError, RunFailed) as error:
        return Outcome("failed", str(error))
    except Interrupted:
        return Outcome("interrupted")
    return Outcome(record["status"], record["reason"])


carry_out_order = run_job
"""The former name of `run_job`; executors of other projects import it."""
