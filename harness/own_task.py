"""Tasks made in Python from a network and datasets, without a class: `task_from`.

The file that makes a task is a plug-in: the processes that measure networks or carry out the runs
of a matrix import it again, and its code is part of the identity of its runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.declarations import Goal, task_settings
from harness.entry import Entry
from harness.errors import RequestError
from harness.plugin_code import PluginCode, without_prefix

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from harness.data.description import DataDescription
    from harness.dataset_task import DatasetTask

SMOKE_EPOCHS = 2

_imported: set[Path] = set()
"""The files whose import has begun but not ended."""


@dataclass(frozen=True, kw_only=True)
class OwnTask:
    """A task that `task_from` made; `run_pairing` and `run_matrix` take it in place of a name."""

    name: str
    source: Path
    """The file that makes it."""
    model: Callable[[], nn.Module]
    train: Dataset[Any]
    test: Dataset[Any]
    validation: Dataset[Any] | None
    loss: Callable[[Tensor, Tensor], Tensor] | None
    metric: Callable[[Tensor, Tensor], float | Tensor] | None
    fingerprint: str | None
    arguments: Mapping[str, Any]
    """What the decorator of a task takes."""

    def __call__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> DatasetTask:
        """Build the task, as the class of any other task does."""
        from harness.dataset_task import DatasetTask

        return DatasetTask(self, settings, data_folder, device)

    def describe(
        self, profile: str, settings: Mapping[str, Any], data_folder: Path
    ) -> DataDescription:
        """Describe the data; without a fingerprint, read and hash every item."""
        from harness.dataset_task import described

        return described(self)

    def plugin(self) -> Path:
        """Return the plug-in file of the task.

        Raises:
            RequestError: its import has not ended; the run would import it once more.
        """
        if self.source in _imported:
            raise RequestError(
                f"{self.source.name} is imported by the processes of its runs, but starts runs "
                "itself: put what starts them below if __name__ == '__main__':"
            )
        return self.source


@dataclass(frozen=True)
class OwnEntry(Entry):
    """The registered form of an `OwnTask`."""

    def describe(self) -> Callable[..., Any]:
        """Return the function that describes the task's data."""
        own: OwnTask = self.load()
        return own.describe


def task_from(
    *,
    model: Callable[[], nn.Module],
    train: Dataset[Any],
    test: Dataset[Any],
    validation: Dataset[Any] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    metric: Callable[[Tensor, Tensor], float | Tensor] | None = None,
    goal: Goal = "max",
    name: str = "",
    title: str = "",
    fingerprint: str | None = None,
    sparsity: float = 0.9,
    epochs: int = 10,
    batch_size: int = 32,
    optimiser: str = "adam",
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    clip: float = 10.0,
) -> OwnTask:
    """Return a task made from a network and datasets.

    Call it at the top level of a file, and assign the task to a variable. The file is a plug-in::

        leaves = harness.task_from(model=Net, train=train, test=test)

        if __name__ == "__main__":
            harness.run_matrix(tasks=[leaves], pruners=["dense", "crop_s"])

    The identity of its runs covers the code of that file, the modules beside it that it imports,
    and the data. What a notebook defines cannot be imported; write it into a file.

    Args:
        model: returns a new network, initialised from torch's random state.
        train: a map-style dataset (`torch.utils.data.Dataset`) of pairs of an input and a target.
            What it draws at random from torch, NumPy or Python is the same for every method.
        test: the same for the test; it is read once a run.
        validation: the same for validation; None to split off a tenth of the training pairs.
        loss: maps the outputs and targets of a batch to their mean loss; None for the
            cross-entropy.
        metric: maps all outputs and targets of a part to a number; None for the accuracy in
            percent or, if there is a ``loss``, for that loss, where smaller is better.
        goal: whether a larger (``max``) or smaller (``min``) metric is better.
        name: what ``--task`` takes; the name of the file by default.
        title: in tables and figures; the name by default.
        fingerprint: identifies the data; None to read and hash every item.
        sparsity: the default of ``--sparsity``.
        epochs: training budget. This and all settings below are defaults that ``--set`` changes.
        batch_size: samples in a training batch.
        optimiser: adam, adamw or sgd.
        learning_rate: largest learning rate of the schedule.
        weight_decay: weight decay of the optimizer.
        clip: norm to which larger gradients are scaled down; 0 for no clipping.

    Raises:
        RequestError: it is not called in a file, or an argument is wrong.
    """
    frame = inspect.currentframe()
    caller = None if frame is None else frame.f_back
    file = "" if caller is None else caller.f_globals.get("__file__", "")
    if not file or not Path(file).is_file():
        raise RequestError(
            "task_from: it is not called in a file, so other processes cannot import what it "
            "makes: write it into a file and import it from there"
        )
    source = Path(file).resolve()
    name = name or source.stem
    if not name.isidentifier():
        raise RequestError(
            f"task_from: the name {name!r} is not made of letters, digits and underscores"
        )
    if not callable(model) or (hasattr(model, "state_dict") and not isinstance(model, type)):
        raise RequestError(
            f"task_from: model is a {type(model).__name__}; "
            "it has to be a function that returns a new network for each seed"
        )
    measured = getattr(metric, "__name__", "metric") if metric else "accuracy"
    if metric is None and loss is not None:
        measured, goal = "loss", "min"
    recipe = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimiser": optimiser,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "clip": clip,
    }
    return OwnTask(
        name=name,
        source=source,
        model=model,
        train=train,
        test=test,
        validation=validation,
        loss=loss,
        metric=metric,
        fingerprint=fingerprint,
        arguments={
            "title": title or name,
            "metric": measured,
            "goal": goal,
            "data": ":describe",
            "settings": recipe,
            "profiles": {"smoke": {"epochs": min(epochs, SMOKE_EPOCHS)}, "embedded": {}},
            "sparsity": sparsity,
        },
    )


def own_entries(source: Path) -> Iterator[OwnEntry]:
    """Import a file that calls `task_from`, and yield the tasks at its top level.

    Args:
        source: the resolved path of the file.

    Raises:
        RequestError: it cannot be imported.
    """
    code = PluginCode(source)
    if source in _imported:
        raise RequestError(f"{source.name} starts runs while it is imported")
    _imported.add(source)
    try:
        module = code.load(code.fingerprint())
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        reason = without_prefix(" ".join(str(error).split()))
        raise RequestError(f"does not import: {type(error).__name__}: {reason}") from error
    finally:
        _imported.discard(source)
    for attribute, own in vars(module).items():
        if isinstance(own, OwnTask) and own.source == source:
            arguments = dict(own.arguments)
            whose = f"{source.name}: task {own.name!r}"
            declared = task_settings(arguments, "", source.name, whose)
            yield OwnEntry(
                kind="task",
                name=own.name,
                attribute=attribute,
                source=source,
                module=None,
                arguments=arguments,
                summary=f"A task of {source.name}.",
                declared=declared,
            )


def names_and_plugins(
    tasks: Sequence[str | OwnTask], plugins: Sequence[Path]
) -> tuple[list[str], list[Path]]:
    """Return tasks by name, and the plug-in files with those of the tasks.

    Raises:
        RequestError: the file of a task starts runs while it is imported.
    """
    files = [*plugins]
    for own in tasks:
        if isinstance(own, OwnTask) and own.plugin() not in map(Path.resolve, files):
            files.append(own.source)
    return [own.name if isinstance(own, OwnTask) else own for own in tasks], files
