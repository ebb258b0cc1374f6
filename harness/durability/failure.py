"""When a run fails, through a mistake in a plug-in, say: one line, and the rest in its folder."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from harness.durability.stop import raised_by_code
from harness.errors import Interrupted, RequestError, RunFailed
from harness.results.head import without_result
from harness.results.store import Store
from harness.spec import Plan


@contextlib.contextmanager
def failure_recorded(plan: Plan, store: Store) -> Iterator[None]:
    """Leave a record of whatever goes wrong beside the journal, and raise it as one line.

    It lies in a file of its own, because a run that failed is not done: the next attempt removes
    it and goes on from the last checkpoint.

    Raises:
        RunFailed: something went wrong that the request is not to blame for.
    """
    store.forget_failure(plan.run_id)
    try:
        yield
    except (RequestError, Interrupted):
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and not raised_by_code(error):
            raise
        reason = str(error) if isinstance(error, RunFailed) else _in_one_line(plan, error)
        with contextlib.suppress(RunFailed):
            details = "".join(traceback.format_exception(error))
            store.save_failure(without_result(plan, "failed", reason), details)
        if isinstance(error, RunFailed):
            raise
        raise RunFailed(reason) from error


def _in_one_line(plan: Plan, error: BaseException) -> str:
    """Return what went wrong, and where in the method, the task, or else wherever."""
    frames = traceback.extract_tb(error.__traceback__)
    sources = {str(plan.pruner.source), str(plan.task.source)}
    frame = [frame for frame in frames if frame.filename in sources][-1:] or frames[-1:]
    place = f"{frame[0].filename.rpartition('/')[2]}, line {frame[0].lineno}"
    if isinstance(error, SystemExit):
        called = "" if error.code is None else repr(error.code)
        return f"{place}: calls sys.exit({called}) (more in failure.txt)"
    what = str(error).partition("\n")[0]
    return f"{place}: {type(error).__name__}{': ' if what else ''}{what} (more in failure.txt)"
