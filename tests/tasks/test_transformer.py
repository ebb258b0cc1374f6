"""The decoder of language modelling: what it sees, what it shares, and what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.errors import RequestError
from harness.prunable import prunable_weights
from harness.scoring import WithoutBarriers, magnitudes
from tasks.attention import Attention, Sizes, rotated
from tasks.ptb.settings import PROFILES, TEXT
from tasks.ptb.task import PennTreebank
from tasks.ptb.transformer import Transformer

CPU = torch.device("cpu")
VARIANTS: list[dict[str, Any]] = [
    {"positions": "rotary"},
    {"positions": "learned"},
    {"positions": "rotary", "key_heads": 2},
    {"positions": "learned", "key_heads": 1},
]


def decoder(dropout: float = 0.0, **changes: Any) -> Transformer:
    torch.manual_seed(0)
    sizes = Sizes(**{"head_width": 4, "heads": 4, "blocks": 2, **changes})
    return Transformer(11, sizes, 12, dropout).double()


def some_words(batch: int = 3, length: int = 9) -> Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(0))


# What it sees


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_word_changes_what_is_predicted_after_it_and_nothing_before(variant: Any) -> None:
    model, tokens = decoder(**variant), some_words()
    changed = tokens.clone()
    changed[:, 5] = (tokens[:, 5] + 1) % 11
    before, after = (model(each)[0] for each in (tokens, changed))
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before[:, 5:] - after[:, 5:]).abs().amax(-1) > 1e-9).all()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_order_of_the_words_before_matters(variant: Any) -> None:
    model, tokens = decoder(**variant), torch.tensor([[1, 2, 3], [2, 1, 3]])
    one, other = model(tokens)[0][:, -1]
    assert (one - other).abs().max() > 1e-6


def test_a_window_shorter_than_the_longest_is_read_alike() -> None:
    model, tokens = decoder(positions="learned"), some_words()
    torch.testing.assert_close(model(tokens[:, :4])[0], model(tokens)[0][:, :4])


# Rotary positions


def test_rotary_positions_multiply_complex_numbers() -> None:
    heads = torch.randn(2, 3, 5, 6, dtype=torch.double)
    pairs = heads[..., :3].numpy() + 1j * heads[..., 3:].numpy()
    angles = np.arange(5)[:, None] * 10_000.0 ** (-np.arange(3) / 3)
    turned = pairs * np.exp(1j * angles)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    torch.testing.assert_close(rotated(heads), torch.from_numpy(expected))


def test_rotated_products_depend_on_the_distance_only() -> None:
    query, key = torch.randn(2, 4, dtype=torch.double)
    same = rotated(query.expand(1, 1, 9, 4)) @ rotated(key.expand(1, 1, 9, 4)).transpose(-2, -1)
    for distance in range(-8, 9):
        products = same[0, 0].diagonal(distance)
        torch.testing.assert_close(products, products[:1].expand_as(products))
    assert same[0, 0, 0].unique().numel() == 9


def test_a_head_of_an_odd_width_has_no_pairs() -> None:
    with pytest.raises(RequestError, match="positions=rotary turns pairs of features, and a head"):
        Sizes(head_width=3, heads=2, blocks=1, positions="rotary")


# Grouped-query attention


def test_grouped_queries_read_what_repeated_keys_would_give() -> None:
    torch.manual_seed(0)
    grouped = Attention(Sizes(head_width=4, heads=6, blocks=1, key_heads=2), is_causal=True)
    whole = Attention(Sizes(head_width=4, heads=6, blocks=1), is_causal=True)
    for name, weight in grouped.named_parameters():
        heads = weight.detach().view(-1, 4, 24) if name[:5] in ("key.w", "value") else weight
        repeated = heads.repeat_interleave(3, 0).flatten(0, 1) if heads.dim() == 3 else heads
        whole.get_parameter(name).data.copy_(repeated)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(grouped(x), whole(x))


def test_key_heads_must_divide_the_heads() -> None:
    with pytest.raises(RequestError, match="key_heads=3 does not divide heads=4"):
        decoder(key_heads=3)


# What it shares, how it begins, and how large it is


@pytest.mark.parametrize("width", [32, 128])
@torch.no_grad()
def test_the_logits_of_a_new_decoder_have_a_variance_of_one(width: int) -> None:
    torch.manual_seed(0)
    model = Transformer(1000, Sizes(head_width=width // 4, heads=4, blocks=2), 12).eval()
    logits = model.logits(torch.randint(1000, (3, 12)))
    assert float(logits.var()) == pytest.approx(1, rel=0.1)


def test_words_are_read_and_predicted_by_the_same_vectors() -> None:
    model = decoder()
    assert model.vocabulary.weight is model.embedding.weight
    assert next(iter(prunable_weights(model))) == "embedding.weight"
    assert "vocabulary.weight" not in prunable_weights(model)


def test_the_paper_profile_is_as_large_as_the_base_model_of_the_transformer() -> None:
    """Six blocks of width 512; each has four maps of the stream, and a feed-forward layer of 2048.

    The original's decoder has biases, and reads an encoder besides.
    """
    paper = PROFILES["paper"]
    sizes = Sizes(head_width=paper.head_width, heads=paper.heads, blocks=paper.blocks)
    with torch.device("meta"):
        model = Transformer(10_000, sizes, paper.window)
    blocks = 6 * (4 * 512**2 + 2 * 512 * 2048 + 2 * 2 * 512)
    embeddings = 10_000 * 512 + 10_000 + 80 * 512
    assert sum(p.numel() for p in model.parameters()) == blocks + embeddings + 2 * 512


# The task


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., PennTreebank]:
    """Return a builder of the task on a text of three words; settings by keyword."""
    (tmp_path / "train.txt").write_text("a b a c\nb a\n" * 10)
    (tmp_path / "valid.txt").write_text("a b\nc a b a\n")
    (tmp_path / "test.txt").write_text("b a zebra\nc a a b\n")
    letters = replace(
        TEXT, model="transformer", text=str(tmp_path), window=5, head_width=4, minimum_count=1
    )
    return lambda **changes: PennTreebank(replace(letters, **changes), tmp_path, CPU)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_all_ways_to_compute_the_loss_agree(make_task: Any, variant: Any) -> None:
    task = make_task(**variant)
    model, batch = task.model().double().eval(), task.scoring_batches(0)[0]
    loss, outputs = task.loss_and_outputs(model, batch)
    torch.testing.assert_close(outputs.exp().sum(-1), torch.ones_like(outputs[..., 0]))
    torch.testing.assert_close(task.loss(model, batch), loss)
    torch.testing.assert_close(task.scoring_loss(model, batch), loss)


@torch.no_grad()
def test_the_official_protocol_reads_each_window_anew(make_task: Any) -> None:
    task = make_task(protocol="official")
    model = task.model().eval()
    losses = []
    for tokens, targets in task.evaluation_windows("test"):
        for row, after in zip(tokens, targets, strict=True):
            log_probabilities = model(row[None])[0][0]
            losses.append(-log_probabilities[torch.arange(len(after)), after])
    expected = torch.cat(losses).double().mean().exp().item()
    assert task.evaluate(model, "test")["perplexity"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@torch.no_grad()
def test_evaluation_reads_the_two_words_before_each_pair(make_task: Any, positions: str) -> None:
    """A window has four words, as in training."""
    task = make_task(positions=positions)
    torch.manual_seed(0)
    model = task.model().eval()
    tokens, targets = (
        torch.cat(parts, 1)[0] for parts in zip(*task.evaluation_windows("test"), strict=True)
    )
    loss = 0.0
    for place, word in enumerate(targets):
        first = max(place // 2 * 2 - 2, 0)
        loss -= float(model(tokens[None, first : place + 1])[0][0, -1, word])
    expected = math.exp(loss / len(targets))
    assert task.evaluate(model, "test")["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_it_learns_a_text_that_repeats_itself(make_task: Any) -> None:
    """Half a nat, where the frequencies of the words leave 1.35 of them."""
    task = make_task(dropout=0.0)
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    stream = task.stream(model, 0)
    for _ in range(40):
        optimizer.zero_grad()
        loss = task.loss(model, stream.next(model))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


# Second derivatives, and synaptic flow


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_second_derivatives_are_differences_of_first_ones(variant: Any) -> None:
    model, tokens = decoder(**variant), some_words()
    weights = [*prunable_weights(model).values()]

    def gradient() -> tuple[Tensor, ...]:
        with sdpa_kernel(SDPBackend.MATH):
            log_probabilities, _ = model.target_log_probabilities(tokens[:, :-1], tokens[:, 1:])
            return torch.autograd.grad(-log_probabilities.mean(), weights, create_graph=True)

    first = gradient()
    direction = [each.detach() for each in first]
    product = torch.autograd.grad(first, weights, direction)

    def moved(step: float) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for weight, along in zip(weights, direction, strict=True):
                weight.add_(along, alpha=step)
        return gradient()

    after, before = moved(1e-5), moved(-2e-5)
    for hg, high, low in zip(product, after, before, strict=True):
        torch.testing.assert_close(hg, (high - low).detach() / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_flow_reaches_every_weight_however_large_and_treats_words_alike(
    variant: Any, scale: float
) -> None:
    model = decoder(**variant)
    weights = prunable_weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    with magnitudes(model, {}), WithoutBarriers():
        flow = model.flow()
        gradients = torch.autograd.grad(flow, [*weights.values()])
    assert flow.isfinite()
    for name, gradient in zip(weights, gradients, strict=True):
        assert (gradient > 0).all(), name


def test_without_barriers_attention_adds_up_and_nothing_is_normalised() -> None:
    query, key, value = torch.rand(3, 1, 2, 3, 4).unbind()
    with WithoutBarriers():
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        assert nn.LayerNorm(4)(value) is not value
        torch.testing.assert_close(nn.LayerNorm(4)(value), value)
    by_hand = torch.zeros(2, 3, 4)
    for head in range(2):
        for place in range(3):
            for seen in range(place + 1):
                product = query[0, head, place] @ key[0, head, seen]
                by_hand[head, place] += (1 + product).log() * value[0, head, seen]
    torch.testing.assert_close(read[0], by_hand)
