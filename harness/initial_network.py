"""The trained network that a run starts from, in place of new weights (``start=RUN``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.download import file_checksum
from harness.errors import RequestError
from harness.storage.store import WEIGHTS, Store

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InitialNetwork:
    """A dense network that another run has trained."""

    run: str
    """The name of that run."""
    sha256: str
    """Checksum of its weights file."""
    weights: Path

    def as_dict(self) -> dict[str, str]:
        """Return the ``start`` part of a record, which names no folder of this machine."""
        return {"run": self.run, "sha256": self.sha256}

    def load_into(self, model: nn.Module) -> None:
        """Load its weights into a new network.

        Raises:
            RequestError: the file is damaged, or belongs to another network.
        """
        # Imported here because planning a run must not import torch.
        from harness.storage.network_file import load_weights, require_same_network

        weights = load_weights(self.weights)
        require_same_network(f"start={self.run}", model.state_dict(), weights)
        model.load_state_dict(weights)


def find_initial_network(name: str, task: str, results: Path) -> InitialNetwork:
    """Find the finished network of a run, without importing torch.

    Args:
        name: the run's folder, its name, the beginning of its name, or its hash.
        task: the task that the run must have trained.
        results: the results folder to search.

    Raises:
        RequestError: there is no such run, or it has no dense network of that task.
    """
    try:
        folder = Store(results).locate(name).resolve()
        record = Store(folder.parent).find(folder.name)
        digest = file_checksum(folder / WEIGHTS, "SHA-256")
    except RequestError as error:
        raise RequestError(f"start={name}: {error}") from None
    except OSError as error:
        raise RequestError(f"start={name}: cannot read {WEIGHTS}: {error.strerror}") from None
    owner = record["spec"]["task"]
    if owner != task:
        raise RequestError(f"start={name} is of the task {owner!r} and not of {task!r}")
    if record["status"] != "done":
        raise RequestError(f"start={name} has {record['status']}: {record['reason']}")
    removed = record["sparsity"]["weights"]
    if removed > 0:
        raise RequestError(
            f"start={name}: {100 * removed:.4g} % of its weights are gone; "
            "a run begins from a dense network"
        )
    return InitialNetwork(record["run_id"], digest, folder / WEIGHTS)
