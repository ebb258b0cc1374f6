"""How hard the drawings of image classification are, before anything is pruned.

    python -m benchmarks.difficulty [TASK ...] [--results DIR]

They should be hard enough to need a network and easy enough to learn: a linear classifier of the
pixels stays below 50 % test accuracy, and the dense network ends between 80 and 95 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeClassifierCV

from benchmarks.measurement import CPU, embedded, embedded_task
from harness.engine.run_plan import run_plan
from harness.registry import Registry
from harness.signals import Stop
from harness.storage.store import Store
from tasks.images.classification import ImageClassification
from tasks.images.data import Part

TASKS = ("cifar10", "cifar100", "tiny_imagenet")
PENALTIES = np.logspace(1, 6, 6)
"""Of the linear classifier, which chooses between them by leaving one training image out."""


def main() -> None:
    """Print the test accuracies of the constant answer, a linear classifier and the network."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.difficulty")
    parser.add_argument("tasks", nargs="*", default=TASKS, metavar="TASK")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    print(f"{'test accuracy':<16}{'constant':>10}{'linear':>10}{'dense':>10}{'seconds':>10}")
    for name in arguments.tasks:
        task = embedded_task(name)
        assert isinstance(task, ImageClassification)
        store = Store(arguments.results)
        record = run_plan(embedded(name), Registry(), store, CPU, lambda line: None, Stop())
        figures = (task.baseline(), linear(task), record["quality"]["test"])
        seconds = record["cost"]["train_seconds"]
        print(
            f"{name:<16}" + "".join(f"{figure:>10.1f}" for figure in figures) + f"{seconds:>10.0f}"
        )


def linear(task: ImageClassification) -> float:
    """Return the test accuracy of a linear classifier of the training images' pixels."""
    classifier = RidgeClassifierCV(PENALTIES).fit(*_pixels(task, "train"))
    images, labels = _pixels(task, "test")
    return 100 * float((classifier.predict(images) == labels).mean())


def _pixels(
    task: ImageClassification, part: Part
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the images of a part as rows, and their labels."""
    images, labels = zip(*task.batches(part), strict=True)
    return np.concatenate([i.flatten(1) for i in images]), np.concatenate(labels)


if __name__ == "__main__":
    main()
