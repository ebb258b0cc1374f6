"""Which samples are in each batch, and in which order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.task import ShuffledBatches, lengths_up_to, scoring_indices

MODEL = nn.Identity()
samples = st.integers(1, 60)
batch_sizes = st.integers(1, 20)
seeds = st.integers(0, 10)


def numbers(chosen: Tensor, augmentation: torch.Generator) -> list[int]:
    return chosen.tolist()


def take(stream: ShuffledBatches, count: int) -> list[list[int]]:
    return [stream.next(MODEL) for _ in range(count)]


@given(samples, batch_sizes, seeds)
def test_an_epoch_has_each_sample_once(samples: int, batch_size: int, seed: int) -> None:
    stream = ShuffledBatches(samples, batch_size, seed, numbers)
    for _ in range(3):
        epoch = take(stream, stream.batches_per_epoch)
        assert sorted(number for batch in epoch for number in batch) == list(range(samples))
        assert all(len(batch) == batch_size for batch in epoch[:-1])


def test_the_order_is_a_function_of_the_seed_and_the_epoch() -> None:
    first, again, other = (take(ShuffledBatches(40, 8, seed, numbers), 10) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[:5] != first[5:]


@given(samples, batch_sizes, seeds, st.integers(0, 20), st.integers(0, 20))
def test_the_position_is_the_whole_state(
    samples: int, batch_size: int, seed: int, place: int, elsewhere: int
) -> None:
    stream, restored = (ShuffledBatches(samples, batch_size, seed, numbers) for _ in range(2))
    take(stream, place)
    take(restored, elsewhere)
    restored.restore(stream.state())
    assert take(restored, 5) == take(stream, 5)


def test_augmentation_draws_from_its_own_stream() -> None:
    def greedy(chosen: Tensor, augmentation: torch.Generator) -> list[int]:
        torch.randn(1000, generator=augmentation)
        return chosen.tolist()

    plain, augmented = (ShuffledBatches(40, 8, 0, collate) for collate in (numbers, greedy))
    assert take(plain, 10) == take(augmented, 10)


def noise(chosen: Tensor, augmentation: torch.Generator) -> float:
    return float(torch.rand((), generator=augmentation))


def test_augmentation_is_a_function_of_the_seed_and_the_position() -> None:
    first, again, other = (
        [stream.next(MODEL) for _ in range(10)]
        for stream in (ShuffledBatches(40, 8, seed, noise) for seed in (0, 0, 1))
    )
    assert first == again
    assert len({*first, *other}) == 20


def test_reading_and_collating_draw_from_one_stream_in_order() -> None:
    """Reading draws random numbers first, and collating draws the next ones."""

    def read(chosen: Tensor, augmentation: torch.Generator) -> tuple[Tensor, ...]:
        return chosen, torch.rand(1, generator=augmentation)

    def collate(material: tuple[Tensor, ...], augmentation: torch.Generator) -> list[float]:
        chosen, first = material
        return [*chosen.tolist(), float(first), float(torch.rand(1, generator=augmentation))]

    def inline(chosen: Tensor, augmentation: torch.Generator) -> list[float]:
        return collate(read(chosen, augmentation), augmentation)

    plain = ShuffledBatches(40, 8, 0, inline)
    stream = ShuffledBatches(40, 8, 0, collate, read)
    assert take(stream, 12) == take(plain, 12)
    for each in (stream, plain):
        each.restore({"position": 3})
    assert take(stream, 12) == take(plain, 12)


def test_batches_draw_nothing_from_the_generator_of_dropout() -> None:
    before = torch.get_rng_state()
    take(ShuffledBatches(40, 8, 0, noise), 10)
    scoring_indices(40, 8, 0)
    assert torch.equal(torch.get_rng_state(), before)


@given(samples, batch_sizes, seeds)
def test_there_are_five_scoring_batches_and_no_sample_is_twice_in_one(
    samples: int, batch_size: int, seed: int
) -> None:
    batches = scoring_indices(samples, batch_size, seed)
    assert [len(batch) for batch in batches] == [min(batch_size, samples)] * 5
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch)
        assert all(0 <= number < samples for number in batch.tolist())


@given(batch_sizes, seeds)
def test_scoring_batches_share_no_sample_if_there_are_enough(batch_size: int, seed: int) -> None:
    batches = scoring_indices(5 * batch_size, batch_size, seed)
    assert sorted(torch.cat(batches).tolist()) == list(range(5 * batch_size))


@pytest.mark.parametrize("samples", [10, 1000])
def test_scoring_batches_are_a_function_of_the_seed_alone(samples: int) -> None:
    first, again, other = (torch.cat(scoring_indices(samples, 8, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    training = take(ShuffledBatches(samples, 8, 0, numbers), 1)[0]
    assert first[:8].tolist() != training


# Lengths of sequences


@pytest.mark.parametrize(
    ("longest", "lengths"), [(79, [10, 20, 40, 79]), (8, [1, 2, 4, 8]), (3, [1, 2, 3]), (1, [1])]
)
def test_lengths_are_parts_of_the_longest_and_each_occurs_once(
    longest: int, lengths: list[int]
) -> None:
    assert lengths_up_to(longest) == lengths
