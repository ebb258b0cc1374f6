"""The trained network of another run (``start=RUN``, ``teacher=RUN``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.data.download import file_checksum
from harness.errors import RequestError
from harness.storage.store import WEIGHTS, Store

if TYPE_CHECKING:
    from torch import nn

Role = Literal["start", "teacher", "run"]
"""What names the network: a condition, or the option ``--run``."""

ROLES: tuple[Role, ...] = ("start", "teacher")
"""The conditions among them."""

_WHY_DENSE: Mapping[Role, str] = {
    "start": "a run begins from a dense network",
    "teacher": "a run learns from a dense network",
    "run": "sensitivity is that of a dense network",
}


@dataclass(frozen=True)
class TrainedNetwork:
    """A dense network that another run has trained."""

    role: Role
    run: str
    """The name of that run."""
    sha256: str
    """Checksum of its weights file."""
    weights: Path

    def as_dict(self) -> dict[str, str]:
        """Return its part of a record, which names no folder of this machine."""
        return {"run": self.run, "sha256": self.sha256}

    def load_into(self, model: nn.Module) -> None:
        """Load its weights into a new network.

        Raises:
            RequestError: the file is damaged, or belongs to another network.
        """
        # Imported here because planning a run must not import torch.
        from harness.storage.network_file import load_weights, require_same_network

        asked = f"{self.role}={self.run}"
        try:
            weights = load_weights(self.weights)
        except RequestError as error:
            raise RequestError(f"{asked}: {error}") from error
        require_same_network(asked, model.state_dict(), weights)
        model.load_state_dict(weights)


def find_trained_network(role: Role, name: str, task: str, results: Path) -> TrainedNetwork:
    """Find the finished network of a run, without importing torch.

    Args:
        role: what names it, for messages.
        name: the run's folder, its name, the beginning of its name, or its hash.
        task: the task that the run must have trained.
        results: the results folder to search.

    Raises:
        RequestError: there is no such run, or it has no dense network of that task.
    """
    asked = f"{role}={name}"
    try:
        folder = Store(results).locate(name).resolve()
        record = Store(folder.parent).find(folder.name)
        digest = file_checksum(folder / WEIGHTS, "SHA-256")
    except RequestError as error:
        raise RequestError(f"{asked}: {error}") from None
    except OSError as error:
        raise RequestError(f"{asked}: cannot read {WEIGHTS}: {error.strerror}") from None
    owner = record["spec"]["task"]
    if owner != task:
        raise RequestError(f"{asked} is of the task {owner!r} and not of {task!r}")
    if record["status"] != "done":
        raise RequestError(f"{asked} has {record['status']}: {record['reason']}")
    removed = record["sparsity"]["weights"]
    if removed > 0:
        raise RequestError(
            f"{asked}: {100 * removed:.4g} % of its weights are gone; {_WHY_DENSE[role]}"
        )
    return TrainedNetwork(role, record["run_id"], digest, folder / WEIGHTS)
