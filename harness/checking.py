"""What is held to its contract, and how; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.registry import Entry, Registry
from harness.spec import Plan, plan

DEFAULT_TASK = "digits"
"""What a pruner is tried on."""

SPARSITY = 0.9


@dataclass(frozen=True)
class Request:
    """A task or a pruner that is to be held to its contract.

    Args:
        registry: where names are looked up.
        entry: the task or the pruner.
        data_folder: where official data lie.
        partner: the task that a pruner is tried on.
        profile: the task's.
        overrides: as ``--set`` gives them.
    """

    registry: Registry
    entry: Entry
    data_folder: Path
    partner: str = DEFAULT_TASK
    profile: str = "smoke"
    overrides: Mapping[str, str] = field(default_factory=dict)

    def plan(self, epochs: int | None = None) -> Plan:
        """Return a plan that pairs a task with dense training, or a pruner with its partner.

        Args:
            epochs: the budget, unless the overrides say another; None for the task's own.

        Raises:
            RequestError: something is not known or not permitted.
        """
        is_task = self.entry.kind == "task"
        budget = {} if epochs is None else {"epochs": str(epochs)}
        return plan(
            self.registry,
            self.entry.name if is_task else self.partner,
            "dense" if is_task else self.entry.name,
            sparsity=SPARSITY,
            profile=self.profile,
            overrides={**budget, **self.overrides},
            data_folder=self.data_folder,
        )
