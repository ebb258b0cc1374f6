"""What a process does that carries out one run, wherever it is.

This module imports torch only when there is something to do.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.data.decoded import use_cache
from harness.errors import Interrupted, RequestError, RunFailed, Skip
from harness.matrix.executor import Order, Outcome
from harness.registry import Registry
from harness.signals import Stop
from harness.storage.files import is_held
from harness.storage.store import Store


def carry_out_order(
    order: Order, device: str, runs_on_device: int, report: Callable[[str], None], stop: Stop
) -> Outcome:
    """Carry out a run, or go on with it, and return how that ended.

    Args:
        order: what to run.
        device: where, as ``--device`` takes it.
        runs_on_device: how many runs may be at work there meanwhile.
        report: takes lines of progress.
        stop: says when to save and end.
    """
    from harness.device import find_device
    from harness.engine.run_plan import run_plan

    if order.cache is not None:
        use_cache(order.cache)
    plan, store = order.plan, Store(order.results)
    if order.again:
        store = store.again()
    if is_held(store.folder / plan.run_id):
        return Outcome("elsewhere")
    try:
        for entry in (plan.task, plan.pruner):
            entry.load()
        record = run_plan(
            plan,
            Registry(order.plugins),
            store,
            find_device(device),
            report,
            stop,
            order.checkpoint_every,
            runs_on_device,
        )
    except Skip as error:
        return Outcome("skipped", str(error))
    except (RequestError, RunFailed) as error:
        return Outcome("failed", str(error))
    except Interrupted:
        return Outcome("interrupted")
    return Outcome(record["status"], record["reason"])
