"""Predict a column of a table with a multilayer perceptron."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import RequestError
from harness.registry import task
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices
from tasks.tabular import data
from tasks.tabular.settings import PROFILES, TABLE, TableSettings


@task(
    "tabular",
    title="A table, MLP",
    metric="score",
    goal="max",
    data="tasks.tabular.data:describe",
    settings=TABLE,
    profiles=PROFILES,
    sparsity=0.9,
)
class Tabular(Task):
    """A table, as ``table=FILE`` names it; the metric is the accuracy, or 100 R², in percent.

    Classes are learnt by their cross-entropy, and numbers by the squared error of the normalised
    number. R² is the coefficient of determination: 1 minus the squared error over the variance.
    """

    settings: TableSettings

    def __init__(self, settings: TableSettings, data_folder: Path, device: torch.device) -> None:
        super().__init__(settings, data_folder, device)
        table = data.read(settings, data_folder)
        self.classes = table.classes
        self.outputs_are = "logits" if self.classes else "values"
        self._inputs = torch.tensor(table.inputs, device=device)
        self._targets = torch.tensor(table.targets, device=device)
        self._rows = {part: torch.from_numpy(rows).to(device) for part, rows in table.rows.items()}
        train = self._targets[self._rows["train"]]
        self._mean, self._deviation = 0.0, 1.0
        if not self.classes:
            self._mean = float(train.mean())
            self._deviation = float(train.std())
            if self._deviation == 0:
                raise RequestError(f"tabular: {settings.target!r} is constant in the training rows")
        self._samples = len(train)
        self.steps_per_epoch = -(-self._samples // settings.batch_size)

    def model(self) -> nn.Module:
        """Return the network: hidden layers with rectifiers, and an output for each class."""
        settings = self.settings
        widths = [self._inputs.shape[1], *[settings.hidden] * settings.layers]
        layers: list[nn.Module] = []
        for incoming, outgoing in pairwise(widths):
            layers += [nn.Linear(incoming, outgoing), nn.ReLU()]
            if settings.dropout:
                layers.append(nn.Dropout(settings.dropout))
        return nn.Sequential(*layers, nn.Linear(widths[-1], len(self.classes) or 1))

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches."""
        size = self.settings.batch_size
        return ShuffledBatches(self._samples, size, seed, lambda numbers, _: self._batch(numbers))

    def _batch(self, numbers: Tensor) -> Batch:
        rows = self._rows["train"][numbers.to(self.device)]
        return self._inputs[rows], self._targets[rows]

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five training batches."""
        size = self.settings.batch_size
        return [self._batch(n) for n in scoring_indices(self._samples, size, seed)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy, or the squared error of the normalised number."""
        inputs, targets = batch
        outputs = model(inputs)
        if self.classes:
            return F.cross_entropy(outputs, targets)
        return F.mse_loss(outputs[:, 0], (targets - self._mean) / self._deviation)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the score, and the cross-entropy or the root of the mean squared error."""
        rows = self._rows[split]
        targets = self._targets[rows]
        outputs = model(self._inputs[rows])
        if self.classes:
            return {
                "score": 100 * float((outputs.argmax(1) == targets).double().mean()),
                "cross_entropy": float(F.cross_entropy(outputs, targets)),
            }
        predicted = self._mean + self._deviation * outputs[:, 0].double()
        return self._of_numbers(predicted, targets)

    def _of_numbers(self, predicted: Tensor, targets: Tensor) -> dict[str, float]:
        error = (predicted - targets).square().mean()
        variance = targets.double().var(correction=0)
        return {"score": 100 * float(1 - error / variance), "rmse": float(error.sqrt())}

    def baseline(self) -> float:
        """Return the score of the most frequent class, or of the mean, of the training rows."""
        train, test = (self._targets[self._rows[part]] for part in ("train", "test"))
        if self.classes:
            return 100 * float((test == train.mode().values).double().mean())
        constant = torch.full_like(test, self._mean, dtype=torch.double)
        return self._of_numbers(constant, test)["score"]

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (rows, classes), or the normalised numbers (rows, 1)."""
        outputs: Tensor = model(batch[0])
        return outputs

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the predicted classes or numbers (rows,)."""
        outputs = self.outputs(model, batch)
        if self.classes:
            return outputs.argmax(1)
        return self._mean + self._deviation * outputs[:, 0]

    def one_sample(self) -> Batch:
        """Return one training row."""
        return self._batch(torch.zeros(1, dtype=torch.long))
