"""Language models of own files and of transformers on the tasks ptb and text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.errors import RequestError
from harness.network import build_task
from harness.registry import Registry
from harness.spec import plan
from harness.task import Task
from tasks.ptb.foreign import ForeignLanguageModel

NETWORK = """
from torch import nn


def bigrams():
    return nn.Sequential(nn.Embedding({words}, 8), nn.Linear(8, {words}))
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Write a network for the generated text, and return the size of its vocabulary."""
    monkeypatch.chdir(tmp_path)
    model = build().model()
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    (tmp_path / "mine.py").write_text(NETWORK.format(words=embedding.num_embeddings))
    return embedding.num_embeddings


def build(**settings: str) -> Task:
    wanted = plan(Registry(), "text", "dense", profile="smoke", overrides=settings)
    return build_task(wanted, torch.device("cpu"))


def test_a_network_without_a_preference_has_the_perplexity_of_the_vocabulary(words: int) -> None:
    task = build(model="mine.py:bigrams")
    model = task.model()
    assert isinstance(model, ForeignLanguageModel)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    batch = task.one_sample()
    with torch.no_grad():
        assert task.evaluate(model, "test")["perplexity"] == pytest.approx(words)
        assert float(task.loss(model, batch)) == pytest.approx(math.log(words))
        assert float(task.scoring_loss(model, batch)) == pytest.approx(math.log(words))


@pytest.mark.usefixtures("words")
def test_its_loss_is_that_of_its_probabilities() -> None:
    task = build(model="mine.py:bigrams")
    model, batch = task.model(), task.one_sample()
    tokens, targets = batch
    probabilities = model(tokens)[0].exp()
    assert torch.allclose(probabilities.sum(-1), torch.ones(1))
    mean = probabilities.gather(2, targets[..., None]).log().mean()
    assert torch.isclose(task.loss(model, batch), -mean)


@pytest.mark.usefixtures("words")
def test_its_flow_is_that_of_the_mean_word() -> None:
    task = build(model="mine.py:bigrams")
    model = task.model()
    assert isinstance(model, ForeignLanguageModel)
    embedding, output = model.network.children()
    assert isinstance(embedding, nn.Embedding)
    expected = 4 * output(embedding.weight.mean(0)).sum()
    assert torch.isclose(task.flow(model), expected)


def test_a_network_for_other_words_is_refused(words: int) -> None:
    Path("mine.py").write_text(NETWORK.format(words=words + 1))
    with pytest.raises(RequestError, match=f"not .2, 19, {words}.: the data have {words} words"):
        build(model="mine.py:bigrams").model()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_networks_of_transformers_take_the_sizes_of_the_settings(name: str, words: int) -> None:
    pytest.importorskip("transformers")
    model = build(model=f"transformers:{name}", blocks="1", heads="2", head_width="8").model()
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    assert embedding.weight.shape == (words, 16)


def test_a_name_that_transformers_lacks_is_refused() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(RequestError, match="no causal language model 'gpt3'"):
        build(model="transformers:gpt3").model()


@pytest.mark.usefixtures("words")
def test_it_reads_shorter_windows() -> None:
    task = build(model="mine.py:bigrams")
    model, batch = task.model(), task.one_sample()
    whole = model(batch[0])[0]
    for length, (tokens, _) in task.by_length(batch).items():
        torch.testing.assert_close(model(tokens)[0], whole[:, :length])
