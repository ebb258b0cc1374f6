"""Predict the next word with a pointer sentinel mixture model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError
from harness.foreign_models import (
    build_language_model,
    is_foreign,
    load_weights,
    require_outputs,
)
from harness.registry import task
from harness.task import ShuffledBatches, Split, Task, lengths_up_to, scoring_indices
from tasks.attention import Sizes
from tasks.ptb import data, own_text
from tasks.ptb.foreign import ForeignLanguageModel
from tasks.ptb.logits import LogitsModel
from tasks.ptb.model import PSMM
from tasks.ptb.settings import (
    FILES,
    OWN_TEXT,
    OWN_TEXT_PROFILES,
    PROFILES,
    TEXT,
    LanguageSettings,
    OwnTextSettings,
    TextSettings,
)
from tasks.ptb.transformer import Transformer

LanguageModel = PSMM | LogitsModel

Batch = tuple[Tensor, Tensor]
"""Words and the words that follow them, (windows, window - 1) each, as vocabulary numbers."""


class LanguageModelling(Task):
    """A text as one stream of words, cut into windows; the metric is the perplexity.

    The training windows are consecutive, start from a zero state and are shuffled in each epoch.
    In the ``carried`` protocol every word is predicted exactly once, the first from an end of
    sentence. Evaluation reads the text as a single stream: the recurrent state is carried from
    window to window, while the pointer, as in training, only points into the current window. A
    model without a state, such as a transformer, reads the words before instead: windows of the
    training length overlap by half, and only the later half of each is predicted (sliding windows,
    Press et al. 2021, arXiv:2012.15832). In the ``official`` protocol windows do not overlap,
    evaluation also starts each of them from a zero state, and neither the first word of each window
    nor the words after the last full window are predicted.
    """

    settings: LanguageSettings
    outputs_are = "logits"

    def __init__(self, settings: LanguageSettings, data_folder: Path, device: torch.device) -> None:
        super().__init__(settings, data_folder, device)
        corpus = self.corpus()
        self._require_windows(corpus)
        self.vocabulary = data.vocabulary(
            corpus.train, settings.minimum_count, settings.vocabulary, corpus.reader
        )
        self._train = self._encoded(corpus.train)
        self._held_out: dict[Split, Tensor] = {
            "validation": self._encoded(corpus.validation),
            "test": self._encoded(corpus.test),
        }
        self.training_windows = self._windows(self._train)
        self._samples = len(self.training_windows[0])
        self.steps_per_epoch = -(-self._samples // settings.batch_size)

    @abstractmethod
    def corpus(self) -> data.Corpus:
        """Return the text that the settings name."""

    def _require_windows(self, corpus: data.Corpus) -> None:
        window = self.settings.window
        shortest = min(len(corpus.train), len(corpus.validation), len(corpus.test))
        if not 2 <= window <= shortest:
            raise RequestError(
                f"window={window} does not fit; a window has at least 2 words, "
                f"and at most the {shortest} of the shortest part of the text"
            )

    def _encoded(self, words: Sequence[str]) -> Tensor:
        numbers = {word: number for number, word in enumerate(self.vocabulary)}
        unknown = numbers[data.UNKNOWN]
        return torch.tensor([numbers.get(word, unknown) for word in words], device=self.device)

    def _windows(self, words: Tensor) -> Batch:
        """Return all full windows."""
        window = self.settings.window
        if self.settings.protocol == "official":
            sequences = words[: len(words) // window * window].view(-1, window)
            return sequences[:, :-1], sequences[:, 1:]
        tokens, targets = self._predictions(words)
        used = len(words) // (window - 1) * (window - 1)
        return tokens[:used].view(-1, window - 1), targets[:used].view(-1, window - 1)

    def _predictions(self, words: Tensor) -> Batch:
        """Return the word before each word, and the words themselves, (words,) each."""
        before_the_text = words.new_tensor([self.vocabulary.index(data.END_OF_SENTENCE)])
        return torch.cat([before_the_text, words[:-1]]), words

    def model(self) -> nn.Module:
        """Return the network that the setting ``model`` names, with the weights of ``pretrained``.

        Raises:
            RequestError: it does not fit the words, or the weights are of another network.
        """
        network = self._foreign_model() if is_foreign(self.settings.model) else self.own_model()
        if weights := self.settings.pretrained:
            loaded = network.network if isinstance(network, ForeignLanguageModel) else network
            words = len(self.vocabulary)
            load_weights(loaded, weights, self.data_folder, classes=words, head="loaded")
        return network

    def own_model(self) -> nn.Module:
        """Return the network of this project that the setting ``model`` names."""
        settings, words = self.settings, len(self.vocabulary)
        if settings.model == "psmm":
            return PSMM(words, settings.hidden, settings.dropout)
        sizes = Sizes(
            head_width=settings.head_width,
            heads=settings.heads,
            blocks=settings.blocks,
            key_heads=settings.key_heads,
            positions=settings.positions,
        )
        return Transformer(words, sizes, settings.window, settings.dropout)

    def _foreign_model(self) -> ForeignLanguageModel:
        settings, words, length = self.settings, len(self.vocabulary), self.settings.window - 1
        network = ForeignLanguageModel(
            build_language_model(
                settings.model,
                vocabulary=words,
                length=length,
                blocks=settings.blocks,
                heads=settings.heads,
                head_width=settings.head_width,
                key_heads=settings.key_heads or settings.heads,
                data_folder=self.data_folder,
            )
        )
        tokens = torch.zeros(2, length, dtype=torch.long)
        shape = (2, length, words)
        require_outputs(settings.model, network, tokens, shape, ForeignLanguageModel.logits)
        return network

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return batches of shuffled windows."""
        return ShuffledBatches(
            self._samples,
            self.settings.batch_size,
            seed,
            lambda numbers, _: self._batch(numbers),
        )

    def _batch(self, numbers: Tensor) -> Batch:
        numbers = numbers.to(self.device)
        tokens, targets = self.training_windows
        return tokens[numbers], targets[numbers]

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of training windows."""
        chosen = scoring_indices(self._samples, self.settings.batch_size, seed)
        return [self._batch(numbers) for numbers in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the next words, in nats."""
        return _language_model(model).loss(*batch)

    def loss_and_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the same loss, and the log-probabilities (windows, window - 1, vocabulary).

        It takes several times longer than the loss of PSMM, which never computes the whole
        distribution.
        """
        tokens, targets = batch
        log_probabilities = model(tokens)[0]
        loss = -log_probabilities.gather(2, targets.unsqueeze(2)).mean()
        return loss, log_probabilities

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the same loss, twice differentiable."""
        log_probabilities, _ = _language_model(model).target_log_probabilities(*batch)
        return -log_probabilities.mean()

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the perplexity over all words of the part."""
        network = _language_model(model)
        carried = self.settings.protocol == "carried"
        context = (self.settings.window - 1) // 2 if carried and not network.has_state else 0
        state: Any = None
        predicted = []
        for tokens, targets in self.evaluation_windows(split, context):
            result, after = network.target_log_probabilities(tokens, targets, state)
            state = after if carried else None
            predicted.append(result.flatten().double())
        return {"perplexity": float((-torch.cat(predicted).mean()).exp())}

    def evaluation_windows(self, split: Split, context: int = 0) -> list[Batch]:
        """Return the windows of a part: one at a time, or in batches in the official protocol.

        Args:
            split: the part.
            context: how many words a window of the carried protocol has in common with the one
                before. They are read again, and not predicted: a window has fewer targets than
                tokens, those of its last tokens.
        """
        words = self._held_out[split]
        if self.settings.protocol == "official":
            tokens, targets = self._windows(words)
            size = self.settings.batch_size
            return list(zip(tokens.split(size), targets.split(size), strict=True))
        tokens, targets = (part.unsqueeze(0) for part in self._predictions(words))
        length = self.settings.window - 1 - context
        return [
            (
                tokens[:, max(start - context, 0) : start + length],
                targets[:, start : start + length],
            )
            for start in range(0, len(words), length)
        ]

    def baseline(self) -> float:
        """Return the test perplexity of the training part's word frequencies.

        If the training part has no unknown word, the unknown word counts as seen once.
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

    def by_length(self, batch: Batch) -> Mapping[int, Batch]:
        """Return the first words of each window, and at last the whole windows."""
        *shorter, whole = lengths_up_to(batch[0].shape[1])
        tokens, targets = batch
        cut = {n: (tokens[:, :n].contiguous(), targets[:, :n].contiguous()) for n in shorter}
        return {**cut, whole: batch}

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed scores of what is predicted for an input of ones."""
        return _language_model(model).flow()


@task(
    "ptb",
    title="Language modelling, PSMM",
    metric="perplexity",
    goal="min",
    data="tasks.ptb.data:describe",
    settings=TEXT,
    profiles=PROFILES,
    downloads=FILES,
    sparsity=0.9,
)
class PennTreebank(LanguageModelling):
    """The Penn Treebank, or a text in its place; the metric is the perplexity."""

    settings: TextSettings

    def corpus(self) -> data.Corpus:
        """Return the text that the setting ``text`` names."""
        return data.read(self.settings, self.data_folder)


@task(
    "text",
    title="A text, PSMM",
    metric="perplexity",
    goal="min",
    data="tasks.ptb.own_text:describe",
    settings=OWN_TEXT,
    profiles=OWN_TEXT_PROFILES,
    sparsity=0.9,
)
class OwnText(LanguageModelling):
    """A text, as ``text=DIR`` or ``text=FILE`` names it; the metric is the perplexity."""

    settings: OwnTextSettings

    def corpus(self) -> data.Corpus:
        """Return the text that the setting ``text`` names."""
        return own_text.read(self.settings, self.data_folder)


def _language_model(model: nn.Module) -> LanguageModel:
    assert isinstance(model, LanguageModel)
    return model
