"""Failed runs: one line for the user, and the traceback in the run's folder."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from harness.errors import Interrupted, RequestError, RunFailed
from harness.plugin_code import OURS
from harness.results.records import record_without_result
from harness.signals import raised_by_code
from harness.spec import Plan
from harness.storage.store import Store

_PROJECT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def failure_recorded(plan: Plan, store: Store) -> Iterator[None]:
    """Store any error within the context in the run's folder, and raise it again as one line.

    The failure has a file of its own, because a failed run is not done: the next attempt removes
    the file and continues from the last checkpoint.

    Raises:
        RunFailed: something went wrong, other than the request.
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
            store.save_failure(record_without_result(plan, "failed", reason), details)
        if isinstance(error, RunFailed):
            raise
        raise RunFailed(reason) from error


def _in_one_line(plan: Plan, error: BaseException) -> str:
    """Return what went wrong, and the line of the method or the task, or else of any file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in _sources(plan)]
    ours = [frame for frame in frames if _in_project(frame.filename)]
    frame = [*frames[-1:], *ours[-1:], *own[-1:]][-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    if own and ours and frames.index(ours[-1]) > frames.index(own[-1]):
        # The error is in code of the project that the plug-in called: name both lines.
        called = Path(ours[-1].filename).relative_to(_PROJECT)
        place += f", which called {called}, line {ours[-1].lineno}"
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"{place}: calls sys.exit({code}) (more in failure.txt)"
    what = str(error).partition("\n")[0]
    return f"{place}: {type(error).__name__}{': ' if what else ''}{what} (more in failure.txt)"


def _sources(plan: Plan) -> set[str]:
    """Return the files of the method and the task; of a plug-in, all files that it imports."""
    found = {str(plan.pruner.source), str(plan.task.source)}
    for entry in (plan.pruner, plan.task):
        if entry.code is not None:
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                found |= {str(file) for file in entry.code.files().values()}
    return found


def _in_project(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(_PROJECT) and path.relative_to(_PROJECT).parts[0] in OURS
