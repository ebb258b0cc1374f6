"""How hard the drawings of image classification are, before anything is pruned.

    python -m benchmarks.difficulty [TASK ...]

They should be hard enough to need a network and easy enough to learn: a linear classifier of the
pixels stays below 50 % test accuracy, and the dense network ends between 80 and 95 %. This finds
the accuracies of the constant answer and of the linear classifier. The suite ``warmup`` has those
of the dense network.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeClassifierCV

from benchmarks.embedded import embedded_task
from benchmarks.publish.runs import read_rows, write_rows
from tasks.images.classification import ImageClassification
from tasks.images.data import Part

TASKS = ("cifar10", "cifar100", "tiny_imagenet")
PENALTIES = np.logspace(1, 6, 6)
"""Of the linear classifier, which chooses between them by leaving one training image out."""


def main() -> None:
    """Find the test accuracies of the constant answer and of a linear classifier."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.difficulty")
    parser.add_argument("tasks", nargs="*", default=TASKS, metavar="TASK")
    rows = {row["task"]: row for row in read_rows("difficulty")}
    for name in parser.parse_args().tasks:
        task = embedded_task(name)
        assert isinstance(task, ImageClassification)
        accuracies = {"constant": task.baseline(), "linear": linear(task)}
        rows[name] = {"task": name} | {key: f"{each:.4g}" for key, each in accuracies.items()}
        print(*rows[name].values(), sep="  ", flush=True)
    write_rows("difficulty", (rows[name] for name in sorted(rows)))


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
