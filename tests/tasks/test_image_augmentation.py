"""Random views of images, looked at pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tasks.images.transforms import flipped, rotated, shifted


def numbered(count: int, size: int = 5) -> Tensor:
    """Return images (count, 3, size, size) in which no two pixels are equal, nor black."""
    return torch.arange(1, count * 3 * size * size + 1).view(count, 3, size, size)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_shift_moves_all_channels_of_an_image_alike_and_black_comes_in() -> None:
    images = numbered(200)
    seen = set()
    for image, result in zip(images, shifted(images, 1, generator()), strict=True):
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
        places = [
            (down, right)
            for down in range(3)
            for right in range(3)
            if torch.equal(result, padded[:, down : down + 5, right : right + 5])
        ]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) == 9, "every move is made at some time"


def test_a_shift_of_nothing_changes_nothing() -> None:
    assert torch.equal(shifted(numbered(9), 0, generator()), numbered(9))


def test_about_half_of_the_images_are_mirrored_left_to_right() -> None:
    images = numbered(400)
    results = flipped(images, generator())
    mirrored = [torch.equal(r, i.flip(2)) for r, i in zip(results, images, strict=True)]
    same = [torch.equal(r, i) for r, i in zip(results, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_turns_are_at_most_as_far_as_they_may_be() -> None:
    """Followed by a bright spot to the right of the middle."""
    images = torch.zeros(300, 1, 41, 41)
    images[:, :, 19:22, 34:37] = 1
    centres = torch.stack([centre(image[0]) for image in rotated(images, 30.0, generator())])
    angles = torch.rad2deg(torch.atan2(centres[:, 0], centres[:, 1]))
    assert float(angles.abs().max()) <= 30.5
    assert float(angles.max()) > 25
    assert float(angles.min()) < -25
    torch.testing.assert_close(centres.norm(dim=1), torch.full((300,), 15.0), atol=0.3, rtol=0)


def centre(image: Tensor) -> Tensor:
    """Return how far down and right of the middle the light is, in pixels."""
    offset = torch.arange(41) - 20.0
    total = image.sum()
    return torch.stack(
        [(image.sum(1) * offset).sum() / total, (image.sum(0) * offset).sum() / total]
    )


def test_a_turn_of_nothing_changes_nothing() -> None:
    images = numbered(4).float()
    torch.testing.assert_close(rotated(images, 0.0, generator()), images)


@pytest.mark.parametrize("view", [lambda i, g: shifted(i, 2, g), flipped])
def test_a_seed_gives_its_views_again_and_another_seed_others(
    view: Callable[[Tensor, torch.Generator], Tensor],
) -> None:
    images = numbered(50)
    assert torch.equal(view(images, generator(1)), view(images, generator(1)))
    assert not torch.equal(view(images, generator(1)), view(images, generator(2)))
