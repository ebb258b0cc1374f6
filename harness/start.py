"""The finished network that a run begins from, in place of a new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.checksum import checksum
from harness.errors import RequestError
from harness.results.store import WEIGHTS, Store


@dataclass(frozen=True)
class Start:
    """A dense network that another run has trained."""

    run: str
    """The name of that run."""
    sha256: str
    """Of the file of its weights."""
    weights: Path

    def as_dict(self) -> dict[str, str]:
        """Return the ``start`` part of a record, which names no folder of this machine."""
        return {"run": self.run, "sha256": self.sha256}


def find_start(name: str, task: str, results: Path) -> Start:
    """Return the network of a run, found without importing torch.

    Args:
        name: the run's folder, its name, the beginning of it, or its hash.
        task: whose network it has to be.
        results: where runs are looked for by their names.

    Raises:
        RequestError: there is no such run, or it has no dense network of that task.
    """
    try:
        folder = Store(results).locate(name).resolve()
        record = Store(folder.parent).find(folder.name)
        digest = checksum(folder / WEIGHTS, "SHA-256")
    except RequestError as error:
        raise RequestError(f"start={name}: {error}") from None
    except OSError as error:
        raise RequestError(f"start={name}: cannot read {WEIGHTS}: {error.strerror}") from None
    owner = record["spec"]["task"]
    if owner != task:
        raise RequestError(f"start={name}: is of the task {owner!r} and not of {task!r}")
    if record["status"] != "done":
        raise RequestError(f"start={name}: has {record['status']}: {record['reason']}")
    if record["sparsity"]["weights"] > 0:
        raise RequestError(
            f"start={name}: {100 * record['sparsity']['weights']:.4g} % of its weights are gone; "
            "a run begins from a dense network"
        )
    return Start(record["run_id"], digest, folder / WEIGHTS)
