"""``check``: the contract tests over one task or pruner, plug-ins too."""

from __future__ import annotations

import argparse

from harness.checking import DEFAULT_TASK, Request
from harness.commands.run import overrides
from harness.errors import RequestError, nearest
from harness.registry import Registry
from harness.text import several


def execute(arguments: argparse.Namespace) -> int:
    """Try the rules of the contract, a line for each, and return 1 if any is broken."""
    kinds = ("task", "pruner")
    if arguments.kind not in kinds:
        raise RequestError(f"cannot check {arguments.kind!r}{nearest(arguments.kind, kinds)}")
    registry = Registry(arguments.plugin)
    entry = registry.find("task" if arguments.kind == "task" else "pruner", arguments.name)
    if entry.kind == "task" and arguments.task is not None:
        raise RequestError("--task belongs to check pruner: it is what the pruner is tried on")
    request = Request(
        registry,
        entry,
        arguments.data,
        arguments.task or DEFAULT_TASK,
        arguments.profile,
        overrides(arguments.set),
    )
    request.plan()  # what is wrong with the request is said before torch is imported

    from harness.contracts import PRUNER_CONTRACT, TASK_CONTRACT, Broken, Noted, Subject, Untried

    subject = Subject(request)
    broken = 0
    for rule in TASK_CONTRACT if entry.kind == "task" else PRUNER_CONTRACT:
        promise = (rule.__doc__ or "").partition("\n")[0].rstrip(".")
        try:
            rule(subject)
        except RequestError:
            raise
        except Noted as note:
            print(f"note    {promise}: {note}", flush=True)
        except Untried as reason:
            print(f"untried {promise}: {reason}", flush=True)
        except (Exception, SystemExit) as error:  # whatever a plug-in does wrong
            broken += 1
            what = f"{type(error).__name__}: {error}"
            print(f"BROKEN  {promise}: {error if isinstance(error, Broken) else what}", flush=True)
        else:
            print(f"ok      {promise}", flush=True)
    verdict = f"breaks {several(broken, 'rule')}" if broken else "keeps every rule"
    print(f"{entry.kind} {entry.name} {verdict}")
    return 1 if broken else 0
